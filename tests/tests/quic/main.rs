//! Real QUIC behind the balancer: servers that put their id into connection ids keep a connection
//! whose client moves to another address, also when the lookup table has changed meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

mod client;
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use lb_common::counter::Reason;
use lb_tests::loaded::bpf_pins;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::lab::{Host, Instance, Lab, VIP_V4, VIP_V6};

use client::{Client, Connected};
use server::{Certificate, Layout, Server};

/// The port of the servers.
pub const PORT: u16 = 443;
/// Connections at most until each server has one.
const ENOUGH: usize = 500;

/// A QUIC VIP of each family on these servers, each with its number as server id.
fn services(servers: &[&Host], keys: &str, table_size: u32) -> String {
    let mut text = "version = 1\n".to_owned();
    for (family, vip) in [("v4", IpAddr::from(VIP_V4)), ("v6", VIP_V6.into())] {
        let _ = write!(
            text,
            "[[vip]]\nname = \"quic-{family}\"\nservice = \"web\"\naddress = \"{vip}\"\n\
             port = {PORT}\nprotocol = \"udp\"\npool = \"{family}\"\nflags = [\"quic\"]\n\
             [[pool]]\nname = \"{family}\"\nservice = \"web\"\nforward = \"ipip\"\n\
             table_size = {table_size}\n{keys}\n"
        );
        for host in servers {
            let _ = write!(
                text,
                "[[pool.backend]]\nname = \"{}\"\naddress = \"{}\"\nweight = 100\nquic_id = {}\n",
                host.name(),
                host.address_like(vip),
                server_id(host.name())
            );
        }
    }
    text
}

/// `web-3` has a server id that fits into 16 bits and is as long as that.
fn server_id(name: &str) -> u32 {
    let number = name
        .rsplit('-')
        .next()
        .and_then(|text| text.parse::<u32>().ok());
    0x1230 + number.expect("a number in the name")
}

/// Three servers that make their connection ids so, and a balancer.
struct Scene {
    lab: Lab,
    instance: Instance,
    certificate: Certificate,
    _servers: Vec<Server>,
}

impl Scene {
    fn new(layouts: [Layout; 3], keys: &str) -> Self {
        let lab = Lab::builder()
            .backends("web", 3)
            .without_web()
            .build()
            .unwrap();
        let certificate = Certificate::new(lab.root());
        let both = [IpAddr::from(VIP_V4), VIP_V6.into()];
        let servers = lab.backends().zip(layouts).flat_map(|(host, layout)| {
            both.map(|vip| Server::start(host, vip, &certificate, layout, server_id(host.name())))
        });
        let servers = servers.collect();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let hosts: Vec<&Host> = lab.backends().collect();
        instance.commit(&services(&hosts, keys, 4099)).unwrap();
        Self {
            lab,
            instance,
            certificate,
            _servers: servers,
        }
    }

    /// Connections to a VIP, one to each server at least.
    fn connections(&self, client: &Client, vip: IpAddr) -> BTreeMap<String, Connected> {
        let mut by_server = BTreeMap::new();
        for _ in 0..ENOUGH {
            let connected = client.connect(vip, &self.certificate);
            by_server
                .entry(connected.server.clone())
                .or_insert(connected);
            if by_server.len() == 3 {
                return by_server;
            }
        }
        panic!(
            "of {ENOUGH} connections none to some server: {:?}",
            by_server.keys()
        );
    }

    fn unknown_ids(&self) -> u64 {
        let maps = Maps::open(&bpf_pins(&self.lab)).unwrap();
        let of = |set| maps.reasons(set).unwrap().packets[Reason::QuicUnknown as usize];
        (0..u32::try_from(lb_common::SLOTS).unwrap()).map(of).sum()
    }
}

/// Everything that a connection has to live through.
fn connections_outlive_moves_and_changes(layouts: [Layout; 3], keys: &str) {
    let scene = Scene::new(layouts, keys);
    let client = Client::start(scene.lab.client());
    for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
        let mut all = scene.connections(&client, vip);
        for moves in 1..4 {
            for connected in all.values_mut() {
                client.move_to(connected, moves);
                client.ask_again(connected);
            }
        }
        let hosts: Vec<&Host> = scene.lab.backends().collect();
        scene
            .instance
            .commit(&services(&hosts, keys, 5003))
            .unwrap();
        for moves in 4..7 {
            for connected in all.values_mut() {
                client.ask_again(connected);
                client.move_to(connected, moves);
                client.ask_again(connected);
            }
        }
        scene
            .instance
            .commit(&services(&hosts, keys, 4099))
            .unwrap();
    }
    assert_eq!(scene.unknown_ids(), 0);
}

#[test]
fn by_ids_that_say_how_long_they_are_connections_outlive_moves_and_changes() {
    connections_outlive_moves_and_changes([Layout::Bits16, Layout::Bits24, Layout::Bits32], "");
}

#[test]
fn by_quic_lb_ids_connections_outlive_moves_and_changes() {
    connections_outlive_moves_and_changes([Layout::Plain(2); 3], "quic_id_bytes = 2");
}

#[test]
fn by_long_quic_lb_ids_connections_outlive_moves_and_changes() {
    connections_outlive_moves_and_changes([Layout::Plain(4); 3], "quic_id_bytes = 4");
}

/// Servers that draw their connection ids are served as any UDP: by table and flow. No drawn id of 32
/// bits is a server's, but once in a billion.
#[test]
fn a_server_without_ids_is_served_by_the_table() {
    let scene = Scene::new([Layout::Drawn; 3], "quic_id_bytes = 4");
    let client = Client::start(scene.lab.client());
    for vip in [IpAddr::from(VIP_V4), VIP_V6.into()] {
        let all = scene.connections(&client, vip);
        let hosts: Vec<&Host> = scene.lab.backends().collect();
        let changed = services(&hosts, "quic_id_bytes = 4", 5003);
        scene.instance.commit(&changed).unwrap();
        for connected in all.values() {
            client.ask_again(connected);
        }
    }
    assert!(scene.unknown_ids() > 0, "and it is counted");
}

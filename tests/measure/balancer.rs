//! The balancer as it is measured: the object that ships, its VIPs, its flow table.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use lb_common::SLOTS;
use lb_common::counter::Reason;

use crate::bench::{AGENT, Bench};
use crate::bpffs::Bpffs;
use crate::measure::workload::{TCP_PORT, UDP_PORT, VIP_V4, VIP_V6};

/// Flows that the table is for: what the memory aims are about.
pub const FLOWS: u32 = 4 << 20;
/// Backends of a pool unless a growth run has more.
pub const BACKENDS: u32 = 100;

/// A loaded balancer and its handle for tail calls and interfaces.
pub struct Balancer {
    /// The object and its maps.
    pub bench: Bench,
    /// `lb`.
    pub program: Xdp,
    backends: u32,
    /// Where it is pinned; unmounted last.
    pub bpffs: Bpffs,
}

/// How many of what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Flows that the table is for.
    pub flows: u32,
    /// VIPs of IPv4 and TCP; one of UDP and one of IPv6 come on top.
    pub vips: u16,
    /// Backends of each family's pool.
    pub backends: u32,
}

/// As most figures have it.
pub const USUAL: Size = Size {
    flows: FLOWS,
    vips: 1,
    backends: BACKENDS,
};

impl Balancer {
    /// Loads one and commits its VIPs.
    pub fn new(size: Size) -> Self {
        let balancer = Self::empty(size);
        balancer.bench.commit(&services(size, 100));
        balancer
    }

    /// Loads one that forwards nothing yet.
    pub fn empty(size: Size) -> Self {
        let bpffs = Bpffs::new();
        let agent = AGENT
            .replace("vips = 64", &format!("vips = {}", u32::from(size.vips) + 8))
            .replace(
                "backends = 2048",
                &format!("backends = {}", size.backends * 8 + 2_048),
            )
            .replace("flows = 8192", &format!("flows = {}", size.flows));
        let bench = Bench::pinned_by(&bpffs.pins(), &agent);
        let program = Xdp::from_pin(bpffs.pins().program("lb"), XdpAttachType::Interface);
        Self {
            bench,
            program: program.expect("the pinned balancer"),
            backends: size.backends,
            bpffs,
        }
    }

    /// Whether it sends there.
    pub fn has_backend(&self, address: IpAddr) -> bool {
        (1..=self.backends).any(|number| match address {
            IpAddr::V4(address) => address == backend_v4(number),
            IpAddr::V6(address) => address == backend_v6(number),
        })
    }

    /// Packets that it has counted as traffic by this reason.
    pub fn counted(&self, reason: Reason) -> u64 {
        let sets = 0..u32::try_from(SLOTS).expect("three");
        let of = |set| self.bench.kernel.maps.reasons(set).expect("counters");
        sets.map(|set| of(set).packets[reason as usize]).sum()
    }
}

fn backend_v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 99, 0, 0)) + number)
}

fn backend_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0)) + u128::from(number))
}

/// services.toml; the first backend of each pool has this weight.
pub fn services(size: Size, weight: u32) -> String {
    let mut text = String::from("version = 1\n");
    let mut vip = |name: &str, address: IpAddr, protocol: &str, port: u16, pool: &str| {
        let _ = write!(
            text,
            "[[vip]]\nname = \"{name}\"\nservice = \"s\"\naddress = \"{address}\"\n\
             port = {port}\nprotocol = \"{protocol}\"\npool = \"{pool}\"\n"
        );
    };
    for number in 0..size.vips {
        let address = Ipv4Addr::from(u32::from(VIP_V4) + u32::from(number));
        vip(
            &format!("v4-{number}"),
            address.into(),
            "tcp",
            TCP_PORT,
            "p4",
        );
    }
    vip("u4", VIP_V4.into(), "udp", UDP_PORT, "p4");
    vip("v6", VIP_V6.into(), "tcp", TCP_PORT, "p6");
    let mut pool = |name: &str, backend: &dyn Fn(u32) -> IpAddr| {
        let _ = write!(
            text,
            "[[pool]]\nname = \"{name}\"\nservice = \"s\"\nforward = \"ipip\"\n"
        );
        for number in 1..=size.backends {
            let address = backend(number);
            let weight = if number == 1 { weight } else { 100 };
            let _ = write!(
                text,
                "[[pool.backend]]\nname = \"b{number}\"\naddress = \"{address}\"\nweight = {weight}\n"
            );
        }
    };
    pool("p4", &|number| backend_v4(number).into());
    pool("p6", &|number| backend_v6(number).into());
    text
}

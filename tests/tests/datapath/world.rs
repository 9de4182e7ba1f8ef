//! The configurations that cases run on.

use std::fmt::Write as _;
use std::net::IpAddr;

use lb_common::control::SHARE_ALL;
use lb_common::guard::Op;
use lb_common::slot::{NextHop, next_hop_flag};
use lb_tests::bench::{Bench, HOP, OWN};
use lb_tests::expect::key;
use lb_tests::packets::Talk;
use lb_tests::rows::Out;
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::{Ask, Decision};
use zerocopy::{FromZeros, IntoBytes};

/// A pool: name, mode, and backends as (name, address, the rest of its section).
pub type PoolText<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str, &'a str)]);

/// A VIP: name, address, port, protocol, pool.
pub type VipText<'a> = (&'a str, &'a str, u16, &'a str, &'a str);

/// services.toml of these.
pub fn services(vips: &[VipText<'_>], pools: &[PoolText<'_>]) -> String {
    let mut text = "version = 1\n".to_owned();
    for (name, address, port, protocol, pool) in vips {
        let _ = writeln!(
            text,
            "[[vip]]\nname = \"{name}\"\nservice = \"s\"\naddress = \"{address}\"\nport = {port}\n\
             protocol = \"{protocol}\"\npool = \"{pool}\""
        );
    }
    for (name, forward, backends) in pools {
        let _ = writeln!(
            text,
            "[[pool]]\nname = \"{name}\"\nservice = \"s\"\nforward = \"{forward}\"\n\
             table_size = 4099"
        );
        for (name, address, rest) in *backends {
            let weight = if rest.contains("weight") {
                ""
            } else {
                "weight = 100\n"
            };
            let _ = writeln!(
                text,
                "[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n{weight}{rest}"
            );
        }
    }
    text
}

/// The same with flags for a VIP, listed with commas; none = as it is.
pub fn flagged(text: &str, vip: &str, flags: &str) -> String {
    if flags.is_empty() {
        return text.to_owned();
    }
    let list: Vec<String> = flags.split(',').map(|flag| format!("\"{flag}\"")).collect();
    with_key(text, vip, &format!("flags = [{}]", list.join(", ")))
}

/// The same with more lines for a VIP or pool.
pub fn with_key(text: &str, name: &str, lines: &str) -> String {
    let head = format!("name = \"{name}\"\nservice");
    assert!(text.contains(&head), "{name} is not in the file");
    text.replacen(&head, &format!("name = \"{name}\"\n{lines}\nservice"), 1)
}

/// Every mode and family, one backend each, so that it is known without looking.
pub fn world() -> String {
    services(
        &[
            ("l2-v4", "203.0.113.1", 80, "tcp", "l2-4"),
            ("l2-v6", "2001:db8::1", 80, "tcp", "l2-6"),
            ("t44", "203.0.113.2", 80, "tcp", "p44"),
            ("t44-udp", "203.0.113.2", 53, "udp", "p44"),
            ("t66", "2001:db8::2", 80, "tcp", "p66"),
            ("t66-udp", "2001:db8::2", 53, "udp", "p66"),
            ("t46", "203.0.113.3", 80, "tcp", "p66"),
            ("any", "203.0.113.4", 0, "tcp", "l2-4"),
            ("exact", "203.0.113.4", 443, "tcp", "p44"),
            ("any-v6", "2001:db8::4", 0, "udp", "l2-6"),
        ],
        &[
            ("l2-4", "l2", &[("near", "10.0.1.1", "")]),
            ("l2-6", "l2", &[("near6", "fd00:1::1", "")]),
            ("p44", "ipip", &[("far", "10.0.2.1", "")]),
            ("p66", "ipip", &[("far6", "fd00:2::1", "")]),
        ],
    )
}

/// One VIP, 203.0.113.5:80, and its backends `web-N` at 10.0.5.N.
pub fn shop(numbers: &[u8]) -> String {
    shop_with(numbers, |_| "")
}

/// The same with more lines for some backends.
pub fn shop_with(numbers: &[u8], more: impl Fn(u8) -> &'static str) -> String {
    let texts: Vec<_> = numbers
        .iter()
        .map(|n| (format!("web-{n}"), format!("10.0.5.{n}"), more(*n)))
        .collect();
    let backends: Vec<_> = texts
        .iter()
        .map(|(name, address, more)| (name.as_str(), address.as_str(), *more))
        .collect();
    services(
        &[
            ("shop", "203.0.113.5", 80, "tcp", "web"),
            ("dns", "203.0.113.5", 53, "udp", "web"),
        ],
        &[("web", "ipip", &backends)],
    )
}

/// A client's flow to the shop.
pub fn client(port: u16) -> Talk {
    Talk::new("198.51.100.7:1", "203.0.113.5:80").sender_port(port)
}

/// The same to the name server.
pub fn asker(port: u16) -> Talk {
    client(port).receiver_port(53)
}

/// From a client to `to`, from a port of no meaning.
pub fn to(to: &str) -> Talk {
    if to.starts_with('[') {
        Talk::new("[2001:db8:c::7]:40000", to)
    } else {
        Talk::new("198.51.100.7:40000", to)
    }
}

/// In a tunnel, for a TCP flow.
pub fn tcp_in(talk: Talk, backend: &str) -> Out {
    Out::Ipip(key(talk, 6), backend.parse().unwrap())
}

/// In a tunnel, for a UDP flow.
pub fn udp_in(talk: Talk, backend: &str) -> Out {
    Out::Ipip(key(talk, 17), backend.parse().unwrap())
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What becomes of a frame.
pub fn probe(bench: &Bench, frame: &[u8]) -> Decision {
    bench.kernel.prober.run(frame, Ask::default()).unwrap()
}

/// What would become of it without the flow table, which is left alone.
pub fn by_table(bench: &Bench, frame: &[u8]) -> Decision {
    bench
        .kernel
        .prober
        .run(
            frame,
            Ask {
                no_flows: true,
                ..Ask::default()
            },
        )
        .unwrap()
}

/// Name of the backend that a frame goes to.
pub fn backend(image: &Image, decision: &Decision) -> String {
    let member = decision
        .member
        .unwrap_or_else(|| panic!("no backend: {decision:x?}"));
    image
        .member_name(member)
        .unwrap_or_else(|| panic!("member {member} has no name"))
        .1
        .to_owned()
}

/// Stages and commits, as change number `change`.
pub fn commit(bench: &Bench, services: &str, change: u64) -> Image {
    let image = bench.image(services);
    bench.stage(&image).unwrap();
    bench.trial(change).unwrap();
    bench.confirm().unwrap();
    image
}

/// Stages and puts on trial with all new flows; returns the slot too.
pub fn trial(bench: &Bench, services: &str, change: u64) -> (Image, u8) {
    let image = bench.image(services);
    let sealed = bench.stage(&image).unwrap();
    bench
        .trial_of(u64::from(SHARE_ALL), change, 60_000, 60_000)
        .unwrap();
    (image, sealed.slot)
}

/// Writes a next hop that leaves by `interface`.
pub fn hop_by(bench: &Bench, number: u64, interface: u32) {
    let hop = NextHop {
        destination: HOP,
        source: OWN,
        interface,
        mtu: 1500,
        flags: next_hop_flag::RESOLVED,
        ..NextHop::new_zeroed()
    };
    bench
        .kernel
        .guard
        .call(Op::PutNextHops, 0, &[number, 1], hop.as_bytes())
        .unwrap();
}

/// Sets a member's state, its next hop stays number 1.
pub fn set_state(bench: &Bench, image: &Image, name: &str, state: u8) {
    let id = image
        .members()
        .find(|member| member.name == name)
        .unwrap()
        .id;
    bench
        .kernel
        .guard
        .call(Op::SetMember, 0, &[u64::from(id), u64::from(state), 1], &[])
        .unwrap();
}

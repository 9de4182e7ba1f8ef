//! The balancer's interfaces.

use std::fs;
use std::path::Path;

use super::{Check, ethtool};
use crate::config::NodeConfig;
use crate::kernel::attach::{self, Attached};
use crate::kernel::inspect::Active;
use crate::kernel::pins::Pins;
use crate::net::{Link, XdpMode};

/// What a client's packet may be without being told otherwise, bytes.
const USUAL_MTU: u32 = 1500;

pub(super) fn checks(
    config: Option<&NodeConfig>,
    pins: &Pins,
    links: &[Link],
    active: Option<&Active>,
) -> Vec<Check> {
    let attached = attach::list(pins).unwrap_or_default();
    let mut names: Vec<String> = config
        .map(|node| node.interfaces.clone())
        .unwrap_or_default();
    names.extend(attached.iter().map(|at| at.interface.clone()));
    names.sort();
    names.dedup();
    if names.is_empty() {
        let found = "none is named in agent.toml, and none is attached";
        return vec![Check::skip("interfaces", "Interfaces", found)];
    }
    names
        .iter()
        .flat_map(|name| of(name, config, &attached, links, active))
        .collect()
}

fn of(
    name: &str,
    config: Option<&NodeConfig>,
    attached: &[Attached],
    links: &[Link],
    active: Option<&Active>,
) -> Vec<Check> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        return vec![Check::fail(
            format!("interface.{name}"),
            format!("{name}: state"),
            format!("there is no interface {name} here"),
            "correct interfaces in agent.toml (`ip link` lists them)",
        )];
    };
    let at = attached.iter().find(|at| at.interface == name);
    vec![
        state(link),
        program(link, at),
        mtu(link, config, active),
        offloads(link),
        rp_filter(name, Path::new("/proc/sys/net/ipv4/conf")),
    ]
}

fn state(link: &Link) -> Check {
    let name = &link.name;
    let (id, title) = (format!("interface.{name}"), format!("{name}: state"));
    match (link.up, link.carrier, link.mac) {
        (false, ..) => Check::fail(id, title, "switched off", format!("ip link set {name} up")),
        (_, false, _) => Check::fail(id, title, "no carrier", "check cable, port and peer"),
        (_, _, None) => Check::fail(id, title, "not an Ethernet interface", "choose one that is"),
        _ => Check::ok(id, title, "up, with carrier"),
    }
}

fn program(link: &Link, at: Option<&Attached>) -> Check {
    let name = &link.name;
    let (id, title) = (
        format!("interface.{name}.xdp"),
        format!("{name}: XDP program"),
    );
    let ours = at.filter(|at| at.index == link.index && at.mode.is_some());
    match (link.xdp, ours) {
        (Some(xdp), Some(at)) if xdp.mode == XdpMode::Generic => Check::warn(
            id,
            title,
            format!("ours (id {}), in generic mode: slow", at.program),
            "use a driver with native XDP; `lbguard attach` tells why it was refused",
        ),
        (Some(xdp), Some(at)) => {
            let found = format!(
                "ours (id {}, tag {}), {}",
                at.program,
                at.tag,
                xdp.mode.as_str()
            );
            Check::ok(id, title, found)
        }
        (Some(xdp), None) => Check::fail(
            id,
            title,
            format!(
                "\"{}\" (id {}) is not ours",
                attach::program_name(xdp.id),
                xdp.id
            ),
            format!("take it off (`ip link set dev {name} xdp off`), then: lbguard attach {name}"),
        ),
        (None, _) => Check::fail(
            id,
            title,
            "none: nothing that arrives here is forwarded",
            format!("lbguard attach {name}"),
        ),
    }
}

/// Encapsulation makes packets longer: what is full size from the client must still fit.
fn mtu(link: &Link, config: Option<&NodeConfig>, active: Option<&Active>) -> Check {
    let name = &link.name;
    let (id, title) = (format!("interface.{name}.mtu"), format!("{name}: MTU"));
    let overhead = match active.filter(|active| !active.backends.is_empty()) {
        Some(active) => active
            .backends
            .iter()
            .map(
                |backend| match (backend.direct, backend.address.is_ipv4()) {
                    (true, _) => 0,
                    (_, true) => 20,
                    (_, false) => 40,
                },
            )
            .max()
            .unwrap_or(0),
        None => match config {
            Some(node) if node.encap_source_v6.is_some() => 40,
            Some(node) if node.encap_source_v4.is_some() => 20,
            _ => 0,
        },
    };
    let needed = USUAL_MTU.saturating_add(overhead);
    let found = format!("{} bytes; encapsulation adds up to {overhead}", link.mtu);
    if link.mtu >= needed {
        return Check::ok(id, title, found);
    }
    Check::warn(
        id,
        title,
        format!(
            "{found}: packets over {} bytes are answered with ICMP \"too big\", and clients that \
             never see it hang",
            link.mtu.saturating_sub(overhead)
        ),
        format!("ip link set {name} mtu {needed} (and all the way to the backends)"),
    )
}

fn offloads(link: &Link) -> Check {
    let name = &link.name;
    let (id, title) = (
        format!("interface.{name}.offloads"),
        format!("{name}: offloads"),
    );
    let found = match ethtool::read(name) {
        Ok(found) => found,
        Err(error) => return Check::skip(id, title, format!("not told: {error}")),
    };
    if found.lro {
        return Check::fail(
            id,
            title,
            "LRO is on: packets are merged before XDP sees them",
            format!("ethtool -K {name} lro off"),
        );
    }
    if found.driver == "veth" && found.tx_checksum {
        return Check::warn(
            id,
            title,
            "a veth with tx-checksumming on: if its other end has it on, too, packets are \
             forwarded without a checksum and dropped by the backend",
            format!("ethtool -K PEER tx off, and ethtool -K {name} tx off"),
        );
    }
    Check::ok(id, title, format!("driver {}, LRO off", found.driver))
}

/// Strict reverse path filtering drops what reaches the host by another way than the answer would
/// take: ICMP errors to the outer sources, and all that the balancer passes to the stack.
fn rp_filter(name: &str, directory: &Path) -> Check {
    let (id, title) = (
        format!("interface.{name}.rp_filter"),
        format!("{name}: reverse path filter"),
    );
    let value = |of: &str| -> Option<u8> {
        fs::read_to_string(directory.join(of).join("rp_filter"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    // The kernel goes by the larger of the two.
    let (Some(all), Some(own)) = (value("all"), value(name)) else {
        return Check::skip(id, title, "not told in /proc/sys");
    };
    match (all, own) {
        (0, 0) => Check::ok(id, title, "off"),
        (1, 0 | 1) | (0, 1) => Check::warn(
            id,
            title,
            "strict: ICMP errors that come by another way than the answer would go are dropped, \
             and path MTU discovery with them",
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        ),
        _ => Check::ok(id, title, "loose"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::Status;
    use super::*;
    use crate::kernel::inspect::Backend;

    fn link() -> Link {
        Link {
            index: 2,
            name: "lb0".to_owned(),
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            carrier: true,
            xdp: None,
            vlan: None,
        }
    }

    fn backend(address: &str, direct: bool) -> Active {
        let address: IpAddr = address.parse().unwrap();
        let name = "web-1".to_owned();
        let backends = vec![Backend {
            name,
            address,
            direct,
            next_hop_mtu: None,
            member: 1,
            overhead: 0,
            tcp: Vec::new(),
        }];
        Active {
            backends,
            ..Active::default()
        }
    }

    #[test]
    fn the_mtu_must_bear_the_encapsulation_in_use() {
        for (address, direct, least) in [
            ("10.0.1.11", true, 1500),
            ("10.0.1.11", false, 1520),
            ("fd00::11", false, 1540),
        ] {
            let active = backend(address, direct);
            let with = |mtu| mtu_status(mtu, &active);
            assert_eq!(with(least), Status::Ok, "{address}");
            assert_eq!(with(least - 1), Status::Warn, "{address}");
        }
    }

    fn mtu_status(mtu: u32, active: &Active) -> Status {
        super::mtu(&Link { mtu, ..link() }, None, Some(active)).status
    }

    #[test]
    fn a_missing_interface_and_a_dead_one_fail() {
        let missing = of("eth9", None, &[], &[link()], None);
        assert_eq!((missing.len(), missing[0].status), (1, Status::Fail));
        let off = state(&Link {
            up: false,
            ..link()
        });
        assert_eq!(off.fix.as_deref(), Some("ip link set lb0 up"));
        assert_eq!(
            state(&Link {
                carrier: false,
                ..link()
            })
            .status,
            Status::Fail
        );
        assert_eq!(state(&link()).status, Status::Ok);
        assert_eq!(program(&link(), None).status, Status::Fail);
    }

    #[test]
    fn the_larger_rp_filter_counts() {
        let dir = tempfile::tempdir().unwrap();
        let with = |all, own| {
            for (name, value) in [("all", all), ("lb0", own)] {
                fs::create_dir_all(dir.path().join(name)).unwrap();
                fs::write(
                    dir.path().join(name).join("rp_filter"),
                    format!("{value}\n"),
                )
                .unwrap();
            }
            rp_filter("lb0", dir.path()).status
        };
        assert_eq!(with(0, 0), Status::Ok);
        assert_eq!(with(0, 1), Status::Warn);
        assert_eq!(with(1, 0), Status::Warn);
        assert_eq!(with(1, 2), Status::Ok);
        assert_eq!(with(2, 1), Status::Ok);
    }
}

//! Reads `agent.toml` into a [`NodeConfig`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::finding::{TextLog, quoted};
use super::load::{LoadError, load, parse};
use super::node::{FleetSeed, Gateway, Mac, NodeConfig, Prefix4, Prefix6, Tables, XdpMode};
use super::section::{Entry, Section, parse_toml};
use super::services::read_version;

/// The least that an `agent.toml` must say.
pub const MINIMAL_AGENT: &str = "\
version = 1
interfaces = [\"eth0\"]                # where client traffic arrives
fleet_seed = \"change me: openssl rand -hex 16\"   # the same on every balancer
encap_source_v4 = \"192.0.2.1\"        # an address of this host, for ipip
";

const MODES: &[(&str, XdpMode)] = &[
    ("auto", XdpMode::Auto),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
];

impl NodeConfig {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        load(path, MINIMAL_AGENT, read_node)
    }

    /// Checks bytes at hand; `file` is the name for messages.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, LoadError> {
        parse(bytes, file, read_node)
    }
}

fn read_node(log: &mut TextLog<'_>) -> Option<NodeConfig> {
    let document = parse_toml(log)?;
    let mut top = Section::top(&document);
    let s = &mut top;
    read_version(s, log);
    let interfaces = s.need(log, "interfaces", "interfaces = [\"eth0\"]");
    let interfaces = interfaces
        .map(|e| read_interfaces(&e, log))
        .unwrap_or_default();
    let xdp_mode = s.take(log, "xdp_mode", "xdp_mode = \"auto\"");
    let seed = s.need(log, "fleet_seed", "fleet_seed = \"<openssl rand -hex 16>\"");
    let seed = seed.and_then(|e| read_seed(&e, log));
    let source_v4 = s.take(log, "encap_source_v4", "encap_source_v4 = \"192.0.2.1\"");
    let source_v6 = s.take(log, "encap_source_v6", "encap_source_v6 = \"2001:db8::1\"");
    let tables = s
        .take(log, "tables", "[tables]")
        .and_then(|e| e.section(log));
    let gateways = s.list(log, "gateway", "[[gateway]]", "gateway");
    let mut path = |key, example| s.take(log, key, example).and_then(|e| read_path(&e, log));
    let state_dir = path("state_dir", "state_dir = \"/var/lib/lbguard\"");
    let run_dir = path("run_dir", "run_dir = \"/run/lbguard\"");
    let pin_dir = path("pin_dir", "pin_dir = \"/sys/fs/bpf/lbguard\"");
    let socket = path("socket", "socket = \"/run/lbguard/agent.sock\"");
    let metrics = s.take(
        log,
        "metrics_address",
        "metrics_address = \"127.0.0.1:9100\"",
    );
    top.finish(log);
    let gateways = read_gateways(gateways, &interfaces, log);
    Some(NodeConfig {
        interfaces,
        xdp_mode: xdp_mode
            .and_then(|e| e.word(log, MODES))
            .unwrap_or_default(),
        fleet_seed: seed?,
        encap_source_v4: source_v4.and_then(|e| read_prefix4(&e, log)),
        encap_source_v6: source_v6.and_then(|e| read_prefix6(&e, log)),
        gateways,
        tables: tables.map_or_else(Tables::default, |section| read_tables(section, log)),
        state_dir,
        run_dir,
        pin_dir,
        socket,
        metrics_address: metrics.and_then(|e| read_socket_address(&e, log)),
    })
}

fn read_interfaces(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Vec<String> {
    let mut interfaces: Vec<String> = Vec::new();
    for name in entry.strings(log) {
        if let Some(problem) = interface_problem(name) {
            entry.bad(log, &problem, "Give names as `ip link` shows them.");
        } else if interfaces.iter().any(|known| known == name) {
            entry.bad(
                log,
                &format!("lists {} twice", quoted(name)),
                "Remove one of them.",
            );
        } else {
            interfaces.push(name.to_owned());
        }
    }
    if interfaces.is_empty() {
        entry.bad(
            log,
            "names no usable interface",
            "Name where client traffic arrives.",
        );
    }
    interfaces
}

/// Linux: 1 to 15 bytes, no slash, no blank (`dev_valid_name`).
fn interface_problem(name: &str) -> Option<String> {
    let fine = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    (!fine).then(|| format!("holds {}, which is no interface name", quoted(name)))
}

fn read_seed(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<FleetSeed> {
    let text = entry.text(log)?;
    // The seed itself stays out of messages: it is a secret.
    let problem = if text.len() < 8 {
        "is shorter than 8 characters"
    } else if text.starts_with("change me") {
        "is still the placeholder, which everybody knows"
    } else {
        return Some(FleetSeed::from_text(text));
    };
    entry.bad(
        log,
        problem,
        "Use the output of `openssl rand -hex 16`, the same on every balancer.",
    );
    None
}

fn read_path(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(entry.text(log)?);
    if !path.is_absolute() {
        entry.bad(log, "is not an absolute path", "Start it with /.");
        return None;
    }
    Some(path)
}

fn read_socket_address(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<SocketAddr> {
    let text = entry.text(log)?;
    let address = text.parse().ok();
    if address.is_none() {
        let problem = format!("is not ADDRESS:PORT: {}", quoted(text));
        entry.bad(
            log,
            &problem,
            "Write it like this: 127.0.0.1:9100 or [::1]:9100",
        );
    }
    address
}

fn read_prefix4(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<Prefix4> {
    let (address, len) = read_prefix(entry, log, 32)?;
    let IpAddr::V4(address) = address else {
        entry.bad(log, "is an IPv6 address", "Move it to encap_source_v6.");
        return None;
    };
    let mask = u32::MAX
        .checked_shl(32_u32.saturating_sub(len.into()))
        .unwrap_or(0);
    let host_bits = address.to_bits() & !mask;
    let first = Ipv4Addr::from_bits(address.to_bits() & mask);
    check_prefix(entry, log, host_bits != 0, first.into(), len)?;
    Some(Prefix4 {
        address: first,
        len,
    })
}

fn read_prefix6(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<Prefix6> {
    let (address, len) = read_prefix(entry, log, 128)?;
    let IpAddr::V6(address) = address else {
        entry.bad(log, "is an IPv4 address", "Move it to encap_source_v4.");
        return None;
    };
    let mask = u128::MAX
        .checked_shl(128_u32.saturating_sub(len.into()))
        .unwrap_or(0);
    let host_bits = address.to_bits() & !mask;
    let first = Ipv6Addr::from_bits(address.to_bits() & mask);
    check_prefix(entry, log, host_bits != 0, first.into(), len)?;
    Some(Prefix6 {
        address: first,
        len,
    })
}

/// An address with an optional prefix length.
fn read_prefix(entry: &Entry<'_>, log: &mut TextLog<'_>, full: u8) -> Option<(IpAddr, u8)> {
    let text = entry.text(log)?;
    let (address, len) = text.split_once('/').unwrap_or((text, ""));
    let len = if text.contains('/') {
        len.parse().ok()
    } else {
        Some(full)
    };
    let prefix = address.parse().ok().zip(len.filter(|len| *len <= full));
    if prefix.is_none() {
        let problem = format!("is neither an address nor a prefix: {}", quoted(text));
        entry.bad(
            log,
            &problem,
            &format!("Write it like this: {}", entry.example),
        );
    }
    prefix
}

fn check_prefix(
    entry: &Entry<'_>,
    log: &mut TextLog<'_>,
    host_bits: bool,
    first: IpAddr,
    len: u8,
) -> Option<()> {
    if host_bits {
        let fix = format!("Write the prefix {first}/{len}, or the address alone.");
        entry.bad(log, "has bits beyond its prefix length", &fix);
        return None;
    }
    if first.is_unspecified() || first.is_multicast() || first.is_loopback() {
        entry.bad(
            log,
            "is no unicast source",
            "Use an address that is routed to this host.",
        );
        return None;
    }
    Some(())
}

fn read_gateways(
    sections: Vec<Section<'_>>,
    interfaces: &[String],
    log: &mut TextLog<'_>,
) -> Vec<Gateway> {
    let mut gateways: Vec<Gateway> = Vec::new();
    for mut section in sections {
        let interface = section.need(log, "interface", "interface = \"eth0\"");
        let mac = section.need(log, "mac", "mac = \"02:00:00:00:00:01\"");
        section.finish(log);
        let mac = mac.and_then(|e| read_mac(&e, log));
        let Some(entry) = interface else { continue };
        let Some(interface) = entry.text(log) else {
            continue;
        };
        if !interfaces.iter().any(|known| known == interface) {
            let problem = format!("is {}, which `interfaces` does not list", quoted(interface));
            entry.bad(
                log,
                &problem,
                "Correct the name, or add it to `interfaces`.",
            );
        } else if gateways.iter().any(|known| known.interface == interface) {
            let problem = format!("is {} a second time", quoted(interface));
            entry.bad(log, &problem, "Keep one gateway an interface.");
        } else if let Some(mac) = mac {
            gateways.push(Gateway {
                interface: interface.to_owned(),
                mac,
            });
        }
    }
    gateways
}

fn read_mac(entry: &Entry<'_>, log: &mut TextLog<'_>) -> Option<Mac> {
    let text = entry.text(log)?;
    let Ok(mac) = text.parse::<Mac>() else {
        let problem = format!("is not a MAC address: {}", quoted(text));
        entry.bad(
            log,
            &problem,
            &format!("Write it like this: {}", entry.example),
        );
        return None;
    };
    let Mac([first, ..]) = mac;
    if first & 1 == 1 || mac == Mac([0; 6]) {
        entry.bad(
            log,
            "is no unicast address",
            "Give the MAC of the router's interface.",
        );
        return None;
    }
    Some(mac)
}

fn read_tables(mut section: Section<'_>, log: &mut TextLog<'_>) -> Tables {
    let default = Tables::default();
    let mut size = |key, example, max: u32, default: u32| {
        let entry = section.take(log, key, example);
        entry
            .and_then(|e| e.integer(log, 1, max))
            .unwrap_or(default)
    };
    let tables = Tables {
        vips: size("vips", "vips = 1024", 65_535, default.vips),
        pools: size("pools", "pools = 1024", 65_535, default.pools),
        backends: size("backends", "backends = 16384", 262_142, default.backends),
        lookup_entries: size(
            "lookup_entries",
            "lookup_entries = 8388608",
            1 << 30,
            default.lookup_entries,
        ),
        flows: size("flows", "flows = 1048576", 1 << 30, default.flows),
        flood_rate: size(
            "flood_rate",
            "flood_rate = 100000",
            u32::MAX,
            default.flood_rate,
        ),
        nexthops: size("nexthops", "nexthops = 1024", 65_535, default.nexthops),
    };
    section.finish(log);
    tables
}

//! What agent.toml says otherwise than what is loaded: sizes, seed and outer sources are fixed when
//! the programs are loaded.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::address::Address;
use lb_common::flow_table::LOAD;
use lb_common::slot::{CHUNK_ENTRIES, Node};

use super::KernelError;
use super::size;
use crate::config::{NodeConfig, Prefix4, Prefix6};

/// Each key of agent.toml that differs from what is loaded, with both values; of the seed, which is
/// secret, only that it does.
///
/// # Errors
///
/// No random numbers.
pub fn differences(loaded: &Node, config: &NodeConfig) -> Result<Vec<String>, KernelError> {
    let wanted = size::node(config)?;
    let tables = &config.tables;
    let chunk = u32::try_from(CHUNK_ENTRIES).unwrap_or(32);
    let sizes = [
        ("vips", loaded.vips, wanted.vips, loaded.vips, tables.vips),
        (
            "pools",
            loaded.pools,
            wanted.pools,
            loaded.pools,
            tables.pools,
        ),
        (
            "backends",
            loaded.members,
            wanted.members,
            loaded.members.saturating_sub(1),
            tables.backends,
        ),
        (
            "lookup_entries",
            loaded.chunks,
            wanted.chunks,
            loaded.chunks.saturating_mul(chunk),
            tables.lookup_entries,
        ),
        (
            "flows",
            loaded.flow_lines,
            wanted.flow_lines,
            loaded.flow_lines.saturating_mul(LOAD),
            tables.flows,
        ),
        (
            "flood_rate",
            loaded.flood_rate,
            wanted.flood_rate,
            loaded.flood_rate,
            tables.flood_rate,
        ),
        (
            "nexthops",
            loaded.next_hops,
            wanted.next_hops,
            loaded.next_hops.saturating_sub(1),
            tables.nexthops,
        ),
    ];
    let mut found: Vec<String> = sizes
        .into_iter()
        .filter(|(_, loaded, wanted, _, _)| loaded != wanted)
        .map(|(key, _, _, is, says)| format!("tables.{key} is {is}, agent.toml says {says}"))
        .collect();
    if loaded.fleet_key != wanted.fleet_key {
        found.push("fleet_seed differs".to_owned());
    }
    if source_v4(loaded) != source_v4(&wanted) {
        let (is, says) = (shown(source_v4(loaded)), shown(config.encap_source_v4));
        found.push(format!("encap_source_v4 is {is}, agent.toml says {says}"));
    }
    if source_v6(loaded) != source_v6(&wanted) {
        let (is, says) = (shown(source_v6(loaded)), shown(config.encap_source_v6));
        found.push(format!("encap_source_v6 is {is}, agent.toml says {says}"));
    }
    Ok(found)
}

fn shown(prefix: Option<impl ToString>) -> String {
    prefix.map_or_else(|| "none".to_owned(), |prefix| prefix.to_string())
}

fn source_v4(node: &Node) -> Option<Prefix4> {
    let address = Ipv4Addr::from(node.source_v4.to_ne_bytes());
    let host = u8::try_from(u32::from_be(node.source_v4_mask).count_ones()).unwrap_or(32);
    let len = 32u8.saturating_sub(host);
    (!address.is_unspecified()).then_some(Prefix4 { address, len })
}

fn source_v6(node: &Node) -> Option<Prefix6> {
    let std::net::IpAddr::V6(address) = Address::from_words(node.source_v6).into() else {
        return None;
    };
    let host = u8::try_from(u32::from_be(node.source_v6_mask).count_ones()).unwrap_or(32);
    // A prefix shorter than /96 gets entropy in its last 32 bits, and is shown as /96.
    let len = 128u8.saturating_sub(host);
    (address != Ipv6Addr::UNSPECIFIED).then_some(Prefix6 { address, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(seed: &str, more: &str) -> NodeConfig {
        let text = format!(
            "version = 1\ninterfaces = [\"lo\"]\nfleet_seed = \"{seed}\"\n\
             encap_source_v4 = \"172.16.0.0/16\"\n{more}"
        );
        NodeConfig::parse(text.as_bytes(), "agent.toml").unwrap()
    }

    #[test]
    fn each_key_that_differs_is_named_and_the_seed_kept_secret() {
        let loaded = size::node(&agent("one and a half dozen", "")).unwrap();
        let same = differences(&loaded, &agent("one and a half dozen", "")).unwrap();
        assert_eq!(same, Vec::<String>::new());
        let other = agent(
            "two and a half dozen",
            "encap_source_v6 = \"fd00::/64\"\n[tables]\nvips = 2048\nflows = 2097152\n",
        );
        let mut other = differences(&loaded, &other).unwrap();
        other.sort();
        assert_eq!(
            other,
            [
                "encap_source_v6 is none, agent.toml says fd00::/64",
                "fleet_seed differs",
                "tables.flows is 1048576, agent.toml says 2097152",
                "tables.vips is 1024, agent.toml says 2048",
            ]
        );
    }
}

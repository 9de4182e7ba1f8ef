//! Laws of the way from text to a configuration, as property tests.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::{check, check_bytes};
use crate::config::{
    Backend, BackendState, Config, Forward, NodeConfig, OnDead, Pool, Protocol, Vip,
};

fn node() -> NodeConfig {
    let text = b"version = 1\ninterfaces = [\"eth0\"]\nfleet_seed = \"tests only\"\n\
                 encap_source_v4 = \"192.0.2.1\"";
    NodeConfig::parse(text, "agent.toml").unwrap()
}

fn backend(pool: u8, number: u8, weight: u32, drained: bool) -> Backend {
    Backend {
        name: format!("web-{pool}-{number}"),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, pool, number + 1)),
        weight,
        state: if drained {
            BackendState::Drain
        } else {
            BackendState::Active
        },
        quic_id: None,
    }
}

/// Least weight that has an entry in the smallest table, whatever the others of [`pool`] weigh.
const LEAST: u32 = 5;

prop_compose! {
    fn pool(number: u8, least: u32)(
        backends in prop::collection::vec((least..1000, any::<bool>()), 1..6),
        table_size in prop::sample::select(vec![1021_u32, 4093]),
        max_share_ppm in prop::sample::select(vec![None, Some(1_000_000)]),
    ) -> Pool {
        let mut list: Vec<Backend> = (0..)
            .zip(&backends)
            .map(|(n, (weight, drained))| backend(number, n, *weight, *drained))
            .collect();
        list[0].state = BackendState::Active;
        list[0].weight = 1000;
        Pool {
            name: format!("pool-{number}"),
            service: format!("service-{}", number % 2),
            forward: Forward::Ipip,
            table_size,
            health: None,
            identity: None,
            on_dead: OnDead::Move,
            min_backends: 1,
            max_share_ppm,
            slow_start: None,
            idle_timeout: None,
            mtu: None,
            quic_id_bytes: None,
            backends: list,
        }
    }
}

/// Sound configurations with one to four pools, each with a VIP.
fn configs() -> impl Strategy<Value = Config> {
    configs_of(LEAST)
}

/// As [`configs`], but weights may be as small as `least`.
fn configs_of(least: u32) -> impl Strategy<Value = Config> {
    (1_u8..5)
        .prop_flat_map(move |count| (0..count).map(move |n| pool(n, least)).collect::<Vec<_>>())
        .prop_flat_map(|pools| (Just(pools), any::<u16>(), any::<bool>()))
        .prop_map(|(pools, port, udp)| {
            let vips = pools.iter().zip(1_u8..).map(|(pool, n)| Vip {
                name: format!("vip-{n}"),
                service: pool.service.clone(),
                address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, n)),
                port,
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                pool: pool.name.clone(),
                flags: std::collections::BTreeSet::new(),
            });
            Config {
                vips: vips.collect(),
                pools,
            }
        })
}

/// The sections of a file in the order given by `order`, backends in turn reversed or not.
fn to_toml(config: &Config, reverse: bool, loose: bool) -> String {
    let eq = if loose { "   =\t" } else { " = " };
    let mut sections = Vec::new();
    for vip in &config.vips {
        sections.push(format!(
            "[[vip]]\npool{eq}'{}'\nname{eq}\"{}\"\nservice{eq}\"{}\"\naddress{eq}\"{}\"\n\
             port{eq}{}\nprotocol{eq}\"{}\" # comment\n",
            vip.pool, vip.name, vip.service, vip.address, vip.port, vip.protocol
        ));
    }
    for pool in &config.pools {
        let mut text = format!(
            "[[pool]]\nname{eq}\"{}\"\nservice{eq}\"{}\"\nforward{eq}\"{}\"\ntable_size{eq}{:#x}\n",
            pool.name, pool.service, pool.forward, pool.table_size
        );
        if pool.max_share_ppm.is_some() {
            text.push_str("max_share = \"100%\"\n");
        }
        let mut backends = pool.backends.clone();
        if reverse {
            backends.reverse();
        }
        for b in backends {
            let (name, address, weight, state) = (b.name, b.address, b.weight, b.state);
            let _ = write!(
                text,
                "[[pool.backend]]\nstate{eq}\"{state}\"\nname{eq}\"{name}\"\n\
                 address{eq}\"{address}\"\nweight{eq}{weight}\n"
            );
        }
        sections.push(text);
    }
    if reverse {
        sections.reverse();
    }
    format!(
        "version = 1\n{}",
        sections.join(if loose { "\n\n" } else { "" })
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let report = check_bytes(&bytes, "f", &node());
        prop_assert!(report.refused() || report.config.is_some());
    }

    #[test]
    fn toml_like_text_never_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "[[vip]]\n", "[[pool]]\n", "[[pool.backend]]\n", "[pool.health]\n", "version = 1\n",
            "name = \"a\"\n", "name = 1\n", "address = \"10.0.0.1\"\n", "port = 0\n", "[[", "]]",
            "\"", "'''", "\n", "=", "{", "}", "weight = 99999999999\n", "flags = [1]\n", "\u{1f600}",
            "health = {", "max_share = \"9.99999%\"\n", "vip = 1\n", "service = \"s\"\n",
        ]), 0..60),
    ) {
        let report = check(&words.concat(), "f", &node());
        prop_assert!(report.refused() || report.config.is_some());
    }

    #[test]
    fn an_edited_file_never_panics_and_is_explained(
        config in configs(), at in any::<prop::sample::Index>(), byte in 1_u8..128,
    ) {
        let mut bytes = to_toml(&config, false, false).into_bytes();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let report = check_bytes(&bytes, "f", &node());
        for finding in &report.findings {
            prop_assert!(!finding.message.is_empty() && !finding.fix.is_empty());
        }
        prop_assert!(report.accepted().is_some() || report.refused());
    }

    #[test]
    fn order_and_formatting_do_not_matter(
        config in configs(), reverse in any::<bool>(), loose in any::<bool>(),
    ) {
        let report = check(&to_toml(&config, reverse, loose), "f", &node());
        let read = report.accepted();
        prop_assert_eq!(read, Some(&config), "{:?}", report.findings);
        prop_assert_eq!(read.map(Config::digest), Some(config.digest()));
    }

    #[test]
    fn a_backend_without_an_entry_is_refused_and_no_other(config in configs_of(1)) {
        let report = check(&to_toml(&config, false, false), "f", &node());
        let starved = config.pools.iter().any(|pool| {
            let share = |b: &Backend| u64::from(b.weight) * u64::from(pool.table_size);
            let active = || pool.backends.iter().filter(|b| b.state == BackendState::Active);
            let sum: u64 = active().map(|b| u64::from(b.weight)).sum();
            active().any(|b| share(b) < sum)
        });
        prop_assert_eq!(report.accepted().is_none(), starved, "{:?}", report.findings);
        prop_assert_eq!(report.findings.iter().any(|f| f.rule.id == "LB033"), starved);
    }

    #[test]
    fn digests_differ_exactly_when_configurations_do(a in configs(), b in configs()) {
        prop_assert_eq!(a == b, a.digest() == b.digest());
        prop_assert_eq!(a == b, a.canonical_json() == b.canonical_json());
        let back = Config::from_canonical_json(&a.canonical_json());
        prop_assert_eq!(back.ok(), Some(a));
    }

    #[test]
    fn any_change_of_a_field_changes_the_digest(config in configs(), which in 0_usize..10) {
        let mut other = config.clone();
        let (vip, pool) = (&mut other.vips[0], &mut other.pools[0]);
        match which {
            0 => vip.port ^= 1,
            1 => vip.service.push('x'),
            2 => vip.address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
            3 => vip.pool.push('x'),
            4 => pool.backends[0].weight ^= 1,
            5 => pool.backends[0].state = BackendState::Disabled,
            6 => pool.forward = Forward::L2,
            7 => pool.min_backends += 1,
            8 => pool.mtu = Some(1400),
            _ => drop(pool.backends.pop()),
        }
        prop_assert_ne!(config.digest(), other.digest());
    }
}

use std::path::Path;
use std::time::Duration;

use super::{
    Config, Digest, FleetSeed, LoadError, MINIMAL_AGENT, Mac, NodeConfig, Policy, XdpMode,
};

const SERVICES: &str = include_str!("../../../docs/examples/services.toml");
const AGENT: &str = include_str!("../../../docs/examples/agent.toml");
const POLICY: &str = include_str!("../../../docs/examples/policy.toml");

/// `LB0xx:line` of every finding.
fn findings<T: std::fmt::Debug>(result: Result<T, LoadError>) -> Vec<String> {
    match result {
        Err(LoadError::Findings(findings, _)) => findings
            .iter()
            .map(|f| format!("{}:{}", f.rule.id, f.line))
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn the_examples_hold() {
    let node = NodeConfig::parse(AGENT.as_bytes(), "agent.toml").unwrap();
    assert_eq!(node.interfaces, ["eth0"]);
    assert_eq!(node.xdp_mode, XdpMode::Auto);
    assert_eq!(node.encap_source_v4.unwrap().to_string(), "172.16.0.0/16");
    assert_eq!(
        node.encap_source_v6.unwrap().to_string(),
        "2001:db8:ffff::1/128"
    );
    assert_eq!(node.gateways[0].mac, Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(node.tables, super::Tables::default());
    assert_eq!(
        Policy::parse(POLICY.as_bytes(), "policy.toml").unwrap(),
        Policy::default()
    );
    let report = crate::check::check(SERVICES, "services.toml", &node);
    assert_eq!(report.findings, []);
    let config = report.accepted().unwrap();
    assert_eq!((config.vips.len(), config.pools.len()), (3, 3));
}

#[test]
fn the_minimal_agent_file_holds() {
    let copied = NodeConfig::parse(MINIMAL_AGENT.as_bytes(), "agent.toml");
    assert_eq!(findings(copied), ["LB006:3"], "the seed must be changed");
    let own = MINIMAL_AGENT.replace("change me", "7a0c");
    let node = NodeConfig::parse(own.as_bytes(), "agent.toml").unwrap();
    assert_eq!(node.tables.lookup_entries, 8_388_608);
}

#[test]
fn missing_files() {
    let nowhere = Path::new("/nonexistent/lbguard.toml");
    assert_eq!(Policy::load(nowhere).unwrap(), Policy::default());
    let message = NodeConfig::load(nowhere).unwrap_err().to_string();
    assert!(
        message.contains("/nonexistent/lbguard.toml: no such file"),
        "{message}"
    );
    assert!(message.contains("interfaces = [\"eth0\"]"), "{message}");
}

#[test]
fn agent_edits() {
    const BASE: &str = "version = 1\ninterfaces = [\"eth0\"]\nfleet_seed = \"12345678\"\n";
    let cases: &[(&str, &str, &[&str])] = &[
        ("[\"eth0\"]", "[]", &["LB006:2"]),
        ("[\"eth0\"]", "\"eth0\"", &["LB005:2", "LB006:2"]),
        ("[\"eth0\"]", "[\"eth0\", \"eth0\"]", &["LB006:2"]),
        (
            "[\"eth0\"]",
            "[\"much-too-long-name\"]",
            &["LB006:2", "LB006:2"],
        ),
        ("12345678", "1234567", &["LB006:3"]),
        ("fleet_seed", "fleet_sed", &["LB004:1", "LB003:3"]),
        ("version = 1", "version = 2", &["LB007:1"]),
        (
            "version = 1",
            "version = 1\nxdp_mode = \"fast\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v4 = \"10.0.0.1/8\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v4 = \"10.0.0.0/33\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v4 = \"10.0.0.0/\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v4 = \"2001:db8::1\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v6 = \"10.0.0.1\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nencap_source_v6 = \"::/0\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nstate_dir = \"var\"",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\nmetrics_address = \"localhost:1\"",
            &["LB006:2"],
        ),
        ("version = 1", "version = 1\ntables.vips = 0", &["LB006:2"]),
        ("version = 1", "version = 1\ntables.vip = 1", &["LB003:2"]),
        (
            "version = 1",
            "version = 1\ngateway = [{ interface = \"eth1\", mac = \"02:00:00:00:00:01\" }]",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\ngateway = [{ interface = \"eth0\", mac = \"01:00:00:00:00:01\" }]",
            &["LB006:2"],
        ),
        (
            "version = 1",
            "version = 1\ngateway = [{ interface = \"eth0\", mac = \"+2:00:00:00:00:01\" }]",
            &["LB006:2"],
        ),
    ];
    assert!(NodeConfig::parse(BASE.as_bytes(), "f").is_ok());
    for (from, to, expected) in cases {
        let text = BASE.replacen(from, to, 1);
        assert_eq!(
            findings(NodeConfig::parse(text.as_bytes(), "f")),
            *expected,
            "{to}"
        );
    }
    assert_eq!(findings(NodeConfig::parse(b"", "f")), ["LB001:0"]);
}

#[test]
fn policy_edits() {
    let cases: &[(&str, &[&str])] = &[
        ("lease = \"0s\"", &["LB006:3"]),
        ("lease = \"3\"", &["LB006:3"]),
        ("lease = 3", &["LB005:3"]),
        ("lease = \"1500us\"", &["LB006:3"]),
        ("confirm_within = \"2h\"", &["LB006:3"]),
        (
            "confirm_within_max = \"60s\"\nconfirm_within = \"120s\"",
            &["LB006:4"],
        ),
        ("r1_moved = 101", &["LB006:3"]),
        ("r1_moved = 50", &["LB006:2"]),
        ("velocity = 1", &["LB003:3"]),
    ];
    for (line, expected) in cases {
        let text = format!("version = 1\n[limits]\n{line}\n");
        assert_eq!(
            findings(Policy::parse(text.as_bytes(), "f")),
            *expected,
            "{line}"
        );
    }
    for (line, expected) in [
        ("watch = 3", &["LB006:2"][..]),
        ("watch = 65536", &["LB006:3"]),
        ("watch = -1", &["LB006:3"]),
        ("follow = 9", &["LB006:3"]),
        ("follow = 2501", &["LB006:3"]),
    ] {
        let text = format!("version = 1\n[evidence]\n{line}\n");
        let found = findings(Policy::parse(text.as_bytes(), "f"));
        assert_eq!(found, expected, "{line}");
    }
    for (watch, text) in [(0, "watch = 0"), (1, "watch = 1"), (16, "enabled = true")] {
        let text = format!("version = 1\n[evidence]\n{text}\n");
        let policy = Policy::parse(text.as_bytes(), "f").unwrap();
        assert_eq!(policy.evidence.watch, watch);
    }
    let text = b"version = 1\n[evidence]\nfollow = 100\n";
    let policy = Policy::parse(text, "f").unwrap();
    assert_eq!(policy.evidence.follow, 100);
    let text = b"version = 1\n[limits]\nconfirm_within_max = \"60s\"\n";
    assert_eq!(
        Policy::parse(text, "f").unwrap().confirm_within,
        Duration::from_mins(1)
    );
}

/// The canonical form is what digests are taken of: it never changes for the same file.
#[test]
fn the_canonical_form_is_fixed() {
    let node = NodeConfig::parse(AGENT.as_bytes(), "agent.toml").unwrap();
    let text = "version = 1\nvip = [{ name = \"v\", service = \"s\", address = \"2001:DB8:0::1\", \
                port = 0, protocol = \"udp\", pool = \"p\" }]\n[[pool]]\nname = \"p\"\nservice = \
                \"s\"\nforward = \"ipip\"\nhealth = { type = \"http\", port = 80 }\n[[pool.backend]]\n\
                name = \"b\"\naddress = \"2001:db8::2\"\n";
    let config = crate::check::check(text, "f", &node).config.unwrap();
    assert_eq!(
        config.canonical_json(),
        "{\"format\":1,\"vips\":[{\"name\":\"v\",\"service\":\"s\",\"address\":\"2001:db8::1\",\
         \"port\":0,\"protocol\":\"udp\",\"pool\":\"p\"}],\"pools\":[{\"name\":\"p\",\"service\":\"s\",\
         \"forward\":\"ipip\",\"table_size\":65537,\"health\":{\"type\":\"http\",\"port\":80,\
         \"path\":\"/\",\"interval_ms\":1000,\"timeout_ms\":500,\"rise\":2,\"fall\":3},\
         \"on_dead\":\"move\",\"min_backends\":1,\"backends\":[{\"name\":\"b\",\
         \"address\":\"2001:db8::2\",\"weight\":100,\"state\":\"active\"}]}]}"
    );
    let newer = config
        .canonical_json()
        .replace("\"format\":1", "\"format\":2");
    assert!(
        Config::from_canonical_json(&newer)
            .unwrap_err()
            .to_string()
            .contains("newer")
    );
}

#[test]
fn digests_as_text() {
    let digest = Config::default().digest();
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!(
        digest,
        Digest::of(b"{\"format\":1,\"vips\":[],\"pools\":[]}")
    );
    assert_eq!(digest.short().len(), 12);
    for text in ["", "12", &"g".repeat(64), &"é".repeat(32)] {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
}

#[test]
fn seeds_are_fixed_and_secret() {
    assert_eq!(FleetSeed::from_text("fleet").get(), 986_080_926_314_795_280);
    assert_ne!(
        FleetSeed::from_text("fleet"),
        FleetSeed::from_text("fleet2")
    );
    assert_eq!(
        format!("{:?}", FleetSeed::from_text("fleet")),
        "FleetSeed(secret)"
    );
}

#[test]
fn a_lookup_table_of_a_pool() {
    let node = NodeConfig::parse(AGENT.as_bytes(), "agent.toml").unwrap();
    let report = crate::check::check(SERVICES, "services.toml", &node);
    let config = report.accepted().unwrap();
    let pool = config.pool("shop-web").unwrap();
    let number = |b: &super::Backend| if b.name == "web-1" { 7 } else { 9 };
    let table = crate::lookup::lookup_table(pool, node.fleet_seed, number).unwrap();
    let sevens = table.iter().filter(|n| **n == 7).count();
    let nines = table.iter().filter(|n| **n == 9).count();
    assert_eq!(
        (table.len(), sevens + nines),
        (65537, 65537),
        "web-3 is drained"
    );
    assert!(sevens.abs_diff(nines) == 1, "{sevens} {nines}");
}

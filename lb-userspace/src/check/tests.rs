//! Cases as data: a sound file, one edit, the finding that must come of it.

use super::check;
use std::fmt::Write as _;

use crate::config::{Config, NodeConfig};

pub const SOUND: &str = "version = 1

[[vip]]
name = \"shop-v4\"
service = \"shop\"
address = \"203.0.113.10\"
port = 80
protocol = \"tcp\"
pool = \"shop-web\"

[[pool]]
name = \"shop-web\"
service = \"shop\"
forward = \"ipip\"
table_size = 65537

[[pool.backend]]
name = \"web-1\"
address = \"10.0.1.11\"
weight = 100

[[pool.backend]]
name = \"web-2\"
address = \"10.0.1.12\"
weight = 100
";

pub const BLOG: &str = "
[[pool]]
name = \"blog-web\"
service = \"blog\"
forward = \"l2\"
backend = [{ name = \"b1\", address = \"10.0.2.11\" }, { name = \"b2\", address = \"10.0.2.12\" }]
";

pub fn node() -> NodeConfig {
    let text = "version = 1\ninterfaces = [\"eth0\"]\nfleet_seed = \"tests only\"\n\
                encap_source_v4 = \"192.0.2.1\"\n[tables]\nvips = 3\npools = 3\nbackends = 6\n\
                lookup_entries = 1000000";
    NodeConfig::parse(text.as_bytes(), "agent.toml").unwrap()
}

pub fn sound() -> Config {
    check(SOUND, "services.toml", &node())
        .accepted()
        .cloned()
        .unwrap()
}

/// `LB0xx:line` of every finding, errors only.
fn errors(text: &str) -> Vec<String> {
    let report = check(text, "f", &node());
    let errors = report.findings.iter().filter(|f| f.is_error());
    errors
        .map(|f| format!("{}:{}", f.rule.id, f.line))
        .collect()
}

#[test]
fn a_sound_file_has_no_findings() {
    let report = check(SOUND, "services.toml", &node());
    assert_eq!(report.findings, []);
    let config = report.accepted().unwrap();
    assert_eq!(config.vips.len(), 1);
    assert_eq!(config.pools[0].backends[1].name, "web-2");
}

/// (what is replaced, by what, the errors that must come of it)
type Edit = (&'static str, &'static str, &'static [&'static str]);

const EDITS: &[Edit] = &[
    // Form.
    (
        "port = 80\n",
        "port = 80 protocol = \"tcp\"\n",
        &["LB002:7"],
    ),
    ("port = 80\n", "prot = 80\n", &["LB004:3", "LB003:7"]),
    ("weight = 100\n\n", "wieght = 100\n\n", &["LB003:20"]),
    ("port = 80\n", "", &["LB004:3"]),
    ("port = 80\n", "port = \"80\"\n", &["LB005:7"]),
    ("port = 80\n", "port = 65536\n", &["LB006:7"]),
    ("port = 80\n", "port = -1\n", &["LB006:7"]),
    ("port = 80\n", "port = 99999999999999999999\n", &["LB006:7"]),
    ("\"tcp\"", "\"tpc\"", &["LB006:8"]),
    ("\"203.0.113.10\"", "\"shop.example\"", &["LB006:6"]),
    ("\"203.0.113.10\"", "\"203.0.113.10:80\"", &["LB006:6"]),
    ("\"203.0.113.10\"", "\"fe80::1%eth0\"", &["LB006:6"]),
    ("version = 1\n", "", &["LB004:1"]),
    ("version = 1\n", "version = 2\n", &["LB007:1"]),
    ("version = 1\n", "version = \"1\"\n", &["LB005:1"]),
    ("\"web-1\"", "\"web 1\"", &["LB008:18"]),
    ("\"web-1\"", "\"\"", &["LB008:18"]),
    ("weight = 100\n\n", "weight = -5\n\n", &["LB006:20"]),
    ("weight = 100\n\n", "weight = 1.5\n\n", &["LB005:20"]),
    ("weight = 100\n\n", "state = \"of\"\n\n", &["LB006:20"]),
    ("table_size = 65537\n", "max_share = 1\n", &["LB005:15"]),
    (
        "table_size = 65537\n",
        "max_share = \"0%\"\n",
        &["LB006:15"],
    ),
    ("table_size = 65537\n", "min_backends = 0\n", &["LB006:15"]),
    (
        "table_size = 65537\n",
        "health = { type = \"http\" }\n",
        &["LB004:15"],
    ),
    (
        "table_size = 65537\n",
        "health = { type = \"tcp\", port = 80, path = \"/\" }\n",
        &["LB006:15"],
    ),
    ("[[pool]]", "[pool]", &["LB005:11"]),
    // Names and references.
    ("\"web-2\"", "\"web-1\"", &["LB010:23"]),
    ("pool = \"shop-web\"", "pool = \"shop-wbe\"", &["LB012:9"]),
    (
        "service = \"shop\"\nforward",
        "service = \"blog\"\nforward",
        &["LB013:9"],
    ),
    // Addresses.
    ("203.0.113.10", "0.0.0.0", &["LB020:6"]),
    ("203.0.113.10", "224.0.0.1", &["LB020:6"]),
    ("203.0.113.10", "127.0.0.1", &["LB020:6"]),
    ("203.0.113.10", "255.255.255.255", &["LB020:6"]),
    (
        "203.0.113.10",
        "::ffff:203.0.113.10",
        &["LB020:6", "LB024:9"],
    ),
    ("203.0.113.10", "ff02::1", &["LB020:6", "LB024:9"]),
    ("10.0.1.11", "0.0.0.0", &["LB021:19"]),
    ("10.0.1.11", "203.0.113.10", &["LB022:19"]),
    ("10.0.1.12", "10.0.1.11", &["LB023:24"]),
    ("203.0.113.10", "2001:db8::10", &["LB024:9"]),
    // Pools.
    ("100\n\n", "0\nstate = \"active\"\n\n", &[]),
    ("table_size = 65537", "min_backends = 3", &["LB031:15"]),
    ("table_size = 65537", "table_size = 65536", &["LB032:15"]),
    ("table_size = 65537", "table_size = 241", &["LB032:15"]),
    (
        "table_size = 65537",
        "table_size = 1000033",
        &["LB036:0", "LB032:15"],
    ),
    ("weight = 100\n\n", "weight = 10000000\n\n", &["LB033:25"]),
    (
        "table_size = 65537",
        "max_share = \"49.9%\"",
        &["LB034:20", "LB034:25"],
    ),
    ("table_size = 65537", "max_share = \"50%\"", &[]),
    ("10.0.1.11", "2001:db8::11", &["LB035:14"]),
    (
        "table_size = 65537",
        "health = { type = \"tcp\", port = 80, interval = \"1s\", timeout = \"1s\" }",
        &["LB038:15"],
    ),
    ("table_size = 65537", "table_size = 1000003", &["LB036:0"]),
    // What this version cannot do.
    ("\"ipip\"", "\"gue\"", &[]),
    (
        "port = 80\n",
        "port = 80\nflags = [\"quic\", \"stateless\"]\n",
        &["LB065:8", "LB066:19", "LB066:24"],
    ),
    ("weight = 100\n\n", "quic_id = 7\n\n", &[]),
    // What flags and keys make of flows.
    (
        "port = 80\n",
        "port = 0\nflags = [\"hash-dport\", \"client-affinity\"]\n",
        &["LB060:8"],
    ),
    (
        "port = 80\n",
        "port = 80\nflags = [\"hash-dport\"]\n",
        &["LB061:8"],
    ),
    (
        "port = 80\n",
        "port = 0\nflags = [\"stateless\", \"hash-dport\"]\n",
        &[],
    ),
    ("table_size = 65537", "on_dead = \"reset\"", &[]),
    ("table_size = 65537", "idle_timeout = \"15m\"", &[]),
    (
        "table_size = 65537",
        "idle_timeout = \"16m\"",
        &["LB062:15"],
    ),
    ("table_size = 65537", "mtu = 596", &[]),
    ("table_size = 65537", "mtu = 595", &["LB063:15"]),
    (
        "table_size = 65537",
        "health = { type = \"tcp\", port = 80, host = \"shop.example\" }",
        &["LB006:15"],
    ),
    (
        "table_size = 65537",
        "health = { type = \"http\", port = 80, name = \"shop.example.\" }",
        &["LB006:15"],
    ),
    (
        "table_size = 65537",
        "health = { type = \"dns\", port = 53, full_size = true }",
        &["LB006:15"],
    ),
];

#[test]
fn one_edit_gives_its_findings() {
    let mut wrong = Vec::new();
    for (from, to, expected) in EDITS {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from} is not in the sound file");
        let found = errors(&text);
        if found != *expected {
            wrong.push(format!("{from} -> {to}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_second_section_that_clashes() {
    let vip = "[[vip]]\nname = \"shop-2\"\nservice = \"shop\"\naddress = \"203.0.113.10\"\n\
               port = 80\nprotocol = \"tcp\"\npool = \"shop-web\"\n";
    assert_eq!(errors(&format!("{SOUND}\n{vip}")), ["LB011:30"]);
    assert_eq!(
        errors(&format!("{SOUND}\n{}", vip.replace("80", "81"))),
        [""; 0]
    );
    let same_name = vip.replace("80", "81").replace("shop-2", "shop-v4");
    assert_eq!(errors(&format!("{SOUND}\n{same_name}")), ["LB010:28"]);
    let one_line = SOUND.replace("[[vip]]", "[[vip_]]").replace("version = 1", "version = 1\n\
        vip = [{ name = \"a\", service = \"shop\", address = \"203.0.113.9\", port = 1, protocol = \"tcp\", pool = \"shop-web\" }, \
        { name = \"a\", service = \"shop\", address = \"203.0.113.9\", port = 2, protocol = \"tcp\", pool = \"shop-web\" }]");
    assert!(
        errors(&one_line).contains(&"LB010:2".to_owned()),
        "{:?}",
        errors(&one_line)
    );
    assert_eq!(
        errors(&format!(
            "{SOUND}{}",
            &SOUND[SOUND.find("[[pool]]").unwrap()..]
        )),
        ["LB010:27"]
    );
}

/// DESIGN section 7 shows the format: what it shows must be accepted.
#[test]
fn the_design_example_is_accepted() {
    let design = include_str!("../../../docs/DESIGN.md");
    let from = design.find("```toml\n").unwrap() + "```toml\n".len();
    let to = from + design[from..].find("```").unwrap();
    let report = check(&design[from..to], "DESIGN.md", &node());
    let ids: Vec<_> = report.findings.iter().map(|f| f.rule.id).collect();
    assert_eq!(ids, ["LB039"]);
    assert_eq!(report.accepted().unwrap().pools[0].table_size, 65537);
}

#[test]
fn every_finding_is_reported_at_once() {
    let text = SOUND
        .replace("port = 80", "port = 70000")
        .replace("10.0.1.11", "10.0.1.999")
        .replace("65537", "65536")
        .replace("name = \"web-2\"", "nmae = \"web-2\"");
    assert_eq!(
        errors(&text),
        ["LB006:7", "LB006:19", "LB004:22", "LB003:23"]
    );
}

#[test]
fn the_service_rule_is_refused_and_can_be_forced() {
    let text = format!("{SOUND}{BLOG}").replace("pool = \"shop-web\"", "pool = \"blog-web\"");
    let report = check(&text, "services.toml", &node());
    assert!(report.refused() && report.accepted().is_none());
    let finding = report.findings.iter().find(|f| f.is_error()).unwrap();
    assert_eq!(
        (finding.rule.id, finding.line, finding.is_final()),
        ("LB013", 9, false)
    );
    assert_eq!(report.config.unwrap().vips[0].pool, "blog-web");
}

#[test]
fn a_final_error_gives_no_configuration() {
    let report = check(&SOUND.replace("65537", "65536"), "f", &node());
    assert!(report.findings[0].is_final());
    assert_eq!(report.config, None);
}

#[test]
fn more_than_the_kernel_tables_hold() {
    let mut text = SOUND.to_owned();
    for port in 1..=3 {
        let _ = write!(
            text,
            "[[vip]]\nname = \"v{port}\"\nservice = \"shop\"\naddress = \"203.0.113.1\"\n\
             port = {port}\nprotocol = \"tcp\"\npool = \"shop-web\"\n"
        );
    }
    assert_eq!(errors(&text), ["LB036:0"]);
}

#[test]
fn warnings_do_not_refuse() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("", BLOG, &["LB014:27"]),
        ("weight = 100\n\n", "weight = 0\n\n", &["LB039:11"]),
        ("table_size = 65537", "table_size = 400009", &["LB037:0"]),
        (
            "table_size = 65537",
            "health = { type = \"tcp\", port = 80 }",
            &[],
        ),
        ("table_size = 65537", "health = { type = \"none\" }", &[]),
        ("table_size = 65537", "slow_start = \"30s\"", &["LB056:15"]),
        (
            "table_size = 65537",
            "identity = { header = \"X-Service\", value = \"shop\" }",
            &["LB053:15"],
        ),
        (
            "",
            "[[pool]]\nname = \"p2\"\nservice = \"shop\"\nforward = \"l2\"\nbackend = [{ name = \
         \"web-1\", address = \"10.0.9.1\" }, { name = \"x\", address = \"10.0.9.2\" }]",
            &["LB014:26", "LB015:30"],
        ),
        (
            "",
            "[[pool]]\nname = \"p2\"\nservice = \"blog\"\nforward = \"l2\"\nbackend = [{ name = \
         \"web-1\", address = \"10.0.1.11\" }, { name = \"x\", address = \"10.0.1.12\" }]",
            &["LB014:26", "LB025:30"],
        ),
    ];
    for (from, to, expected) in cases {
        let text = if from.is_empty() {
            format!("{SOUND}{to}")
        } else {
            SOUND.replacen(from, to, 1)
        };
        let report = check(&text, "f", &node());
        let found: Vec<_> = report
            .findings
            .iter()
            .map(|f| format!("{}:{}", f.rule.id, f.line))
            .collect();
        assert_eq!(found, *expected, "{to}");
        assert!(report.accepted().is_some());
    }
    let empty = check("version = 1", "f", &node());
    assert_eq!(empty.findings[0].rule.id, "LB016");
    assert!(empty.accepted().is_some());
}

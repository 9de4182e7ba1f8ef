//! Rules and findings as people and programs see them.

use super::tests::{BLOG, SOUND, node};
use super::{all_rules, check, render_findings, render_rule, rules_page};
use crate::config::Severity;

#[test]
fn rules_are_complete_and_ids_unique() {
    let mut ids: Vec<_> = all_rules().map(|rule| rule.id).collect();
    let count = ids.len();
    assert!(ids.is_sorted(), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), count);
    for rule in all_rules() {
        assert!(rule.id.len() == 5 && rule.id.starts_with("LB"));
        for text in [rule.title, rule.why, rule.example, rule.fix] {
            assert!(!text.is_empty(), "{}", rule.id);
        }
        assert!(
            rule.severity == Severity::Error || rule.forceable,
            "{}",
            rule.id
        );
        assert!(render_rule(rule).contains(rule.id));
    }
}

/// To write it anew: `LBGUARD_WRITE_RULES=1 cargo test -p lb-userspace the_rules_page`.
#[test]
fn the_rules_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/RULES.md");
    let page = rules_page();
    if std::env::var_os("LBGUARD_WRITE_RULES").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == page,
        "docs/RULES.md is out of date"
    );
}

#[test]
fn text_as_the_operator_sees_it() {
    let text = format!("{SOUND}{BLOG}")
        .replace("pool = \"shop-web\"", "pool = \"blog-web\"")
        .replace("65537", "65536");
    let report = check(&text, "services.toml", &node());
    let shown = render_findings(&report.findings, 3);
    assert_eq!(shown, GOLDEN);
    assert!(shown.lines().all(|line| line.chars().count() <= 80));
}

const GOLDEN: &str = "\
services.toml:9: error[LB013] VIP `shop-v4` is of service `shop`, but its pool
    `blog-web` is of service `blog` (line 29)
  why: Clients would reach another service's servers, which answer: health
       checks stay green while every user is out.
  fix: Use a pool of service `shop`: `shop-web`.
services.toml:11: warning[LB014] pool `shop-web` is used by no VIP
  why: A pool that nothing uses is often what is left of a mistake.
  fix: Point a VIP at it, or remove it.
services.toml:15: error[LB032] pool `shop-web` has table_size 65536, which is
    not a prime
  why: Only with a prime does each backend's walk reach every entry.
  fix: Nearest that works: 65521 or 65537. 65537 suits most pools.
... and 3 more; correct these first
";

#[test]
fn syntax_errors_show_the_line() {
    let shown = |text: &str| {
        let report = check(text, "services.toml", &node());
        render_findings(&report.findings[..1], 0)
    };
    assert_eq!(
        shown(&SOUND.replace("port = 80", "port 80")),
        "services.toml:7: error[LB002] not TOML: `port 80` (key with no value, expected\n    \
         `=`)\n  why: Text that can be read in two ways would be applied in the wrong one.\n  \
         fix: Correct the line; it has the form: key = value\n"
    );
    let cut = shown(&SOUND[..SOUND.find(".1.12").unwrap()]);
    assert!(
        cut.contains("services.toml:24: error[LB002] the file ends in the middle"),
        "{cut}"
    );
}

#[test]
fn json_has_all_that_the_text_has() {
    let report = check(&SOUND.replace("65537", "65536"), "services.toml", &node());
    let json = serde_json::to_value(&report).unwrap();
    let finding = &json["findings"][0];
    assert_eq!(finding["file"], "services.toml");
    assert_eq!(finding["line"], 15);
    assert_eq!(finding["rule"], "LB032");
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["forceable"], false);
    assert_eq!(json["errors"], 1);
    assert_eq!(json["omitted"], 0);
}

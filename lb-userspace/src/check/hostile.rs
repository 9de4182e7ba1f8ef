//! Files that are broken or hostile, and steps that are suspicious.

use super::tests::{SOUND, node, sound};
use super::{check, check_against, check_bytes, render_findings};
use crate::config::{Config, MAX_BYTES};

#[test]
fn noise_is_refused_quickly_and_briefly() {
    let noise: Vec<u8> = (0..MAX_BYTES as u64)
        .map(|n| u8::try_from((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) & 0xff).unwrap())
        .collect();
    let printable: Vec<u8> = noise.iter().map(|b| b' ' + b % 95).collect();
    let lines: Vec<u8> = noise
        .iter()
        .map(|b| if b % 8 == 0 { b'\n' } else { b'a' + b % 26 })
        .collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "LB001"),
        (b" \n\t\n".to_vec(), "LB001"),
        (b"version = 1\n\0\0".to_vec(), "LB001"),
        (b"\xff\xfe\x00v".to_vec(), "LB001"),
        (b"version = 1\n# caf\xe9\n".to_vec(), "LB001"),
        (vec![b'a'; MAX_BYTES + 1], "LB001"),
        (noise, "LB001"),
        (printable, "LB002"),
        (lines, "LB002"),
        (vec![b'['; MAX_BYTES], "LB002"),
        (
            b"a = ".iter().copied().chain(vec![b'['; 1 << 20]).collect(),
            "LB002",
        ),
        (
            b"a = "
                .iter()
                .copied()
                .chain(b"{b=".repeat(1 << 18))
                .collect(),
            "LB002",
        ),
        (b"[[vip]]\n".repeat(1 << 17), "LB004"),
        (SOUND.as_bytes()[..SOUND.len() - 60].to_vec(), "LB002"),
    ];
    for (number, (bytes, rule)) in cases.iter().enumerate() {
        let start = std::time::Instant::now();
        let report = check_bytes(bytes, "f", &node());
        assert!(report.refused() && report.config.is_none(), "case {number}");
        assert_eq!(report.findings[0].rule.id, *rule, "case {number}");
        assert!(report.findings.len() <= crate::config::MAX_FINDINGS);
        assert!(
            start.elapsed().as_secs() < 20,
            "case {number}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_or_loses_whole_lines_only() {
    for end in 0..SOUND.len() {
        let report = check(&SOUND[..end], "f", &node());
        // What remains acceptable: the last section's optional line, or nothing but a version.
        let optional = end > SOUND.rfind("\"10.0.1.12\"").unwrap();
        let nothing = end <= SOUND.find("[[vip]]").unwrap();
        let one_pool_less = end <= SOUND.rfind("[[pool.backend]]").unwrap()
            && end >= SOUND.find("10.0.1.11\"").unwrap();
        if !optional && !nothing && !one_pool_less {
            assert!(report.refused(), "cut at {end}: {}", &SOUND[..end]);
        }
    }
}

#[test]
fn messages_cannot_drive_a_terminal() {
    let text = SOUND.replace("\"tcp\"", "\"\\u001b[2Jtcp\"");
    let shown = render_findings(&check(&text, "a\u{1b}b", &node()).findings, 0);
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(shown.contains("LB006"), "{shown}");
}

#[test]
fn steps_from_the_committed_configuration() {
    let ids = |old: &Config, new: &Config| {
        check_against(old, new, "f")
            .iter()
            .map(|f| f.rule.id)
            .collect::<Vec<_>>()
    };
    let old = sound();
    assert_eq!(ids(&old, &old), [""; 0]);
    assert_eq!(ids(&old, &Config::default()), ["LB040"]);
    assert_eq!(ids(&Config::default(), &old), [""; 0]);
    assert_eq!(ids(&Config::default(), &Config::default()), [""; 0]);

    let mut halved = old.clone();
    halved.pools[0].backends[0].weight = 0;
    assert_eq!(ids(&old, &halved), ["LB042"]);
    let mut doubled = old.clone();
    for n in 3..=4 {
        let mut backend = old.pools[0].backends[0].clone();
        backend.name = format!("web-{n}");
        doubled.pools[0].backends.push(backend);
    }
    assert_eq!(ids(&old, &doubled), ["LB043"]);

    let mut relabelled = old.clone();
    relabelled.vips[0].service = "blog".to_owned();
    relabelled.pools[0].service = "blog".to_owned();
    assert_eq!(ids(&old, &relabelled), ["LB044", "LB044"]);

    let mut many = old.clone();
    for n in 0..4 {
        let mut vip = old.vips[0].clone();
        vip.name = format!("v{n}");
        vip.port = 1000 + n;
        many.vips.push(vip);
    }
    assert_eq!(ids(&many, &old), ["LB041"]);
}

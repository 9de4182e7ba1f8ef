//! Both arms of a trial side by side, as `apply` and `show` tell it.

use std::f64::consts::LN_10;

use crate::agent::wire::{EvidenceLine, PoolLine, VipLine};

/// Widest name of a VIP in the table.
const NAME: usize = 20;
/// VIPs shown on a terminal at once.
const ROWS: usize = 8;

/// The table, a line each, none wider than 80 columns.
pub fn table(line: &EvidenceLine) -> Vec<String> {
    let mut lines = vec![
        format!(
            "  step {} of {}: {}, {} left",
            line.step,
            line.steps,
            new_arm(line),
            left(line.left_ms)
        ),
        format!(
            "  {:<NAME$}  {:>15}  {:>15}  {}",
            "VIP", "new arm", "control", "against it"
        ),
    ];
    lines.extend(line.vips.iter().take(ROWS).map(row));
    let hidden = line
        .vips
        .len()
        .saturating_sub(ROWS)
        .saturating_add(line.more_vips);
    if hidden > 0 {
        lines.push(format!("  and {hidden} more VIPs"));
    }
    lines.extend(
        line.pools
            .iter()
            .filter(|pool| !pool.proven)
            .take(ROWS)
            .map(proof),
    );
    if line.verdict != "hold" {
        lines.push(cut(&format!("  {}: {}", line.verdict, line.why), 80));
    }
    lines
}

/// The same in a sentence.
pub fn sentence(line: &EvidenceLine) -> String {
    let arms = line.vips.first().map_or_else(
        || "the change moves no flow".to_owned(),
        |vip| {
            format!(
                "{}: {} of {} new flows completed, {} of {} of control",
                vip.name,
                vip.new_completed,
                vip.new_flows,
                vip.control_completed,
                vip.control_flows
            )
        },
    );
    format!("{}; {arms}; {}", new_arm(line), line.why)
}

/// What the new arm gets. In the first step nobody enters it who is not followed.
fn new_arm(line: &EvidenceLine) -> String {
    let share = share(line.share_ppm);
    match line.one_followed_in {
        None => format!("{share} of new flows"),
        Some(flows) if line.step < 2 => format!("{share} of 1 new flow in {flows}"),
        Some(flows) => format!("{share} of new flows (1 in {flows} followed)"),
    }
}

fn row(vip: &VipLine) -> String {
    let arm = |completed: u64, flows: u64| format!("{completed}/{flows}");
    format!(
        "  {:<NAME$}  {:>15}  {:>15}  {}",
        cut(&vip.name, NAME),
        arm(vip.new_completed, vip.new_flows),
        arm(vip.control_completed, vip.control_flows),
        against(vip)
    )
}

/// The way to a proof that it is bad.
fn against(vip: &VipLine) -> String {
    if vip.probe_verified {
        return "no traffic can tell".to_owned();
    }
    match &vip.signal {
        Some(signal) if vip.ln_e > 0.0 => format!(
            "{signal}: 10^{:.1} of 10^{:.1}",
            vip.ln_e / LN_10,
            vip.ln_needed / LN_10
        ),
        _ => "nothing".to_owned(),
    }
}

/// The way to a proof that it is good.
fn proof(pool: &PoolLine) -> String {
    let needed = pool
        .needed
        .map_or_else(|| "ever more".to_owned(), |needed| needed.to_string());
    cut(
        &format!(
            "  {} {}: {} flows seen, {needed} prove it",
            pool.name, pool.family, pool.flows
        ),
        80,
    )
}

fn share(ppm: u32) -> String {
    format!("{} %", ppm / 10_000)
}

fn left(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('\u{2026}');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> EvidenceLine {
        EvidenceLine {
            verdict: "hold".to_owned(),
            why: "shop-web ipv4: 12 of 149 flows".to_owned(),
            left_ms: 594_000,
            step: 1,
            steps: 4,
            share_ppm: 100_000,
            vips: vec![VipLine {
                name: "a-name-that-is-much-longer-than-its-column".to_owned(),
                new_flows: 12,
                new_completed: 11,
                control_flows: 108,
                control_completed: 108,
                signal: Some("S1".to_owned()),
                ln_e: LN_10,
                ln_needed: 9.68,
                ..VipLine::default()
            }],
            pools: vec![PoolLine {
                name: "shop-web".to_owned(),
                family: "ipv4".to_owned(),
                flows: 12,
                needed: Some(149),
                proven: false,
            }],
            ..EvidenceLine::default()
        }
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let lines = table(&line());
        assert_eq!(lines[0], "  step 1 of 4: 10 % of new flows, 9 min left");
        assert_eq!(
            lines[2],
            "  a-name-that-is-much\u{2026}            11/12          108/108  S1: 10^1.0 of 10^4.2"
        );
        assert_eq!(lines[3], "  shop-web ipv4: 12 flows seen, 149 prove it");
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
    }

    #[test]
    fn what_is_not_followed_is_told() {
        let mut line = line();
        line.one_followed_in = Some(33);
        let told = table(&line).remove(0);
        assert_eq!(told, "  step 1 of 4: 10 % of 1 new flow in 33, 9 min left");
        line.step = 2;
        let told = table(&line).remove(0);
        assert_eq!(
            told,
            "  step 2 of 4: 10 % of new flows (1 in 33 followed), 9 min left"
        );
        line.one_followed_in = None;
        assert!(sentence(&line).starts_with("10 % of new flows; "));
    }

    #[test]
    fn a_verdict_is_told_and_cut() {
        let mut line = line();
        line.verdict = "fail".to_owned();
        line.why = "x".repeat(200);
        let lines = table(&line);
        let last = lines.last().unwrap();
        assert!(last.starts_with("  fail: xxx") && last.chars().count() == 80);
    }

    #[test]
    fn a_sentence_has_both_arms() {
        let text = sentence(&line());
        assert!(
            text.contains("11 of 12 new flows completed, 108 of 108 of control"),
            "{text}"
        );
    }
}

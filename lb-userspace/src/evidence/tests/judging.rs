//! Verdicts over counts made by hand.

use crate::evidence::counts::{Counts, MemberCounts, VipCounts};
use crate::evidence::judge::Judge;
use crate::evidence::plan::{Family, Plan, Touched};
use crate::evidence::report::Judgement;
use crate::evidence::shares::{MemberShare, PoolShares};
use crate::evidence::signals::Transport;

const SECOND: u64 = 1_000_000_000;

fn shop() -> Touched {
    Touched {
        vip: 3,
        name: "shop-v4".to_owned(),
        pool: "shop-web".to_owned(),
        family: Family::Ipv4,
        transport: Transport::Tcp,
        in_control: true,
    }
}

fn judge(vips: Vec<Touched>, share_ppm: u32) -> Judge {
    let mut judge = Judge::new(Plan::new(vips, Vec::new()));
    judge.begin_stage(share_ppm, 0);
    judge
}

/// Flows all of whose ends are known and alike.
fn arm(flows: u64, completed: u64) -> VipCounts {
    let mut arm = VipCounts {
        started: flows,
        completed,
        flows,
        ..VipCounts::default()
    };
    arm.response[4] = completed;
    arm.wait[1] = completed;
    arm.end[0] = completed;
    arm.resent[0] = completed;
    arm
}

#[expect(clippy::large_types_passed_by_value, reason = "reads better")]
fn counts(control: VipCounts, new: VipCounts) -> Counts {
    let mut counts = Counts::default();
    counts.vips.insert(3, [control, new]);
    counts
}

fn hold(judgement: Judgement) -> String {
    match judgement {
        Judgement::Hold(why) => why,
        other => panic!("{other:?}"),
    }
}

fn inconclusive(judgement: Judgement) -> String {
    match judgement {
        Judgement::Inconclusive(why) => why,
        other => panic!("{other:?}"),
    }
}

fn fail(judgement: Judgement) -> String {
    match judgement {
        Judgement::Fail(finding) => finding.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_misroute_fails_with_its_numbers() {
    let mut judge = judge(vec![shop()], 100_000);
    let counts = counts(arm(95, 94), arm(11, 0));
    let Judgement::Fail(finding) = judge.decide(&counts, 2 * SECOND) else {
        panic!("it is proven");
    };
    assert_eq!(
        finding.to_string(),
        "S1 handshakes of shop-v4: 0 of 11 new flows completed against 94 of 95 (e = 10^12.1, needs 10^3.6)"
    );
    assert_eq!((finding.flows_exposed, finding.exposed_ms), (11, 2_000));
    assert_eq!(finding.effect_ppm, 989_474);
    let json = serde_json::to_value(&finding).unwrap();
    assert_eq!(json["new"]["bad"], 11);
    assert_eq!(json["what"]["signal"], "handshakes");
}

#[test]
fn an_attack_does_not_fail() {
    let mut judge = judge(vec![shop()], 100_000);
    let verdict = judge.decide(&counts(arm(9_000, 1_800), arm(1_000, 200)), SECOND);
    assert!(
        matches!(verdict, Judgement::Pass { .. } | Judgement::Hold(_)),
        "{verdict:?}"
    );
}

#[test]
fn a_small_difference_does_not_fail() {
    // One point worse, proven beyond doubt.
    let mut judge = judge(vec![shop()], 500_000);
    let verdict = judge.decide(&counts(arm(100_000, 99_000), arm(100_000, 98_000)), SECOND);
    assert!(matches!(verdict, Judgement::Pass { .. }), "{verdict:?}");
}

#[test]
fn better_does_not_fail() {
    let mut judge = judge(vec![shop()], 500_000);
    let verdict = judge.decide(&counts(arm(2_000, 1_200), arm(2_000, 1_980)), SECOND);
    assert!(matches!(verdict, Judgement::Pass { .. }), "{verdict:?}");
}

#[test]
fn a_step_passes_by_flows() {
    let mut judge = judge(vec![shop()], 100_000);
    assert_eq!(
        hold(judge.decide(&counts(arm(0, 0), arm(0, 0)), SECOND)),
        "shop-web IPv4: no new flow yet"
    );
    let few = counts(arm(900, 891), arm(100, 99));
    assert_eq!(
        hold(judge.decide(&few, 500 * SECOND)),
        "shop-web IPv4: 100 of 236 flows"
    );
    let mut enough = counts(arm(2_700, 2_673), arm(300, 298));
    assert_eq!(
        judge.decide(&enough, SECOND),
        Judgement::Pass {
            probe_verified: Vec::new()
        }
    );
    // Handshakes alone are not all.
    enough.vips.get_mut(&3).unwrap()[1].end[0] = 20;
    assert_eq!(
        hold(judge.decide(&enough, SECOND)),
        "shop-web IPv4: the ends of 20 of 94 flows"
    );
    let report = judge.round(&enough, SECOND);
    assert_eq!(report.vips[0].flows, [2_700, 300]);
    assert_eq!(report.vips[0].completed, [2_673, 298]);
    assert_eq!(
        (report.strata[0].flows, report.strata[0].proven),
        (300, true)
    );
}

#[test]
fn both_families_have_to_pass() {
    let mut v6 = shop();
    (v6.vip, v6.family) = (4, Family::Ipv6);
    let mut judge = judge(vec![shop(), v6], 100_000);
    let mut counts = counts(arm(2_700, 2_673), arm(300, 298));
    counts.vips.insert(4, [arm(9, 9), arm(1, 1)]);
    assert!(hold(judge.decide(&counts, SECOND)).starts_with("shop-web IPv6: 1 of "));
}

#[test]
fn what_traffic_cannot_prove_passes_by_probes() {
    let mut fresh = shop();
    fresh.in_control = false;
    let mut dns = shop();
    (dns.vip, dns.transport) = (4, Transport::Udp);
    dns.name = "dns-v4".to_owned();
    let mut judge = judge(vec![fresh, dns], 100_000);
    let mut counts = counts(VipCounts::default(), arm(10, 0));
    counts.vips.insert(4, [arm(90, 0), arm(10, 0)]);
    assert_eq!(
        judge.decide(&counts, SECOND),
        Judgement::Pass {
            probe_verified: vec!["shop-v4".to_owned(), "dns-v4".to_owned()]
        }
    );
}

#[test]
fn broken_evidence_is_inconclusive() {
    let good = counts(arm(2_700, 2_673), arm(300, 298));
    let mut judge = judge(vec![shop()], 100_000);
    assert_eq!(
        inconclusive(judge.decide(&Counts::default(), SECOND)),
        "counters of shop-v4 are missing"
    );
    let mut bad = good.clone();
    bad.suspect = Some("a counter fell".to_owned());
    assert_eq!(inconclusive(judge.decide(&bad, SECOND)), "a counter fell");
    let mut bad = good.clone();
    bad.vips.get_mut(&3).unwrap()[1].completed = 301;
    assert_eq!(
        inconclusive(judge.decide(&bad, SECOND)),
        "counters of VIP 3 are broken: 301 flows completed of 300"
    );
    let mut bad = good.clone();
    bad.vips.get_mut(&3).unwrap()[0].untracked = 160;
    assert_eq!(
        inconclusive(judge.decide(&bad, SECOND)),
        "shop-v4: 160 of 3000 new flows could not be followed"
    );
    judge.begin_stage(1_000_000, 0);
    assert!(inconclusive(judge.decide(&good, SECOND)).contains("nothing to compare"));
}

#[test]
fn a_wrong_split_is_inconclusive() {
    let mut judge = judge(vec![shop()], 100_000);
    let why = inconclusive(judge.decide(&counts(arm(2_700, 2_673), arm(600, 590)), SECOND));
    assert_eq!(
        why,
        "S15 split of shop-v4: 600 of 3300 flows in the new arm, 18.2 % instead of 10.0 %"
    );
    // By chance one of the few is bad: with the split in doubt that is no proof.
    let why = inconclusive(judge.decide(&counts(arm(9, 9), arm(21, 20)), SECOND));
    assert!(why.starts_with("S15"), "{why}");
    // But a misroute is one.
    let why = fail(judge.decide(&counts(arm(2_700, 2_673), arm(600, 0)), SECOND));
    assert!(why.starts_with("S1"), "{why}");
}

#[test]
fn another_services_answers_fail() {
    let mut judge = judge(vec![shop()], 100_000);
    let mut new = arm(20, 20);
    new.response.swap(4, 9);
    let why = fail(judge.decide(&counts(arm(180, 179), new), SECOND));
    assert_eq!(
        why,
        "S4 response sizes of shop-v4: 100 % of 20 new flows are unlike 179 control flows (e = 10^25.8, needs 10^4.4)"
    );
}

#[test]
fn slower_fails_and_faster_does_not() {
    let mut judge = judge(vec![shop()], 500_000);
    let verdict = |judge: &mut Judge, bucket: usize| {
        let mut new = arm(1_000, 1_000);
        new.wait.swap(1, bucket);
        judge.decide(&counts(arm(1_000, 1_000), new), SECOND)
    };
    assert!(
        fail(verdict(&mut judge, 4)).starts_with("S5 waiting times of shop-v4: 100 % of 1000 new")
    );
    assert!(matches!(verdict(&mut judge, 0), Judgement::Pass { .. }));
}

#[test]
fn other_signals_fail_by_their_names() {
    let mut judge = judge(vec![shop()], 100_000);
    let mut of = |change: fn(&mut VipCounts)| {
        let mut new = arm(100, 99);
        change(&mut new);
        fail(judge.decide(&counts(arm(900, 890), new), SECOND))
    };
    assert!(of(|new| new.retried = 40).starts_with("S2 repeated SYNs of shop-v4: 40 of 100 new"));
    assert!(of(|new| new.end.swap(0, 3)).starts_with("S3 early ends of shop-v4: 99 of 99 new"));
    assert!(of(|new| new.resent.swap(0, 3)).starts_with("S6 packets sent again"));
    assert!(of(|new| new.icmp[1] = 100).starts_with("S7 ICMP errors of shop-v4: 100 for 100 new"));
    assert!(of(|new| new.icmp[3] = 100).starts_with("S7 packets too big"));
}

#[test]
fn quic_has_a_number_of_its_own() {
    let mut quic = shop();
    quic.transport = Transport::Quic;
    let mut judge = judge(vec![quic], 100_000);
    assert!(fail(judge.decide(&counts(arm(95, 94), arm(11, 0)), SECOND)).starts_with("S17"));
}

/// A fault that begins after many good flows is seen in a block long before it is over the step.
#[test]
fn a_late_fault_is_seen_in_a_block() {
    let mut judge = judge(vec![shop()], 500_000);
    let mut at = |seconds: u64, bad: u64| {
        let flows = seconds * 500;
        judge.decide(
            &counts(arm(flows, flows), arm(flows, flows - bad)),
            seconds * SECOND,
        )
    };
    for seconds in 1..=300 {
        assert!(!matches!(at(seconds, 0), Judgement::Fail(_)));
    }
    let why = fail(at(301, 400));
    assert!(why.contains(" new flows completed against "), "{why}");
    assert!(!why.contains("150500"), "{why}");
}

#[test]
fn backends_that_say_nothing_or_get_too_much() {
    let member = |member: u32, in_control: bool| MemberShare {
        member,
        name: format!("web-{member}"),
        share: 0.5,
        in_control,
    };
    let pool = |in_control| PoolShares {
        pool: "shop-web".to_owned(),
        members: vec![member(1, true), member(2, in_control)],
    };
    let of = |started, completed| MemberCounts {
        started,
        mature: started,
        completed,
        ..MemberCounts::default()
    };
    let verdict = |in_control, control: MemberCounts, flows: [u64; 2], completed| {
        let mut judge = Judge::new(Plan::new(vec![shop()], vec![pool(in_control)]));
        judge.begin_stage(100_000, 0);
        let mut counts = counts(arm(2_700, 2_673), arm(300, 298));
        counts
            .members
            .insert(1, [of(1_000, 990), of(flows[0], flows[0])]);
        counts.members.insert(2, [control, of(flows[1], completed)]);
        judge.decide(&counts, SECOND)
    };
    assert_eq!(
        fail(verdict(false, of(0, 0), [25, 24], 0)),
        "S12 backend web-2 of shop-web: 0 of 24 new flows completed against 25 of 25 (e = 10^34.0, needs 10^3.3)"
    );
    assert!(matches!(
        verdict(false, of(0, 0), [25, 19], 0),
        Judgement::Pass { .. }
    ));
    // It is silent in the control arm, too: a backend that died, not the change.
    assert!(matches!(
        verdict(true, of(400, 0), [25, 24], 0),
        Judgement::Pass { .. }
    ));
    assert!(matches!(
        verdict(true, of(400, 390), [25, 24], 0),
        Judgement::Fail(_)
    ));
    assert_eq!(
        inconclusive(verdict(true, of(400, 390), [250, 50], 50)),
        "S11 backends of shop-web: 33 % of 300 new flows do not follow the lookup table"
    );
}

/// What traffic cannot prove passes after a while, in each step; a brand-new VIP has had all of its
/// flows since the first.
#[test]
fn what_traffic_cannot_prove_dwells() {
    let udp = Touched {
        transport: Transport::Udp,
        ..shop()
    };
    let new = Touched {
        in_control: false,
        ..shop()
    };
    let passes = |judgement: Judgement| matches!(judgement, Judgement::Pass { .. });
    for (vip, in_later_steps) in [(udp, true), (new, false)] {
        let mut plan = Plan::new(vec![vip], Vec::new());
        plan.dwell_ns = 5 * SECOND;
        let mut judge = Judge::new(plan);
        let counts = counts(arm(0, 0), arm(0, 0));
        judge.begin_stage(100_000, 100 * SECOND);
        let why = hold(judge.decide(&counts, 105 * SECOND - 1));
        assert_eq!(
            why,
            "shop-v4 cannot be proven by traffic: this step lasts 5 s at least"
        );
        assert!(passes(judge.decide(&counts, 105 * SECOND)));
        judge.begin_stage(900_000, 106 * SECOND);
        assert_eq!(passes(judge.decide(&counts, 106 * SECOND)), !in_later_steps);
        assert!(passes(judge.decide(&counts, 111 * SECOND)));
    }
}

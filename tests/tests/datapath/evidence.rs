//! Flows that a trial follows: which arm has them, where they are pinned, what is counted.

use std::time::{Duration, Instant};

use lb_common::breaker::{Breaker, Design, Weights};
use lb_common::control::{Cause, SHARE_ALL, control_flag};
use lb_common::counter::Reason;
use lb_common::evidence::{End, Evidence, IcmpError, NO_REQUEST};
use lb_common::guard::{Op, Refusal, STEPS, TrialPut};
use lb_tests::bench::{Bench, refusal};
use lb_tests::packets::{Flags, Ip, Talk, icmp_raw, inner, ip, tcp};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::probe::Action;
use lb_userspace::lab::until;
use zerocopy::IntoBytes;

use crate::world::{addr, backend, client, commit, probe, shop};

/// One of the addresses that the bench's outer packets come from.
const OUTER: &str = "172.16.3.4";
const HALF: u64 = SHARE_ALL as u64 / 2;
const SOON: Duration = Duration::from_secs(20);
const WITHIN_MS: u32 = 300;

fn judged(breaker: Breaker) -> TrialPut {
    TrialPut {
        breaker,
        within_ms: WITHIN_MS,
        pace: 0,
    }
}

/// Old generation: web-1. New one: web-2, on trial with this share of flows, followed.
fn followed(share: u64, breaker: Breaker) -> (Bench, Image, Image, u8) {
    let bench = Bench::new();
    let old = commit(&bench, &shop(&[1]), 1);
    let new = bench.image(&shop(&[2]));
    let slot = follow(&bench, &new, [share, 2], breaker);
    (bench, old, new, slot)
}

/// Puts it on trial with this share, as this change.
fn follow(bench: &Bench, new: &Image, [share, change]: [u64; 2], breaker: Breaker) -> u8 {
    let slot = bench.stage(new).unwrap().slot;
    let args = [share, 0x5eed, 60_000, 60_000, change];
    let put = judged(breaker);
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
    slot
}

fn has_tripped(bench: &Bench) -> bool {
    bench.record().cause == Cause::Breaker as u32
}

fn number(image: &Image) -> u16 {
    let shop = image.vips.iter().find(|vip| vip.name == "shop");
    shop.unwrap().entry.vip
}

fn counts(bench: &Bench, image: &Image) -> [Evidence; 2] {
    let vip = number(image);
    let kernel = &bench.kernel;
    kernel.maps.evidence(&kernel.node, vip).unwrap()
}

fn sum(bins: &[u32]) -> u32 {
    bins.iter().sum()
}

#[test]
fn a_handshake_is_counted_in_its_arm_and_pins_the_flow_there() {
    let (bench, old, new, slot) = followed(HALF, Breaker::default());
    let mut flows = [0, 0];
    for port in 1..=200 {
        let syn = probe(&bench, &tcp(client(port), Flags::Syn, &[]));
        let arm = usize::from(syn.slot == slot);
        flows[arm] += 1;
        let ack = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!(
            (ack.slot, ack.member),
            (syn.slot, syn.member),
            "port {port}"
        );
        let again = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert!(again.followed && again.member == syn.member);
        let name = if arm == 1 { "web-2" } else { "web-1" };
        assert_eq!(backend(if arm == 1 { &new } else { &old }, &syn), name);
    }
    assert!(flows[0] > 50 && flows[1] > 50, "{flows:?}");
    for (arm, counts) in counts(&bench, &new).iter().enumerate() {
        let seen = [sum(&counts.started), sum(&counts.completed), counts.flows];
        assert_eq!(seen, [flows[arm]; 3], "arm {arm}");
        assert_eq!((counts.retried, counts.untracked), (0, 0));
    }
}

/// What makes a black hole heal: the client asks again after a second, and control answers.
#[test]
fn a_syn_that_comes_again_goes_to_control_and_stays_there() {
    let (bench, old, new, slot) = followed(u64::from(SHARE_ALL) - 1, Breaker::default());
    let active = bench.record().active;
    for port in 1..=20 {
        let syn = tcp(client(port), Flags::Syn, &[]);
        assert_eq!(probe(&bench, &syn).slot, slot);
        for _ in 0..2 {
            assert_eq!(probe(&bench, &syn).slot, active);
        }
        let ack = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!((ack.slot, backend(&old, &ack).as_str()), (active, "web-1"));
    }
    let [control, arm] = counts(&bench, &new);
    assert_eq!(
        (arm.retried, sum(&arm.started), sum(&arm.completed)),
        (20, 20, 0)
    );
    assert_eq!(
        (control.retried, control.flows, sum(&control.completed)),
        (0, 0, 0)
    );
}

#[test]
fn half_open_flows_of_the_new_arm_are_not_remembered_and_a_bad_end_frees_them() {
    let (bench, old, _, slot) = followed(u64::from(SHARE_ALL) - 1, Breaker::default());
    let syn = probe(&bench, &tcp(client(1), Flags::Syn, &[]));
    assert_eq!((syn.slot, syn.followed), (slot, false));
    bench.revert().unwrap();
    let ack = probe(&bench, &tcp(client(1), Flags::Ack, &[]));
    assert_eq!(
        (ack.followed, backend(&old, &ack).as_str()),
        (false, "web-1")
    );
}

/// A client's port comes round: what is remembered of its last connection is another's.
#[test]
fn a_new_connection_from_a_known_port_goes_where_its_syn_went() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    for port in 1..=20 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
    }
    let new = bench.image(&shop(&[1, 2, 3]));
    let slot = bench.stage(&new).unwrap().slot;
    let args = [u64::from(SHARE_ALL) - 1, 1, 60_000, 60_000, 2];
    let put = judged(Breaker::default());
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
    for port in 1..=20 {
        let syn = probe(&bench, &tcp(client(port), Flags::Syn, &[]));
        let ack = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!((ack.slot, ack.member), (slot, syn.member), "port {port}");
    }
}

#[test]
fn an_end_is_counted_once_with_what_the_flow_was() {
    let (bench, _, new, _) = followed(u64::from(SHARE_ALL) - 1, Breaker::default());
    for (port, last) in [(1, Flags::FinAck), (2, Flags::RstAck)] {
        for flags in [Flags::Syn, Flags::Ack, last, last, Flags::Ack] {
            probe(&bench, &tcp(client(port), flags, &[]));
        }
    }
    let [_, arm] = counts(&bench, &new);
    let mut ends = [0; 4];
    ends[End::Empty as usize] = 1;
    ends[End::Reset as usize] = 1;
    assert_eq!(arm.end, ends);
    assert_eq!(
        (arm.response[0], arm.wait[NO_REQUEST], arm.resent[0]),
        (2, 2, 2)
    );
}

#[test]
fn a_flow_that_lives_on_is_counted_by_the_timer_after_two_seconds() {
    let (bench, _, new, _) = followed(u64::from(SHARE_ALL) - 1, Breaker::default());
    probe(&bench, &tcp(client(1), Flags::Syn, &[]));
    probe(&bench, &tcp(client(1), Flags::Ack, &[]));
    assert_eq!(counts(&bench, &new)[1].end, [0; 4]);
    until("its end", SOON, || {
        (counts(&bench, &new)[1].end[End::Alive as usize] == 1).then_some(())
    })
    .unwrap();
    assert!(bench.record().flags & control_flag::TRIAL != 0);
}

/// Nobody saw how they went on after that trial: what is known of them is cut off.
#[test]
fn flows_of_the_trial_before_are_not_counted() {
    let (bench, _, new, _) = followed(HALF, Breaker::default());
    for port in 1..=20 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
        probe(&bench, &tcp(client(port), Flags::Ack, &[]));
    }
    bench.revert().unwrap();
    follow(&bench, &new, [HALF, 3], Breaker::default());
    probe(&bench, &tcp(client(100), Flags::Syn, &[]));
    probe(&bench, &tcp(client(100), Flags::Ack, &[]));
    let ended = || counts(&bench, &new).map(|counts| sum(&counts.end));
    until("an end", SOON, || (ended() != [0, 0]).then_some(())).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ended().iter().sum::<u32>(), 1);
}

#[test]
fn flows_from_before_are_not_followed() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    for port in 1..=20 {
        probe(&bench, &tcp(client(port), Flags::Syn, &[]));
    }
    let new = bench.image(&shop(&[1, 2]));
    bench.stage(&new).unwrap();
    let args = [HALF, 1, 60_000, 60_000, 2];
    let put = judged(Breaker::default());
    let guard = &bench.kernel.guard;
    guard.call(Op::Trial, 1, &args, put.as_bytes()).unwrap();
    for port in 1..=20 {
        let ack = probe(&bench, &tcp(client(port), Flags::Ack, &[]));
        assert_eq!((ack.slot, ack.followed), (bench.record().active, true));
    }
    for counts in counts(&bench, &new) {
        assert_eq!((counts.flows, sum(&counts.completed)), (0, 0));
    }
}

#[test]
fn steps_only_rise_are_few_and_keep_the_deadline_of_one_share() {
    let (bench, ..) = followed(1_000, Breaker::default());
    let put = judged(Breaker::default());
    let step = |share: u64, deadline: u64| {
        let args = [share, 9, deadline];
        bench.kernel.guard.call(Op::Step, 1, &args, put.as_bytes())
    };
    assert_eq!(refusal(step(999, 60_000)), Some(Refusal::BadShare));
    let above = u64::from(SHARE_ALL) + 1;
    assert_eq!(refusal(step(above, 60_000)), Some(Refusal::BadShare));
    assert_eq!(refusal(step(2_000, 0)), Some(Refusal::BadDeadline));
    let before = bench.record();
    step(1_000, 0).unwrap();
    let salted = bench.record();
    assert_eq!((salted.salt, salted.stage), (9, 0));
    assert_eq!(salted.deadline_ns, before.deadline_ns);
    for number in 1..u64::from(STEPS) {
        step(1_000 + number, 60_000).unwrap();
        let record = bench.record();
        assert_eq!(u64::from(record.stage), number);
        assert!(record.deadline_ns > before.deadline_ns);
    }
    assert_eq!(refusal(step(5_000, 60_000)), Some(Refusal::TooManySteps));
    bench.revert().unwrap();
    assert_eq!(refusal(step(6_000, 60_000)), Some(Refusal::NoTrial));
}

#[test]
fn a_trial_without_evidence_has_no_steps() {
    let bench = Bench::new();
    commit(&bench, &shop(&[1]), 1);
    bench.stage(&bench.image(&shop(&[2]))).unwrap();
    bench.trial_of(1_000, 2, 60_000, 60_000).unwrap();
    let put = judged(Breaker::default());
    let args = [2_000, 9, 60_000];
    let step = bench.kernel.guard.call(Op::Step, 1, &args, put.as_bytes());
    assert_eq!(refusal(step), Some(Refusal::NoEvidence));
}

/// Weights for half of the flows and an arm in which all of them fail.
fn breaker() -> Breaker {
    let total = Design {
        weights: Weights {
            failed_new: 670,
            failed_control: -3_170,
            completed_new: -2_300,
            completed_control: 640,
        },
        threshold: 12_000,
    };
    Breaker {
        total,
        ..Breaker::default()
    }
}

/// The kernel alone: no agent judges here.
#[test]
fn an_arm_whose_handshakes_fail_ends_the_trial_and_latches() {
    let (bench, _, new, slot) = followed(HALF, breaker());
    let vip = number(&new);
    let mut port = 0;
    until("the breaker", SOON, || {
        for _ in 0..10 {
            port += 1;
            let syn = probe(&bench, &tcp(client(port), Flags::Syn, &[]));
            if syn.slot != slot {
                probe(&bench, &tcp(client(port), Flags::Ack, &[]));
            }
        }
        (bench.record().cause == Cause::Breaker as u32).then_some(())
    })
    .unwrap();
    let record = bench.record();
    assert_eq!(record.share, 0);
    assert_eq!(record.tripped_vip, u32::from(vip) + 1);
    assert!(record.flags & control_flag::LATCHED != 0);
}

#[test]
fn an_attack_on_both_arms_does_not_end_the_trial() {
    let (bench, ..) = followed(HALF, breaker());
    let began = Instant::now();
    let mut port = 0;
    while began.elapsed() < Duration::from_secs(3) {
        port += 1;
        probe(&bench, &tcp(client(port % 60_000), Flags::Syn, &[]));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(bench.record().flags & control_flag::TRIAL != 0);
}

/// A backend's host says that it knows no such tunnel: once is counted, three clients are enough.
#[test]
fn errors_about_tunnelled_packets_are_counted_in_their_arm_and_end_the_trial() {
    let (bench, _, new, slot) = followed(HALF, Breaker::default());
    let mut clients = 0;
    for port in 1..=60_u8 {
        let talk = Talk::new(&format!("198.51.100.{port}:4000"), "203.0.113.5:80");
        let syn = probe(&bench, &tcp(talk, Flags::Syn, &[]));
        let from = addr(if syn.slot == slot {
            "10.0.5.2"
        } else {
            "10.0.5.1"
        });
        let client = inner(&tcp(talk, Flags::Syn, &[])).to_vec();
        let sent = ip(&Ip::default(), addr(OUTER), from, 4, &client);
        let elsewhere = probe(&bench, &icmp_raw(from, addr("192.0.2.200"), 3, 2, &sent));
        assert_eq!(elsewhere.reason, Some(Reason::Icmp), "not to us");
        if syn.slot != slot {
            continue;
        }
        let seen = probe(&bench, &icmp_raw(from, addr(OUTER), 3, 2, &sent));
        if has_tripped(&bench) {
            break;
        }
        assert_eq!(seen.reason, Some(Reason::TunnelError));
        assert_eq!(seen.action, Action::Pass);
        clients += 1;
        assert_eq!(
            counts(&bench, &new)[1].icmp[IcmpError::Protocol as usize],
            clients
        );
        if clients == 20 {
            break;
        }
    }
    until("the breaker", SOON, || has_tripped(&bench).then_some(())).unwrap();
    assert_eq!(bench.record().tripped_vip, 0, "by hard events");
}

/// Without a next hop nothing leaves: counted for the VIP, and three sources end the trial.
#[test]
fn packets_without_a_way_are_counted_in_their_arm_and_end_the_trial() {
    let (bench, _, new, _) = followed(u64::from(SHARE_ALL) - 1, Breaker::default());
    let member = new.members().find(|member| member.name == "web-2").unwrap();
    let up = u64::from(lb_common::slot::member_state::UP);
    bench.set_hop(2, 1500, false);
    let args = [u64::from(member.id), up, 2];
    let guard = &bench.kernel.guard;
    guard.call(Op::SetMember, 0, &args, &[]).unwrap();
    // Sources are told apart by one of 64 bits, under a random key: of three, two share one in 1 of 21
    // runs; of 20, all share two in none.
    for host in 1..=20 {
        let talk = Talk::new(&format!("198.51.100.{host}:4000"), "203.0.113.5:80");
        let syn = tcp(talk, Flags::Syn, &[]);
        bench.kernel.prober.run_unmarked(&syn).unwrap();
    }
    until("the breaker", SOON, || has_tripped(&bench).then_some(())).unwrap();
    let [control, new] = counts(&bench, &new).map(|counts| counts.hard);
    assert_eq!(control, 0);
    assert!((3..=20).contains(&new), "{new}");
}

//! The wall clock may jump: nothing but what is read by people depends on it.

use jiff::Timestamp;

use super::*;
use crate::change::Now;

/// What a change does at these boot-clock seconds, while the wall clock shows anything.
fn run(events: &[(u64, Event)], wall: impl Fn(u64) -> i64) -> Vec<Vec<Effect>> {
    let at = |second: u64| Now {
        wall: Timestamp::from_second(wall(second)).unwrap(),
        ..now_at(second)
    };
    let (mut change, first) = Change::new(spec(), at(0));
    let mut all = vec![first];
    for (second, event) in events {
        all.push(change.step(event.clone(), at(*second)));
    }
    all
}

#[test]
fn a_jump_of_the_wall_clock_changes_nothing() {
    let digest = spec().digest;
    let begin = [
        (1, Event::CheckPassed),
        (1, Event::StageDone { digest }),
        (1, Event::GoldenPassed),
        (
            1,
            Event::Armed {
                deadline_ns: 121 * SECOND,
            },
        ),
        (2, Event::Tick),
    ];
    let ends = [
        vec![(100, confirm()), (100, view(7, Trial::None))],
        vec![
            (120, Event::Tick),
            (121, Event::Tick),
            (121, over(Ended::Deadline)),
        ],
        vec![(122, confirm()), (122, over(Ended::Deadline))],
    ];
    for end in ends {
        let events: Vec<_> = begin.iter().cloned().chain(end).collect();
        let steady = run(&events, |second| 1_790_000_000 + second.cast_signed());
        let years = 30 * 365 * 86_400;
        let jumps: [&dyn Fn(u64) -> i64; 3] = [
            &|second| 1_790_000_000 + if second > 1 { years } else { 0 },
            &|second| 1_790_000_000 - if second > 1 { years } else { 0 },
            &|second| 1_790_000_000 - 1_000 * second.cast_signed(),
        ];
        for jump in jumps {
            assert_eq!(run(&events, jump), steady);
        }
    }
}

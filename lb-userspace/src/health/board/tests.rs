use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn spec(backends: u32, share_ppm: u32) -> PoolSpec {
    PoolSpec {
        name: "web".to_owned(),
        rise: 2,
        fall: 2,
        slow_start: None,
        share_ppm,
        members: backends,
        lost: 0,
        backends: (1..=backends)
            .map(|member| BackendSpec {
                name: format!("web-{member}"),
                member,
                held: false,
                withheld: 0,
            })
            .collect(),
    }
}

fn board(spec: PoolSpec) -> Board {
    let mut board = Board::default();
    board.set(vec![spec], SECOND);
    board
}

/// Two results, which is what a turn takes here, and all wishes fulfilled.
fn turn(board: &mut Board, member: u32, well: bool, now: u64) -> Vec<Told> {
    let mut told = Vec::new();
    for _ in 0..2 {
        let verdict = if well {
            Verdict::Well
        } else {
            Verdict::Ill("refused".to_owned())
        };
        let turned = board.take("web", member, verdict, now);
        fulfil(board, now);
        told.extend(turned.and_then(|turn| board.tell("web", member, turn)));
    }
    told.extend(board.panics());
    told
}

fn fulfil(board: &mut Board, now: u64) {
    for wish in board.wishes(now) {
        board.done(&wish);
    }
    assert_eq!(board.wishes(now), [], "one round of wishes is enough");
}

fn held(board: &Board) -> Vec<String> {
    let lines = board.lines();
    let held = lines.iter().filter(|line| line.held);
    held.map(|line| line.backend.clone()).collect()
}

#[test]
fn one_is_held_and_when_too_many_fail_all_are_kept_loudly() {
    let mut board = board(spec(4, 500_000));
    let told = turn(&mut board, 1, false, 2 * SECOND);
    assert_eq!(held(&board), ["web-1"]);
    let down = |kept| What::Down {
        why: "refused".to_owned(),
        kept,
    };
    assert_eq!((told.len(), &told[0].what), (1, &down(false)));
    turn(&mut board, 2, false, 3 * SECOND);
    assert_eq!(held(&board), ["web-1", "web-2"]);
    let told = turn(&mut board, 3, false, 4 * SECOND);
    assert_eq!(held(&board), Vec::<String>::new(), "fail open");
    let what: Vec<_> = told.into_iter().map(|told| told.what).collect();
    assert_eq!(what, [down(true), What::Panic { failing: 3, of: 4 }]);
    assert_eq!(
        turn(&mut board, 4, false, 5 * SECOND).len(),
        1,
        "no second alarm"
    );
    turn(&mut board, 4, true, 6 * SECOND);
    assert_eq!(held(&board), Vec::<String>::new(), "three of four still");
    let told = turn(&mut board, 3, true, 7 * SECOND);
    assert_eq!(told.last().unwrap().what, What::Calm);
    assert_eq!(
        held(&board),
        ["web-1", "web-2"],
        "half of them may be out again"
    );
}

#[test]
fn the_only_backend_is_never_held() {
    let mut board = board(spec(1, 500_000));
    let told = turn(&mut board, 1, false, SECOND);
    assert_eq!(told.last().unwrap().what, What::Panic { failing: 1, of: 1 });
    assert!(held(&board).is_empty());
}

#[test]
fn a_refusal_of_the_guard_keeps_all_until_something_changes() {
    let mut board = board(spec(3, 500_000));
    for _ in 0..2 {
        board.take("web", 1, Verdict::Ill(String::new()), SECOND);
    }
    assert_eq!(board.wishes(SECOND).len(), 1);
    board.refused("web");
    assert_eq!(board.wishes(SECOND), []);
    assert_eq!(board.panics().len(), 1);
    turn(&mut board, 1, true, SECOND);
    turn(&mut board, 1, false, SECOND);
    assert_eq!(held(&board), ["web-1"]);
}

#[test]
fn who_comes_back_is_slow_to_start_and_a_next_agent_goes_on_there() {
    let slow = PoolSpec {
        slow_start: Some(Duration::from_secs(10)),
        ..spec(2, 500_000)
    };
    let mut board = board(slow.clone());
    turn(&mut board, 1, false, SECOND);
    turn(&mut board, 1, true, 10 * SECOND);
    let admitted = |board: &Board| board.lines()[0].admitted;
    assert_eq!(admitted(&board), 10);
    fulfil(&mut board, 15 * SECOND);
    assert_eq!(admitted(&board), 50);
    let mut next = Board::default();
    let mut spec = slow;
    spec.backends[0].withheld = 128;
    next.set(vec![spec], 100 * SECOND);
    fulfil(&mut next, 102 * SECOND + SECOND / 2);
    assert_eq!(admitted(&next), 75);
    for board in [&mut board, &mut next] {
        assert!(board.ramps());
        fulfil(board, 200 * SECOND);
        assert!(!board.ramps());
        assert_eq!(admitted(board), 100);
    }
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let mut board = board(spec(3, 500_000));
    turn(&mut board, 2, false, SECOND);
    let mut next = spec(4, 500_000);
    next.backends[1].held = true;
    board.set(vec![next.clone()], 2 * SECOND);
    assert_eq!(board.wishes(2 * SECOND), []);
    assert_eq!(held(&board), ["web-2"]);
    // One failure more is no turn: it is down already; and who was not held by the kernel is.
    next.backends[1].held = false;
    board.set(vec![next], 3 * SECOND);
    fulfil(&mut board, 3 * SECOND);
    assert_eq!(held(&board), ["web-2"]);
}

proptest! {
    /// Never more than the guard lets go, never the last one; who is held has failed.
    #[test]
    fn no_more_are_held_than_may_be(
        backends in 1u32..8,
        share in prop::sample::select(vec![0u32, 250_000, 500_000, 700_000]),
        steps in prop::collection::vec((1u32..8, any::<bool>()), 0..60),
    ) {
        let mut board = board(spec(backends, share));
        for (now, (member, well)) in (2..).zip(steps) {
            turn(&mut board, member.min(backends), well, now * SECOND);
            let lines = board.lines();
            let count = |which: &dyn Fn(&&Line) -> bool| u32::try_from(lines.iter().filter(which).count()).unwrap();
            let held = count(&|line| line.held);
            prop_assert!(held < backends);
            prop_assert!(held == 0 || may_eject(held - 1, backends, share));
            prop_assert!(lines.iter().all(|line| !line.held || line.state == "down"));
            let failing = count(&|line| line.state == "down");
            let bearable = failing == 0 || may_eject(failing - 1, backends, share);
            prop_assert_eq!(held, if bearable { failing } else { 0 });
        }
    }
}

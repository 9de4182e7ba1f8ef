//! No call of the guard holds its CPU for long: one lookup table of the usual size is the most
//! that any of them walks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of it is tests"
)]

mod times;
mod waits;

use std::time::{Duration, Instant};

use lb_common::guard::Op;
use lb_tests::bench::{Bench, shop};
use lb_tests::draft::Draft;

/// Far above what it takes (well below 1 ms), far below what anybody would notice.
const LONGEST: Duration = Duration::from_millis(10);

/// The shortest of some attempts: others may use the CPU meanwhile.
fn shortest(what: &str, mut attempts: Vec<Duration>) {
    attempts.sort();
    let shortest = attempts[0];
    println!("{what}: {} us", shortest.as_micros());
    assert!(shortest < LONGEST, "{what} takes {shortest:?}");
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

#[test]
fn one_table_of_65537_entries_a_call() {
    let bench = Bench::new();
    let large = |backends| shop(backends).replace("4099", "65537");
    bench.commit(&large(4));
    let (mut tables, mut pools, mut vips, mut slots, mut clears) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let draft = Draft::of(&bench, &large(5));
        draft.begin().expect("begin");
        clears.push(time(|| draft.call(Op::Clear, &[], &[]).expect("clear")));
        while draft.call(Op::Clear, &[], &[]).expect("clear")[0] > 0 {}
        let pool = &draft.image.pools[0];
        draft.open(pool.number, &pool.table).expect("open");
        draft.write(&pool.table).expect("write");
        tables.push(time(|| draft.seal_table(&pool.table).expect("seal")));
        draft.pool(pool).expect("pool");
        draft.members(&pool.members).expect("members");
        draft.vips(&draft.image.vips).expect("VIPs");
        draft.vips(&draft.image.addresses).expect("addresses");
        pools.push(time(|| draft.walk(pool).expect("walk")));
        let vip = &draft.image.vips[0];
        vips.push(time(|| draft.compare(vip).expect("compare")));
        slots.push(time(|| draft.seal(draft.totals()).expect("seal")));
    }
    shortest("clear", clears);
    shortest("seal table", tables);
    shortest("walk pool (K3)", pools);
    shortest("compare VIP (K4)", vips);
    shortest("seal slot", slots);
}

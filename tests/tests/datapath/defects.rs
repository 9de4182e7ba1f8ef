//! Mistakes that other balancers have made, each by its number in PARITY.md, section 2.

use lb_common::counter::Reason;
use lb_common::guard::Refusal;
use lb_tests::bench::{Bench, node};
use lb_tests::packets::{Flags, Ip, echo_numbered, inner, tcp, too_big, turned};
use lb_tests::rows::{Row, run};
use lb_userspace::check::check;
use lb_userspace::kernel::KernelError;

use crate::world::{
    addr, backend, by_table, client, commit, probe, services, shop, shop_with, tcp_in, to, world,
};

/// PMTU black hole: errors that quote no more than RFC 792 promises were dropped.
#[test]
fn defect_1_errors_quoting_8_bytes_of_tcp_are_dropped() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let (talk, talk6) = (to("203.0.113.2:80"), to("[2001:db8::2]:80"));
    let quote = |talk: lb_tests::packets::Talk, length| {
        inner(&tcp(talk.back(), Flags::Ack, &[0; 1400]))[..length].to_vec()
    };
    let v4 = too_big(addr("192.0.2.99"), talk.to.ip(), 1400, &quote(talk, 28));
    let v6 = too_big(
        addr("2001:db8:99::1"),
        talk6.to.ip(),
        1400,
        &quote(talk6, 48),
    );
    run(
        &bench,
        &image,
        &[
            Row::sent("v4", ("t44", "far"), tcp_in(talk, "10.0.2.1"), v4)
                .because(Reason::IcmpError),
            Row::sent("v6", ("t66", "far6"), tcp_in(talk6, "fd00:2::1"), v6)
                .because(Reason::IcmpError),
        ],
    );
}

/// Such packets went out 40 bytes short. Here the file is refused, and so is the slot if a file
/// gets past the check.
#[test]
fn defect_3_an_ipv6_vip_with_an_ipv4_backend() {
    let text = services(
        &[("v6", "2001:db8::9", 80, "tcp", "p")],
        &[("p", "ipip", &[("a", "10.0.2.1", "")])],
    );
    let report = check(&text, "services.toml", &node());
    assert!(report.refused(), "{report:#?}");

    let bench = Bench::new();
    let mut config = bench.config(&world());
    for vip in &mut config.vips {
        if vip.name == "t66" {
            vip.pool = "p44".to_owned();
        }
    }
    match bench.stage(&bench.image_of(&config)) {
        Err(KernelError::Refused(refused)) => assert_eq!(refused.refusal, Refusal::Family),
        other => panic!("{other:?}"),
    }
}

/// A switch altered the key between look-up and insert, so that no look-up ever hit. Whatever the
/// VIP (any port among them), the second packet of a flow must follow the first.
#[test]
fn defect_4_flows_are_found_under_the_key_they_were_stored_by() {
    let bench = Bench::new();
    bench.commit(&world());
    let targets = [
        "203.0.113.1:80",
        "203.0.113.2:80",
        "203.0.113.3:80",
        "203.0.113.4:443",
        "203.0.113.4:8080",
        "[2001:db8::1]:80",
        "[2001:db8::2]:80",
    ];
    for target in targets {
        probe(&bench, &tcp(to(target), Flags::Syn, &[]));
        assert!(
            probe(&bench, &tcp(to(target), Flags::Ack, &[])).followed,
            "{target}"
        );
    }
}

/// Weights 1 to 3 gave halves; large weights gave 65 % instead of 75. Here the table is exact to
/// one entry, and traffic follows it.
#[test]
fn defect_6_weights_are_shares() {
    for weights in ["weight = 1", "weight = 10000"] {
        let bench = Bench::new();
        let text = shop_with(&[1, 2], |n| match (n, weights) {
            (1, "weight = 1") => "weight = 1",
            (2, "weight = 1") => "weight = 3",
            (1, _) => "weight = 10000",
            _ => "weight = 30000",
        });
        let image = commit(&bench, &text, 1);
        let pool = &image.pools[0];
        let number = pool.members[0].id - pool.entry.member_base;
        let entries = pool
            .table
            .entries
            .iter()
            .filter(|entry| u32::from(**entry) == number)
            .count();
        let quarter = pool.table.entries.len() / 4;
        assert!(
            entries.abs_diff(quarter) <= 1,
            "{entries} of {}",
            pool.table.entries.len()
        );
        let hits = (1..=4000u16)
            .map(|port| by_table(&bench, &tcp(client(port), Flags::Syn, &[])))
            .filter(|decision| backend(&image, decision) == "web-1")
            .count();
        // 4,000 draws of 1/4: 1,000, standard deviation 27. Six of them.
        assert!((836..=1164).contains(&hits), "{hits} of 4000");
    }
}

/// 4,000 backends of weight 100 left some without an entry.
#[test]
fn defect_6_no_backend_goes_without() {
    let bench = Bench::new();
    let numbers: Vec<u8> = (1..=200).collect();
    let image = bench.image(&shop(&numbers));
    let pool = &image.pools[0];
    for member in &pool.members {
        let number = u16::try_from(member.id - pool.entry.member_base).unwrap();
        let entries = pool
            .table
            .entries
            .iter()
            .filter(|entry| **entry == number)
            .count();
        assert!((20..=21).contains(&entries), "{}: {entries}", member.name);
    }
}

/// Another hash for a VIP gave entries back to drained backends. Here every table of another size lacks
/// them, and no new flow goes there.
#[test]
fn defect_7_a_table_of_another_size_leaves_drained_backends_out() {
    let bench = Bench::new();
    let text = shop_with(&[1, 2, 3, 4], |n| match n {
        1 => "weight = 0",
        2 => "state = \"drain\"",
        _ => "",
    });
    for (change, size) in (1..).zip([4_099, 5_003, 6_007, 7_001]) {
        let services = text.replace("table_size = 4099", &format!("table_size = {size}"));
        let image = commit(&bench, &services, change);
        let pool = &image.pools[0];
        for member in pool.members.iter().filter(|member| member.drain) {
            let number = u16::try_from(member.id - pool.entry.member_base).unwrap();
            assert!(!pool.table.entries.contains(&number), "{}", member.name);
        }
        let mut seen = std::collections::BTreeSet::new();
        for port in 1..=200 {
            let decision = by_table(&bench, &tcp(client(port), Flags::Syn, &[]));
            seen.insert(backend(&image, &decision));
        }
        let expected = ["web-3", "web-4"].map(str::to_owned);
        assert_eq!(seen, expected.into(), "{size} entries");
    }
}

/// Patched without end-around carry, the checksum of an echo reply was wrong for 8 in 65,536
/// values: every value whose high or low byte carries is tried.
#[test]
fn defect_9_the_checksum_of_echo_replies_carries() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    let (client, vip) = (addr("198.51.100.7"), addr("203.0.113.1"));
    let wanted = (0xf7..=0xffu16)
        .flat_map(|byte| [byte << 8, byte << 8 | 0xff, byte | 0xff00, byte])
        .chain([0, 1, 0x07ff, 0x0800, 0x0801, 0x7fff, 0x8000]);
    let mut rows = Vec::new();
    for checksum in wanted {
        // The identifier that gives this checksum, in one's complement: all words sum to 0xffff.
        let sum = |id: u16| {
            let frame = echo_numbered(&Ip::default(), client, vip, false, id, &[]);
            u16::from_be_bytes([frame[36], frame[37]])
        };
        let guess = (!checksum).wrapping_sub(0x0805);
        let id = [guess, guess.wrapping_sub(1), guess.wrapping_add(1)]
            .into_iter()
            .find(|id| sum(*id) == checksum);
        let Some(id) = id else { continue };
        let answer = Ip {
            ttl: 64,
            ..Ip::default()
        };
        rows.push(Row::reply(
            "echo",
            Reason::EchoReply,
            echo_numbered(&Ip::default(), client, vip, false, id, &[]),
            turned(&echo_numbered(&answer, vip, client, true, id, &[])),
        ));
    }
    assert!(rows.len() > 30, "{}", rows.len());
    run(&bench, &image, &rows);
}

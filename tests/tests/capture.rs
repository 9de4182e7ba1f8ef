//! `lbguard capture`: packets that did not get through, and why; real ones, over the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use lb_common::sample::{SAMPLE_BYTES, SAMPLES};
use lb_tests::bench::Bench;
use lb_tests::packets::{Flags, Talk, tcp};
use lb_tests::services;
use lb_userspace::kernel::samples::Cursor;
use lb_userspace::lab::{Instance, Lab, VIP_V4, until};
use lb_userspace::simulate::pcap::Reader;
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Larger than what fits into a frame: the client's kernel makes fragments of it.
const LONG: [u8; 3_000] = [7; 3_000];

fn captured(instance: &Instance, more: &[&str]) -> Vec<Value> {
    let words = [&["--json", "capture"][..], more].concat();
    let output = instance.output(&words).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Fragments to a VIP are dropped; the agent is dead, and it is told all the same.
#[test]
fn packets_that_were_dropped_are_told_without_an_agent() {
    let lab = Lab::builder().backends("web", 1).build().unwrap();
    let hosts: Vec<_> = lab.backends().collect();
    let mut instance = Instance::new(&lab).unwrap();
    instance.start_agent().unwrap();
    let file = instance
        .write("next.toml", &services::everything("ipip", &hosts))
        .unwrap();
    let file = file.to_string_lossy().into_owned();
    instance
        .expect(&["apply", &file, "-m", "lab", "--detach"], 0)
        .unwrap();
    instance.expect(&["confirm"], 0).unwrap();
    assert_eq!(captured(&instance, &[]), Vec::<Value>::new());
    instance.stop_agent(Signal::SIGKILL).unwrap();
    let sent = lab.client().in_ns(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(&LONG, (VIP_V4, 53))
    });
    sent.unwrap().unwrap();
    let told = until("fragments", SOON, || {
        let told = captured(&instance, &["--reason", "fragment"]);
        (told.len() == 3).then_some(told)
    });
    for line in told.unwrap() {
        assert_eq!(line["reason"], "fragment", "{line}");
        assert_eq!(line["generation"], 1, "{line}");
        assert!(
            line["flow"].as_str().unwrap().contains("203.0.113.10"),
            "{line}"
        );
    }
    assert_eq!(captured(&instance, &["-n", "1"]).len(), 1);
    assert_eq!(captured(&instance, &["--reason", "no-backend"]).len(), 0);
    let text = instance.expect(&["capture"], 0).unwrap();
    assert!(
        text.lines()
            .all(|line| line.len() < 80 && line.contains("fragment")),
        "{text}"
    );

    let pcap = lab.root().join("dropped.pcap");
    let name = pcap.to_string_lossy().into_owned();
    instance.expect(&["capture", "-w", &name], 0).unwrap();
    let mut reader = Reader::new(std::fs::File::open(pcap).unwrap()).unwrap();
    let mut lengths = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        assert!(record.is_cut() || record.data.len() <= SAMPLE_BYTES);
        assert_eq!(&record.data[12..14], [8, 0], "an IPv4 frame");
        lengths.push(record.wire_length);
    }
    assert_eq!(lengths, [1514, 1514, 14 + 20 + 3_008 - 2 * 1_480]);
    let refused = instance.expect(&["capture", "--reason", "x"], 2).unwrap();
    assert!(refused.contains("no-next-hop"), "{refused}");
}

/// The ring comes round, a CPU is held to its share, and what gets through is not kept.
#[test]
fn a_flood_is_sampled_and_what_gets_through_is_not() {
    let bench = Bench::new();
    bench.commit(&lb_tests::bench::shop(1));
    bench.set_hop(1, 1500, true);
    let mut cursor = Cursor::default();
    let run = |port: u16| {
        let talk = Talk::new("198.51.100.7:1", "203.0.113.10:80").sender_port(port);
        bench
            .kernel
            .prober
            .run_unmarked(&tcp(talk, Flags::Syn, &[]))
            .unwrap();
    };
    (1..100).for_each(run);
    assert!(bench.kernel.maps.samples(&mut cursor).unwrap().is_empty());
    bench.set_hop(1, 1500, false);
    (1..1_000).for_each(run);
    let samples = bench.kernel.maps.samples(&mut cursor).unwrap();
    assert!(samples.len() >= 64, "{}", samples.len());
    assert!(samples.len() < 1_000, "{}", samples.len());
    assert!(samples.is_sorted_by(|a, b| a.number < b.number));
    assert!(samples.iter().all(|sample| sample.length == 54));
    until("the ring to come round", SOON, || {
        (1..200).for_each(run);
        let newest = bench.kernel.maps.samples(&mut cursor).unwrap();
        newest
            .last()
            .is_some_and(|sample| sample.number > u64::from(SAMPLES))
            .then_some(())
    })
    .unwrap();
    let all = bench.kernel.maps.samples(&mut Cursor::default()).unwrap();
    assert_eq!(all.len(), SAMPLES as usize);
}

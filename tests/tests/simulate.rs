//! `lbguard simulate`: captures in, lines and a capture out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lb_tests::packets::{self, Flags, Talk, tcp, udp};
use lb_userspace::simulate::pcap::{Reader, Record, Unit, Writer};
use serde_json::{Value, json};
use tempfile::TempDir;

const SERVICES: &str = r#"
version = 1
[[vip]]
name = "shop-v4"
service = "shop"
address = "203.0.113.10"
port = 80
protocol = "tcp"
pool = "shop-web"
[[vip]]
name = "dns-v6"
service = "dns"
address = "2001:db8::53"
port = 53
protocol = "udp"
pool = "dns"
[[pool]]
name = "shop-web"
service = "shop"
forward = "ipip"
table_size = 4099
[[pool.backend]]
name = "web-1"
address = "10.0.1.1"
weight = 100
[[pool]]
name = "dns"
service = "dns"
forward = "l2"
table_size = 4099
[[pool.backend]]
name = "ns-1"
address = "fd00::53"
weight = 100
"#;

struct Case {
    dir: TempDir,
}

impl Case {
    fn new(frames: &[Vec<u8>]) -> Self {
        let case = Self {
            dir: TempDir::new().unwrap(),
        };
        std::fs::write(case.path("services.toml"), SERVICES).unwrap();
        case.capture(frames.iter().map(|frame| whole(frame)));
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn capture(&self, records: impl IntoIterator<Item = Record>) {
        let file = File::create(self.path("in.pcap")).unwrap();
        let mut writer = Writer::new(file, Unit::Nanoseconds).unwrap();
        for (second, record) in (100..).zip(records) {
            writer
                .write(&Record {
                    seconds: second,
                    fraction: 7,
                    ..record
                })
                .unwrap();
        }
    }

    fn run(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lbguard-under-test"))
            .arg("--root")
            .arg(self.dir.path())
            .args(["simulate", "--config"])
            .arg(self.path("services.toml"))
            .arg("--pcap")
            .arg(self.path("in.pcap"))
            .args(more)
            .output()
            .unwrap()
    }

    fn lines(&self, more: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["--json"], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn whole(frame: &[u8]) -> Record {
    let wire_length = u32::try_from(frame.len()).unwrap();
    Record {
        wire_length,
        data: frame.to_vec(),
        ..Record::default()
    }
}

fn read(path: &Path) -> (Unit, Vec<Record>) {
    let mut reader = Reader::new(File::open(path).unwrap()).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push(record);
    }
    (reader.unit(), records)
}

fn shop(port: u16) -> Talk {
    Talk::new("198.51.100.7:1", "203.0.113.10:80").sender_port(port)
}

fn dns() -> Talk {
    Talk::new("[2001:db8:c::7]:999", "[2001:db8::53]:53")
}

#[test]
fn a_line_for_every_packet_and_a_packet_for_every_sent_one() {
    let big = tcp(shop(1), Flags::Ack, &[0; 1460]);
    let frames = [
        tcp(shop(1), Flags::Syn, &[]),
        udp(dns(), b"question"),
        packets::echo_request("198.51.100.7", "203.0.113.10", b"ping"),
        tcp(shop(1).receiver_port(81), Flags::Syn, &[]),
        big,
        vec![0; 13],
        tcp(shop(2), Flags::Ack, &[0; 4000]),
    ];
    let case = Case::new(&frames);
    let out = case.path("out.pcap");
    let lines = case.lines(&["--out", out.to_str().unwrap()]);
    let line = |n: u64, verdict: &str, vip: Value, backend: Value, reason: &str, out_len: u64| {
        json!({"n": n, "verdict": verdict, "vip": vip, "backend": backend, "reason": reason,
            "out_len": out_len})
    };
    assert_eq!(
        lines,
        [
            line(
                1,
                "tx",
                json!("shop-v4"),
                json!("web-1"),
                "forwarded",
                54 + 20
            ),
            line(2, "tx", json!("dns-v6"), json!("ns-1"), "forwarded", 62 + 8),
            line(3, "tx", Value::Null, Value::Null, "echo-reply", 46),
            line(4, "pass", Value::Null, Value::Null, "not-vip", 0),
            line(
                5,
                "tx",
                json!("shop-v4"),
                json!("web-1"),
                "too-big",
                14 + 28 + 504
            ),
            line(6, "pass", Value::Null, Value::Null, "runt", 0),
            line(7, "pass", Value::Null, Value::Null, "too-long", 0),
        ]
    );
    let (unit, sent) = read(&out);
    assert_eq!(unit, Unit::Nanoseconds);
    let stamps: Vec<_> = sent
        .iter()
        .map(|record| (record.seconds, record.fraction))
        .collect();
    assert_eq!(stamps, [(100, 7), (101, 7), (102, 7), (104, 7)]);
    // By l2 only the MAC addresses change, to the documented next hop.
    assert_eq!(packets::inner(&sent[1].data), packets::inner(&frames[1]));
    assert_eq!(sent[1].data[..6], [2, 0, 0, 0, 0, 0xfe]);
    // By ipip the packet is whole behind the outer header.
    assert_eq!(sent[0].data[34..], frames[0][14..]);
}

#[test]
fn the_next_hop_is_the_one_that_was_named() {
    let case = Case::new(&[udp(dns(), b"q")]);
    let out = case.path("out.pcap");
    case.lines(&[
        "--out",
        out.to_str().unwrap(),
        "--gateway-mac",
        "02:00:00:00:be:ef",
    ]);
    assert_eq!(read(&out).1[0].data[..6], [2, 0, 0, 0, 0xbe, 0xef]);
}

#[test]
fn the_same_input_gives_the_same_output() {
    // More echo requests than are answered at once in operation.
    let mut frames = vec![packets::echo_request("198.51.100.7", "203.0.113.10", b"ping"); 450];
    frames.extend((0..50).map(|port| tcp(shop(port), Flags::Syn, &[])));
    let case = Case::new(&frames);
    let (a, b) = (case.path("a.pcap"), case.path("b.pcap"));
    let first = case.lines(&["--out", a.to_str().unwrap()]);
    let second = case.lines(&["--out", b.to_str().unwrap()]);
    assert!(
        first[..450]
            .iter()
            .all(|line| line["reason"] == "echo-reply")
    );
    assert_eq!(first, second);
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn packets_that_the_capture_cut_are_runts() {
    let case = Case::new(&[]);
    let frame = tcp(shop(1), Flags::Syn, &[]);
    case.capture([Record {
        wire_length: 1500,
        ..whole(&frame)
    }]);
    let lines = case.lines(&[]);
    assert_eq!(
        (&lines[0]["verdict"], &lines[0]["reason"]),
        (&json!("pass"), &json!("runt"))
    );
}

#[test]
fn a_table_for_people() {
    let case = Case::new(&[tcp(shop(1), Flags::Syn, &[])]);
    let text = String::from_utf8(case.run(&[]).stdout).unwrap();
    let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words, ["1", "tx", "forwarded", "shop-v4", "web-1", "74"]);
    assert!(text.starts_with("      n  verdict"));
}

fn refused(case: &Case, more: &[&str], code: i32, says: &str) {
    let output = case.run(more);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(says), "{error}");
}

#[test]
fn refusals_name_the_way_out() {
    let case = Case::new(&[tcp(shop(1), Flags::Syn, &[])]);
    let input = case.path("in.pcap");
    let good = std::fs::read(&input).unwrap();
    refused(
        &case,
        &["--out", input.to_str().unwrap()],
        2,
        "both --pcap and --out",
    );
    assert_eq!(
        std::fs::read(&input).unwrap(),
        good,
        "the capture is as it was"
    );

    std::fs::write(&input, [0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0]).unwrap();
    refused(&case, &[], 3, "way out: editcap -F pcap IN OUT");
    let mut linux = good.clone();
    linux[20] = 113;
    std::fs::write(&input, linux).unwrap();
    refused(&case, &[], 3, "link type 113");
    std::fs::write(&input, &good[..good.len() - 1]).unwrap();
    refused(&case, &["--json"], 1, "the file ends within packet 1");
    std::fs::remove_file(&input).unwrap();
    refused(&case, &[], 1, "cannot read");

    std::fs::write(&input, &good).unwrap();
    std::fs::write(case.path("services.toml"), "version = 1\nnonsense = 2\n").unwrap();
    refused(&case, &[], 3, "services.toml:2");
}

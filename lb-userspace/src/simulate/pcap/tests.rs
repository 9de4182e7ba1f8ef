//! Round trips, both byte orders, and hostile files.

use super::*;
use proptest::prelude::*;

/// A file as another program may write it.
fn file(big_endian: bool, unit: Unit, link: u32, records: &[Record]) -> Vec<u8> {
    let number = |n: u32| {
        if big_endian {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let half = |n: u16| {
        if big_endian {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let magic = match unit {
        Unit::Microseconds => 0xa1b2_c3d4,
        Unit::Nanoseconds => 0xa1b2_3c4d,
    };
    let mut bytes = number(magic).to_vec();
    bytes.extend([half(2), half(4)].concat());
    bytes.extend([number(0), number(0), number(65_535), number(link)].concat());
    for record in records {
        let length = u32::try_from(record.data.len()).unwrap();
        let head = [record.seconds, record.fraction, length, record.wire_length].map(number);
        bytes.extend(head.concat());
        bytes.extend(&record.data);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<(Unit, Vec<Record>), PcapError> {
    let mut reader = Reader::new(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok((reader.unit(), records))
}

fn record() -> impl Strategy<Value = Record> {
    let data = prop::collection::vec(any::<u8>(), 0..200);
    (any::<u32>(), 0u32..1_000_000, data, 0u32..3000).prop_map(|(seconds, fraction, data, cut)| {
        let length = u32::try_from(data.len()).unwrap();
        Record {
            seconds,
            fraction,
            wire_length: length + cut,
            data,
        }
    })
}

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Microseconds), Just(Unit::Nanoseconds)]
}

proptest! {
    #[test]
    fn what_is_written_is_read(unit in unit(), records in prop::collection::vec(record(), 0..8)) {
        let mut writer = Writer::new(Vec::new(), unit).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        let bytes = writer.finish().unwrap();
        prop_assert_eq!(&bytes, &{
            let mut own = file(false, unit, 1, &records);
            own[16..20].copy_from_slice(&262_144u32.to_le_bytes());
            own
        });
        prop_assert_eq!(read(&bytes).unwrap(), (unit, records));
    }

    #[test]
    fn both_byte_orders_and_units(big: bool, unit in unit(), records in prop::collection::vec(record(), 0..8)) {
        prop_assert_eq!(read(&file(big, unit, 1, &records)).unwrap(), (unit, records));
    }

    /// A file that is cut anywhere gives the whole packets before the cut, and says that it is cut.
    #[test]
    fn cut_files(records in prop::collection::vec(record(), 1..5), cut: prop::sample::Index) {
        let bytes = file(false, Unit::Microseconds, 1, &records);
        let cut = cut.index(bytes.len());
        let mut ends = vec![24];
        for record in &records {
            ends.push(ends[ends.len() - 1] + 16 + record.data.len());
        }
        match read(&bytes[..cut]) {
            Ok((_, read)) => {
                prop_assert!(ends.contains(&cut));
                prop_assert_eq!(&read[..], &records[..read.len()]);
            }
            Err(PcapError::Truncated(_)) => prop_assert!(!ends.contains(&cut)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_bytes_are_survived(start in prop_oneof![Just(vec![]), Just(file(true, Unit::Nanoseconds, 1, &[]))], rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[start, rest].concat());
    }
}

/// A length of 4 GiB in a small file is refused before memory is asked for.
#[test]
fn lengths_are_not_believed() {
    for (length, packet) in [(u32::MAX, 1), (262_145, 1)] {
        let mut bytes = file(false, Unit::Microseconds, 1, &[]);
        for number in [0, 0, length, length] {
            bytes.extend(number.to_le_bytes());
        }
        match read(&bytes) {
            Err(PcapError::TooLong {
                packet: p,
                length: l,
            }) => {
                assert_eq!((p, l), (packet, length));
            }
            other => panic!("{other:?}"),
        }
    }
    // The longest that is taken, claimed by a file that has not got it.
    let mut bytes = file(false, Unit::Microseconds, 1, &[]);
    for number in [0, 0, 262_144u32, 262_144] {
        bytes.extend(number.to_le_bytes());
    }
    assert!(matches!(read(&bytes), Err(PcapError::Truncated(_))));
}

#[test]
fn other_formats_are_named_with_a_way_out() {
    let ng = [
        0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0x1c, 0x4d, 0x3c, 0x2b, 0x1a,
    ];
    let error = read(&ng).unwrap_err();
    assert_eq!(error.to_string(), "a pcapng file, not a pcap file");
    assert_eq!(error.remedy(), Some("editcap -F pcap IN OUT"));
    assert!(error.is_refusal());
    let gzip = read(&[0x1f, 0x8b, 8, 0]).unwrap_err();
    assert!(gzip.to_string().contains("gzip") && gzip.is_refusal());
    let text = read(b"version = 1\n").unwrap_err();
    assert_eq!(
        text.to_string(),
        "not a pcap file: it begins with 76 65 72 73"
    );
    for short in 0..4 {
        assert!(matches!(read(&ng[..short]), Err(PcapError::Truncated(_))));
    }
}

#[test]
fn other_link_types_are_refused_by_name() {
    for big in [false, true] {
        let error = read(&file(big, Unit::Microseconds, 113, &[])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("link type 113 (Linux \"any\" capture)"),
            "{error}"
        );
        assert!(error.is_refusal() && error.remedy().is_some());
        // Bits above the low 16 say how long frame check sequences are.
        assert!(read(&file(big, Unit::Microseconds, 0x4400_0001, &[])).is_ok());
    }
    let mut old = file(false, Unit::Microseconds, 1, &[]);
    old[4] = 1;
    assert!(matches!(read(&old), Err(PcapError::Version(1, 4))));
}

#[test]
fn packets_cut_by_the_capture_are_known() {
    let whole = Record {
        wire_length: 3,
        data: vec![1, 2, 3],
        ..Record::default()
    };
    assert!(!whole.is_cut());
    assert!(
        Record {
            wire_length: 4,
            ..whole.clone()
        }
        .is_cut()
    );
    // Some programs write a wire length that is too short.
    assert!(
        !Record {
            wire_length: 0,
            ..whole
        }
        .is_cut()
    );
}

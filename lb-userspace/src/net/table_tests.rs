use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::next_hop::{Resolved, Target, Via};
use super::table::NextHopTable;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target {
        address: ip(text),
        direct: false,
    }
}

fn resolved(via: Via) -> Resolved {
    Resolved {
        mac: THEIRS,
        source: OURS,
        interface: 2,
        vlan: 0,
        mtu: 1500,
        via,
    }
}

#[test]
fn a_gateway_has_one_number_and_a_new_mac_is_one_write() {
    let mut table = NextHopTable::new(8);
    let via = Via::Gateway(ip("10.0.1.1"));
    let first = table.set(target("10.0.2.11"), &resolved(via)).unwrap();
    assert_eq!((first.number, first.writes.len()), (1, 1));
    let second = table.set(target("10.0.2.12"), &resolved(via)).unwrap();
    assert_eq!((second.number, second.writes.len()), (1, 0));
    let moved = Resolved {
        mac: OTHER,
        ..resolved(via)
    };
    let writes = table.set(target("10.0.2.11"), &moved).unwrap().writes;
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].0, writes[0].1.destination), (1, OTHER));
    assert!(
        table
            .set(target("10.0.2.12"), &moved)
            .unwrap()
            .writes
            .is_empty()
    );
    let elsewhere = resolved(Via::Gateway(ip("10.0.1.2")));
    assert_eq!(
        table.set(target("10.0.2.12"), &elsewhere).unwrap().number,
        2
    );
}

#[test]
fn those_who_share_a_record_get_the_smallest_mtu() {
    let mut table = NextHopTable::new(8);
    let via = Via::Gateway(ip("10.0.1.1"));
    table.set(target("10.0.2.11"), &resolved(via)).unwrap();
    let small = Resolved {
        mtu: 1400,
        ..resolved(via)
    };
    let writes = table.set(target("10.0.2.12"), &small).unwrap().writes;
    assert_eq!(writes[0].1.mtu, 1400);
    assert!(
        table
            .set(target("10.0.2.11"), &resolved(via))
            .unwrap()
            .writes
            .is_empty()
    );
    let writes = table.retain(&[target("10.0.2.11")].into());
    assert_eq!((writes.len(), writes[0].1.mtu), (1, 1500));
}

#[test]
fn numbers_outlive_a_restart() {
    let mut before = NextHopTable::new(8);
    let hops = [("10.0.1.11", THEIRS), ("10.0.1.12", OTHER)];
    let resolve = |(address, mac): (&str, _)| Resolved {
        mac,
        ..resolved(Via::OnLink(ip(address)))
    };
    let mut kernel = std::collections::BTreeMap::new();
    for hop in hops.into_iter().rev() {
        kernel.extend(before.set(target(hop.0), &resolve(hop)).unwrap().writes);
    }
    let mut after = NextHopTable::new(8);
    for hop in hops {
        let number = before.number(target(hop.0)).unwrap();
        after.adopt(target(hop.0), number, &kernel[&number].as_next_hop(0));
    }
    for hop in hops {
        let placed = after.set(target(hop.0), &resolve(hop)).unwrap();
        assert_eq!(Some(placed.number), before.number(target(hop.0)));
        assert!(placed.writes.is_empty(), "{placed:?}");
    }
}

#[test]
fn a_full_table_says_so_and_room_is_made_by_retain() {
    let mut table = NextHopTable::new(2);
    let hop = |address| resolved(Via::OnLink(ip(address)));
    table.set(target("10.0.1.11"), &hop("10.0.1.11")).unwrap();
    table
        .set(target("10.0.1.12"), &hop("10.0.1.12"))
        .unwrap_err();
    assert_eq!(table.number(target("10.0.1.12")), None);
    assert!(table.retain(&BTreeSet::new()).is_empty());
    assert!(table.is_empty());
    assert_eq!(
        table
            .set(target("10.0.1.12"), &hop("10.0.1.12"))
            .unwrap()
            .number,
        1
    );
}

proptest! {
    /// Whatever happens, the kernel's record of each target's number is the target's next hop,
    /// and two different next hops never share a number.
    #[test]
    fn the_kernel_always_has_what_was_last_resolved(
        steps in proptest::collection::vec((0u8..6, 0u8..4, 0u8..3, 0u8..8), 1..60),
    ) {
        let mut table = NextHopTable::new(6);
        let mut kernel = std::collections::BTreeMap::new();
        let mut model = std::collections::BTreeMap::new();
        for (user, gateway, mtu, forget) in steps {
            let via = Via::Gateway(IpAddr::from([10, 0, 0, gateway]));
            let target = target(&format!("10.1.0.{user}"));
            if forget == 0 {
                model.remove(&target);
                kernel.extend(table.retain(&model.keys().copied().collect()));
            } else {
                let mtu = 1400 + u16::from(mtu);
                let hop = Resolved { mac: [2, 0, 0, 0, 0, gateway], mtu, ..resolved(via) };
                let placed = table.set(target, &hop).unwrap();
                prop_assert!(placed.number >= 1 && placed.number < 6);
                kernel.extend(placed.writes);
                model.insert(target, hop);
            }
            for (target, hop) in &model {
                let number = table.number(*target).unwrap();
                let record = kernel[&number];
                prop_assert_eq!(record.destination, hop.mac);
                let sharing = model.values().filter(|other| other.via == hop.via);
                prop_assert_eq!(Some(record.mtu), sharing.map(|other| other.mtu).min());
            }
        }
    }
}

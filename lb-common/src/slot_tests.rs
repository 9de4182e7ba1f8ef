use super::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use zerocopy::FromZeros;

/// Few addresses, so that two of them are often the same, or differ in one half.
fn addresses() -> impl Strategy<Value = Address> {
    let v4 = (0u8..3).prop_map(|last| Address::from(IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))));
    let v6 = (0u16..2, 0u16..2).prop_map(|(high, low)| {
        Address::from(IpAddr::V6(Ipv6Addr::new(
            0x2001, 0xdb8, high, 0, 0, 0, 0, low,
        )))
    });
    prop_oneof![v4, v6]
}

/// A number that is 0 as often as not.
fn mostly_nothing() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0u8), 1 => any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    /// Whole words say what the fields say, whatever stands beside them.
    #[test]
    fn a_plain_vip_is_one_by_its_fields(
        here in addresses(),
        there in addresses(),
        ports in (0u16..3, 0u16..3),
        protocols in (0u8..2, 0u8..2),
        kind in 0u8..3,
        modes in (mostly_nothing(), mostly_nothing(), mostly_nothing()),
        others in (any::<u16>(), any::<u16>(), any::<u32>(), any::<u8>(), any::<u8>(), any::<u16>()),
    ) {
        let entry = VipEntry {
            address: here,
            port: ports.0.to_be(),
            protocol: protocols.0,
            kind,
            flags: modes.0,
            formerly: modes.1,
            idle: modes.2,
            vip: others.0,
            pool: others.1,
            sealed_ppm: others.2,
            forward: others.3,
            on_dead: others.4,
            mtu: others.5,
            ..VipEntry::new_zeroed()
        };
        let by_fields = entry.kind == vip_kind::VIP
            && entry.is_plain()
            && entry.address == there
            && entry.port == ports.1.to_be()
            && entry.protocol == protocols.1;
        prop_assert_eq!(entry.is_plain_vip(&there, ports.1.to_be(), protocols.1), by_fields);
    }
}

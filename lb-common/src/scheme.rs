//! What a VIP's flags make of a flow: the key that it is remembered by, and the key that its
//! backend is chosen by.
//!
//! The packet path, the golden model and the tests ask here, so that they cannot disagree on what
//! a flag means. Each key is again a [`FlowKey`], with zeros for what does not count.

use crate::address::Address;
use crate::hash;
use crate::packet::FlowKey;
use crate::slot::vip_flag;

/// A client, whatever its port: all its flows to one VIP. `port` is the VIP's, 0 = any.
#[inline(always)]
pub const fn client(flow: &FlowKey, port: u16) -> FlowKey {
    FlowKey {
        source: flow.source,
        destination: flow.destination,
        source_port: 0,
        destination_port: port,
        protocol: flow.protocol,
    }
}

/// All that comes for one port of a VIP, from whomever.
#[inline(always)]
pub const fn port_alone(flow: &FlowKey) -> FlowKey {
    FlowKey {
        source: Address::from_words([0; 4]),
        destination: flow.destination,
        source_port: 0,
        destination_port: flow.destination_port,
        protocol: flow.protocol,
    }
}

/// What the flow table knows a flow by, under the VIP's flags.
#[inline(always)]
pub const fn remembered(flow: &FlowKey, flags: u8, port: u16) -> FlowKey {
    if flags & vip_flag::CLIENT_AFFINITY != 0 {
        client(flow, port)
    } else {
        *flow
    }
}

/// What the entry of the lookup table is chosen by.
#[inline(always)]
pub const fn placed(flow: &FlowKey, flags: u8, port: u16) -> FlowKey {
    if flags & vip_flag::HASH_DPORT != 0 {
        port_alone(flow)
    } else {
        remembered(flow, flags, port)
    }
}

/// Salt of flows that nothing remembers: the same for the whole change, so that a flow changes its
/// arm at most once, when the share rises past it. `generation` is ACTIVE's, which stays, and
/// `change` tells the changes made from it apart.
#[inline(always)]
pub const fn steady_salt(generation: u64, change: u32) -> u64 {
    hash::round(hash::round(1, generation), change as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(client: u32, source_port: u16, port: u16) -> FlowKey {
        FlowKey {
            source: Address::v4(client.to_be_bytes()),
            destination: Address::v4([203, 0, 113, 10]),
            source_port: source_port.to_be(),
            destination_port: port.to_be(),
            protocol: 6,
        }
    }

    proptest! {
        #[test]
        fn affinity_forgets_ports_and_nothing_else(a: u32, b: u32, ports: [u16; 4]) {
            let key = |client, source, port| {
                remembered(&flow(client, source, port), vip_flag::CLIENT_AFFINITY, 0)
            };
            prop_assert_eq!(key(a, ports[0], ports[1]), key(a, ports[2], ports[3]));
            prop_assert_eq!(key(a, ports[0], ports[1]) == key(b, ports[2], ports[3]), a == b);
        }

        /// Defect 4 of PARITY: what is chosen by must not be what is remembered by.
        #[test]
        fn hash_dport_chooses_by_the_port_and_remembers_whole_flows(a: u32, b: u32, ports: [u16; 3]) {
            let (one, other) = (flow(a, ports[0], ports[2]), flow(b, ports[1], ports[2]));
            let flags = vip_flag::HASH_DPORT;
            prop_assert_eq!(placed(&one, flags, 0), placed(&other, flags, 0));
            prop_assert_eq!(remembered(&one, flags, 0), one);
        }

        #[test]
        fn without_flags_a_flow_is_itself(a: u32, ports: [u16; 2], port: u16) {
            let one = flow(a, ports[0], ports[1]);
            for flags in [0, vip_flag::STATELESS, vip_flag::QUIC] {
                prop_assert_eq!(remembered(&one, flags, port), one);
                prop_assert_eq!(placed(&one, flags, port), one);
            }
        }
    }

    #[test]
    fn changes_draw_apart() {
        let salts: std::collections::BTreeSet<u64> = (0..50)
            .flat_map(|generation| (1..8).map(move |change| steady_salt(generation, change)))
            .collect();
        assert_eq!(salts.len(), 350);
    }
}

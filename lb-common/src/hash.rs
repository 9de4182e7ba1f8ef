//! Hashes of flows: one that picks the entry of a lookup table, one that tags flows.
//!
//! Both are the same keyed function. The key of the first is the fleet's seed, so that balancers
//! behind ECMP pick alike; the key of the second is drawn at load, so that nobody outside can aim
//! at a bucket of the flow table or at an arm. Multiply-and-fold rounds (MurmurHash3's finaliser,
//! Austin Appleby, public domain) because BPF has no wide multiply and no rotate.

use crate::address::Address;
use crate::packet::FlowKey;

const ROUND: u64 = 0xff51_afd7_ed55_8ccd;
const FINISH: u64 = 0xc4ce_b9fe_1a85_ec53;

/// Folds one word into a hash state.
#[inline(always)]
pub const fn round(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(ROUND);
    mixed ^ (mixed >> 32)
}

/// Ends a hash: every bit of the result depends on every bit of the state.
#[inline(always)]
pub const fn finish(state: u64) -> u64 {
    let mixed = (state ^ (state >> 29)).wrapping_mul(FINISH);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(ROUND);
    mixed ^ (mixed >> 29)
}

#[inline(always)]
const fn pair(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

/// Hash of a flow under a key.
#[inline(always)]
pub fn flow(key: u64, flow: &FlowKey) -> u64 {
    let ports = pair(
        (u32::from(flow.source_port) << 16) | u32::from(flow.destination_port),
        u32::from(flow.protocol),
    );
    let [s0, s1, s2, s3] = flow.source.words();
    let [d0, d1, d2, d3] = flow.destination.words();
    let mut state = round(key, ports);
    if !flow.destination.is_v4() {
        state = round(state, pair(s0, s1));
        state = round(state, pair(s2, d2));
        state = round(state, pair(d0, d1));
    }
    finish(round(state, pair(s3, d3)))
}

/// Maps a hash to an entry of a lookup table of `size` entries, evenly and without a division.
#[inline(always)]
pub const fn entry(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

/// Hash of a VIP's address, protocol and port, for the VIP table of a slot: one round more than that
/// of the [`address`], which a packet has asked for already.
#[inline(always)]
pub fn vip(key: u64, address: &Address, port: u16, protocol: u8) -> u64 {
    of_port(self::address(key, address), port, protocol)
}

/// [`vip`], from the hash of its address.
#[inline(always)]
pub const fn of_port(address: u64, port: u16, protocol: u8) -> u64 {
    round(address, (port as u64) << 8 | protocol as u64)
}

/// Hash of an address alone, for the filter that tells most foreign traffic from a VIP's.
#[inline(always)]
pub fn address(key: u64, address: &Address) -> u64 {
    let [a0, a1, a2, a3] = address.words();
    let mut state = key;
    if !address.is_v4() {
        state = round(state, pair(a0, a1));
        state = round(state, u64::from(a2) << 32);
    }
    let mixed = round(state, u64::from(a3)).wrapping_mul(FINISH);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(source: u32, port: u16) -> FlowKey {
        FlowKey {
            source: Address::v4(source.to_be_bytes()),
            destination: Address::v4([203, 0, 113, 10]),
            source_port: port.to_be(),
            destination_port: 80u16.to_be(),
            protocol: 6,
        }
    }

    /// Flows that differ only in low bits must still fill entries, tags and buckets evenly.
    #[test]
    fn neighbouring_flows_spread_evenly() {
        const CELLS: usize = 64;
        let shares: [fn(u64) -> usize; 3] = [
            |h| entry(h, CELLS as u32) as usize,
            |h| h as usize % CELLS,
            |h| (h >> 28) as usize % CELLS,
        ];
        for cell in shares {
            let mut counts = [0u32; CELLS];
            for client in 0..256u32 {
                for port in 0..256u16 {
                    counts[cell(flow(7, &key(0xc612_0000 + client, 32768 + port)))] += 1;
                }
            }
            let expected = 65536.0 / f64::from(u32::try_from(CELLS).unwrap());
            let chi: f64 = counts
                .iter()
                .map(|c| (f64::from(*c) - expected).powi(2) / expected)
                .sum();
            // 63 degrees of freedom: above 120 has a chance below 1e-5.
            assert!(chi < 120.0, "chi-square {chi}");
        }
    }

    proptest! {
        #[test]
        fn entry_stays_in_the_table(hash: u64, size in 1u32..2_000_000) {
            prop_assert!(entry(hash, size) < size);
        }

        #[test]
        fn every_field_matters(source: u32, port: u16, seed: u64, bit in 0u32..32) {
            let base = flow(seed, &key(source, port));
            prop_assert_ne!(base, flow(seed, &key(source ^ (1 << bit), port)));
            prop_assert_ne!(base, flow(seed, &key(source, port ^ (1 << (bit % 16)))));
            prop_assert_ne!(base, flow(seed, &FlowKey { protocol: 17, ..key(source, port) }));
        }
    }
}

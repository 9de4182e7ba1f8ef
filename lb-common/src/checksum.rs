//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are taken over 16-bit words *as loaded*, without byte-order conversion: one's complement
//! addition commutes with a byte swap (RFC 1071, 2 B), so the result is right when it is stored as
//! it was computed. Hence no function here converts, and none of its results may be.

/// Folds a sum to 16 bits with end-around carry, and complements it.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// A checksum after one 16-bit word it covers has changed (RFC 1624, equation 3). Words as loaded.
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    fold((!checksum as u64) + (!old as u64) + new as u64)
}

/// Sum of a 32-bit word as loaded, to be folded.
#[inline(always)]
pub const fn word(word: u32) -> u64 {
    word as u64
}

/// Sum of 4 bytes as they lie in memory.
#[inline(always)]
pub const fn quad(a: u8, b: u8, c: u8, d: u8) -> u64 {
    u32::from_ne_bytes([a, b, c, d]) as u64
}

/// Sum over a byte slice; an odd last byte is padded with zero.
pub fn bytes(data: &[u8]) -> u64 {
    data.chunks(2)
        .map(|pair| match *pair {
            [high, low] => u64::from(u16::from_ne_bytes([high, low])),
            [last] => u64::from(u16::from_ne_bytes([last, 0])),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn example_of_rfc_1071() {
        let sum = bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(fold(sum).to_ne_bytes(), (!0xddf2u16).to_be_bytes());
    }

    proptest! {
        /// The anchor's echo reply lost a carry for 8 in 65,536 values: every value must work here.
        #[test]
        fn update_equals_computing_anew(mut data in proptest::collection::vec(any::<u8>(), 4..64), new: u16) {
            if data.len() % 2 == 1 { data.push(0); }
            let before = fold(bytes(&data));
            let old = u16::from_ne_bytes([data[0], data[1]]);
            data[..2].copy_from_slice(&new.to_ne_bytes());
            let computed = fold(bytes(&data));
            let updated = update(before, old, new);
            // 0x0000 and 0xffff are the same number in one's complement.
            prop_assert!(updated == computed || (updated ^ computed) == 0xffff);
        }

        #[test]
        fn words_and_bytes_agree(data in proptest::collection::vec(any::<[u8; 4]>(), 1..32)) {
            let by_word: u64 = data.iter().map(|w| word(u32::from_ne_bytes(*w))).sum();
            let flat: Vec<u8> = data.concat();
            prop_assert_eq!(fold(by_word), fold(bytes(&flat)));
        }
    }

    #[test]
    fn echo_reply_of_every_checksum_verifies() {
        for rest in 0..=u16::MAX {
            let [high, low] = rest.to_be_bytes();
            let mut message = [8, 0, 0, 0, high, low, 0, 1];
            let sum = fold(bytes(&message)).to_ne_bytes();
            message[2..4].copy_from_slice(&sum);
            let old = u16::from_ne_bytes([8, 0]);
            let patched = update(u16::from_ne_bytes(sum), old, 0).to_ne_bytes();
            message[0] = 0;
            message[2..4].copy_from_slice(&patched);
            assert_eq!(fold(bytes(&message)), 0, "rest {rest:#x}");
        }
    }
}

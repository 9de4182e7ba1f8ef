//! The mark by which a health check says which backend it is for.
//!
//! A check is a packet of this host to a VIP; the BPF program `check` sends it to the backend that its
//! socket's mark names, as the balancer would send a client's.

use crate::MEMBER_BITS;

/// What the mark of every check begins with.
pub const MARK: u32 = 0x6c60_0000;
/// The bits that are compared with [`MARK`].
pub const MARK_MASK: u32 = !((1 << MEMBER_BITS) - 1);

/// The mark of checks for a member.
pub const fn mark(member: u32) -> u32 {
    MARK | (member & !MARK_MASK)
}

/// The member that a mark names; `None` if it is not one of ours.
#[inline(always)]
pub const fn member(mark: u32) -> Option<u32> {
    if mark & MARK_MASK == MARK {
        Some(mark & !MARK_MASK)
    } else {
        None
    }
}

const _: () = assert!(MARK & !MARK_MASK == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_members_and_foreign_ones_nobody() {
        for id in [1, 2, 77_000, (1 << MEMBER_BITS) - 1] {
            assert_eq!(member(mark(id)), Some(id));
        }
        for foreign in [0, 1, 0x6c50_0001, 0x6c64_0000, u32::MAX] {
            assert_eq!(member(foreign), None);
        }
    }
}

//! The packet as a [`Frame`]: the only place that holds pointers into packets, besides `rewrite`,
//! `icmp` and `guard`, which write them.

use aya_ebpf::programs::XdpContext;
use lb_common::wire::Frame;
use zerocopy::{FromBytes, IntoBytes, Unaligned};

/// No header lies further into a packet than this; it bounds offsets for the verifier.
const MAX_OFFSET: usize = 8_192;

/// The linear part of an XDP packet.
pub struct XdpFrame {
    start: usize,
    end: usize,
}

impl XdpFrame {
    /// The packet as it is now. Stale after any helper that moves its ends.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        if offset > MAX_OFFSET || self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the whole T lies before the end of the packet, any bytes are a T, and the read
        // asks for no alignment.
        Some(unsafe { ((self.start + offset) as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }
}

/// Writes `value` at `offset` of the packet; false if it ends before.
#[inline(always)]
pub fn write<T: IntoBytes + Unaligned + Copy>(ctx: &XdpContext, offset: usize, value: T) -> bool {
    let start = ctx.data();
    if offset > MAX_OFFSET || start + offset + size_of::<T>() > ctx.data_end() {
        return false;
    }
    // SAFETY: the whole T lies before the end of the packet; the write asks for no alignment.
    unsafe { ((start + offset) as *mut T).write_unaligned(value) };
    true
}

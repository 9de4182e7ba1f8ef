//! The packet as a [`Frame`]: the only place that holds pointers into packets, besides `rewrite`,
//! `icmp` and `guard`, which write them.
#![expect(
    clippy::cast_ptr_alignment,
    reason = "the kernel loads and stores misaligned words as the machine can; see `load`"
)]

use core::intrinsics::is_val_statically_known;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use lb_common::wire::Frame;
use zerocopy::{FromBytes, IntoBytes, Unaligned};

/// No header lies further into a packet than this; it bounds offsets for the verifier.
const MAX_OFFSET: usize = 8_192;

/// Address of the packet's first byte.
///
/// Read volatile: else the compiler passes the field instead of the context to functions that are
/// not inlined, and cuts it to 32 bits on the way, after which the verifier knows no pointer.
#[inline(always)]
pub fn start(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data).read_volatile() as usize }
}

/// Address after the packet's last byte.
#[inline(always)]
pub fn end(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data_end).read_volatile() as usize }
}

/// Address of the metadata before the packet.
#[inline(always)]
pub fn meta(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data_meta).read_volatile() as usize }
}

/// An XDP packet, of which the linear part can be read: all headers lie there.
pub struct XdpFrame {
    start: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl XdpFrame {
    /// The packet as it is now. Stale after any helper that moves its ends.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self {
            start: start(ctx),
            end: end(ctx),
            ctx: ctx.ctx,
        }
    }
}

impl XdpFrame {
    /// Copies three headers that follow each other from the packet's first byte on: one look at its
    /// end, and words that lie as the headers' fields do.
    #[inline(always)]
    pub fn read_headers<A, B, C>(&self) -> Option<(A, B, C)>
    where
        A: FromBytes + Unaligned + Copy,
        B: FromBytes + Unaligned + Copy,
        C: FromBytes + Unaligned + Copy,
    {
        let (second, third) = (size_of::<A>(), size_of::<A>() + size_of::<B>());
        if self.start + third + size_of::<C>() > self.end {
            return None;
        }
        // SAFETY: all three lie before the end of the packet, and any bytes are of their types.
        Some(unsafe {
            (
                load(self.start),
                load(self.start + second),
                load(self.start + third),
            )
        })
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<T: FromBytes + Unaligned + Copy>(&self, offset: usize) -> Option<T> {
        let offset = bounded(offset)?;
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the whole T lies before the end of the packet, and any bytes are a T.
        Some(unsafe { load(self.start + offset) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // Jumbo frames go on in fragments.
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
    }

    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        // All frames but jumbo ones are linear: that is a comparison, where the length is a call.
        self.start + bytes <= self.end || bytes <= self.length()
    }
}

/// An offset, if a header may lie there. One that the compiler does not know is read anew, so that what is
/// compared with the limit is what is added: older verifiers (Linux 6.1) do not see that a copy of it on the
/// stack is the same number.
#[inline(always)]
pub fn bounded(offset: usize) -> Option<usize> {
    let offset = if is_val_statically_known(offset) {
        offset
    } else {
        // SAFETY: a local.
        unsafe { (&raw const offset).read_volatile() }
    };
    (offset <= MAX_OFFSET).then_some(offset)
}

/// A local that words can be stored into.
#[repr(C, align(8))]
struct Aligned<T>(MaybeUninit<T>);

/// Copies the `T` at an address, a word at a time.
///
/// The compiler reads byte by byte what it thinks unaligned (the target knows no misaligned
/// access, and the feature that allows it also misaligns the stack, which the verifier refuses).
/// BPF loads are aligned or not as the machine below allows, and ours do: so this claims alignment.
///
/// # Safety
/// `size_of::<T>()` bytes at `at` must be readable, and any bytes must be a `T`.
#[inline(always)]
pub unsafe fn load<T>(at: usize) -> T {
    let mut value = Aligned(MaybeUninit::<T>::uninit());
    let to = (&raw mut value).cast::<u8>();
    let from = at as *const u8;
    let mut done = 0;
    // SAFETY: reads stay within the T by this function's contract, writes within `value`, all of
    // whose bytes are written.
    unsafe {
        while done + 4 <= size_of::<T>() {
            to.add(done)
                .cast::<u32>()
                .write(from.add(done).cast::<u32>().read());
            done += 4;
        }
        if size_of::<T>() & 2 != 0 {
            to.add(done)
                .cast::<u16>()
                .write(from.add(done).cast::<u16>().read());
            done += 2;
        }
        if size_of::<T>() & 1 != 0 {
            to.add(done).write(from.add(done).read());
        }
        value.0.assume_init()
    }
}

/// Stores a `T` at an address, a word at a time; see [`load`].
///
/// # Safety
/// `size_of::<T>()` bytes at `at` must be writable.
#[inline(always)]
pub unsafe fn store<T>(at: usize, value: T) {
    let value = Aligned(MaybeUninit::new(value));
    let from = (&raw const value).cast::<u8>();
    let to = at as *mut u8;
    let mut done = 0;
    // SAFETY: as in `load`, the other way round.
    unsafe {
        while done + 4 <= size_of::<T>() {
            to.add(done)
                .cast::<u32>()
                .write(from.add(done).cast::<u32>().read());
            done += 4;
        }
        if size_of::<T>() & 2 != 0 {
            to.add(done)
                .cast::<u16>()
                .write(from.add(done).cast::<u16>().read());
            done += 2;
        }
        if size_of::<T>() & 1 != 0 {
            to.add(done).write(from.add(done).read());
        }
    }
}

/// Writes `value` at `offset` of the packet; false if it ends before.
#[inline(always)]
pub fn write<T: IntoBytes + Unaligned + Copy>(ctx: &XdpContext, offset: usize, value: T) -> bool {
    let Some(offset) = bounded(offset) else {
        return false;
    };
    let start = start(ctx);
    if start + offset + size_of::<T>() > end(ctx) {
        return false;
    }
    // SAFETY: the whole T lies before the end of the packet.
    unsafe { store(start + offset, value) };
    true
}

/// Writes two headers at the packet's first byte; false if it ends before.
#[inline(always)]
pub fn write_headers<A, B>(ctx: &XdpContext, first: A, second: B) -> bool
where
    A: IntoBytes + Unaligned + Copy,
    B: IntoBytes + Unaligned + Copy,
{
    let start = start(ctx);
    if start + size_of::<A>() + size_of::<B>() > end(ctx) {
        return false;
    }
    // SAFETY: both lie before the end of the packet.
    unsafe {
        store(start, first);
        store(start + size_of::<A>(), second);
    }
    true
}

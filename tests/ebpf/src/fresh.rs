//! A new packet in the place of what the run before has left: ends, headers, the flow's address and port,
//! and checksums that fit.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;

use crate::shared::{HEADER_WORDS, HEADER_WORDS_V4, LAG, Traffic, YOUNG};

/// What is made, by CPU.
#[btf_map]
static TRAFFIC: PerCpuArray<Traffic, 1> = PerCpuArray::new();

/// Where the fields lie that differ from flow to flow.
struct Places {
    source: usize,
    destination: usize,
    port: usize,
}

/// Low half of the sender's address, low half of the receiver's, sender's port.
const V4: Places = Places {
    source: 28,
    destination: 32,
    port: 34,
};
const V6: Places = Places {
    source: 36,
    destination: 52,
    port: 54,
};
/// Header checksum of IPv4.
const V4_CHECKSUM: usize = 24;
/// Where checksums of TCP and UDP may lie.
const CHECKSUMS: [usize; 4] = [50, 40, 70, 60];
/// Ports below are left out.
const FIRST_PORT: u16 = 1_024;

/// Start of the packet; read volatile, as lb-ebpf's `packet.rs` says why.
#[inline(always)]
pub fn start(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data).read_volatile() as usize }
}

/// End of the packet.
#[inline(always)]
pub fn end(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data_end).read_volatile() as usize }
}

#[inline(always)]
fn meta(ctx: &XdpContext) -> usize {
    // SAFETY: the context is the program's own.
    unsafe { (&raw const (*ctx.ctx).data_meta).read_volatile() as usize }
}

/// Makes the next packet. None if the program before has left what can't be undone: metadata, an end that
/// was moved.
#[inline(always)]
pub fn next_packet(ctx: &XdpContext) -> Option<()> {
    let traffic = TRAFFIC.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element, which no other program has at the same time.
    let traffic = unsafe { &mut *traffic };
    let (flow, part) = next_flow(traffic);
    let words = match part {
        Part::Begins => &traffic.syn,
        Part::GoesOn => &traffic.plain,
        Part::Ends => &traffic.fin,
    };
    // SAFETY: the context is the program's own.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    let grown = (length as u32).wrapping_sub(traffic.length) as i32;
    // SAFETY: the context is the program's own; pointers into the packet are made after this.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) } != 0 {
        return None;
    }
    if meta(ctx) != start(ctx) {
        return None;
    }
    if traffic.is_v6 == 0 {
        let header = Header::<HEADER_WORDS_V4>::of(ctx)?;
        header.put(words);
        header.add_to_v4(flow, traffic);
        header.vary(&V4, flow, traffic)
    } else {
        let header = Header::<HEADER_WORDS>::of(ctx)?;
        header.put(words);
        header.vary(&V6, flow, traffic)
    }
}

/// What a packet is to its flow.
enum Part {
    Begins,
    GoesOn,
    Ends,
}

/// The flow of the next packet.
#[inline(always)]
fn next_flow(traffic: &mut Traffic) -> (u32, Part) {
    if traffic.every != 0 {
        let phase = traffic.phase;
        traffic.phase = if phase + 1 >= traffic.every {
            0
        } else {
            phase + 1
        };
        if phase == 0 {
            let flow = traffic.young;
            traffic.young = YOUNG | flow.wrapping_add(1) & (YOUNG - 1);
            return (flow, Part::Begins);
        }
        if phase <= traffic.more {
            let flow = traffic.young.wrapping_sub(LAG.wrapping_mul(phase));
            let part = if phase == traffic.more {
                Part::Ends
            } else {
                Part::GoesOn
            };
            return (YOUNG | flow & (YOUNG - 1), part);
        }
    }
    let number = traffic.next;
    traffic.next = number.wrapping_add(1);
    let flow = number.wrapping_mul(traffic.stride) & traffic.mask;
    (traffic.first | flow, Part::GoesOn)
}

/// The halves of a flow's number: of the sender's address, and its port.
#[inline(always)]
fn halves(flow: u32) -> (u16, u16) {
    ((flow >> 15) as u16, FIRST_PORT + (flow & 0x7fff) as u16)
}

/// Which VIP a flow goes to, above the first.
#[inline(always)]
fn vip(flow: u32, traffic: &Traffic) -> u16 {
    (flow & traffic.vip_mask) as u16
}

/// The first words of a packet, all of which are there.
#[derive(Clone, Copy)]
struct Header<const WORDS: usize>(usize);

impl<const WORDS: usize> Header<WORDS> {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Option<Self> {
        let start = start(ctx);
        if start + WORDS * 8 > end(ctx) {
            return None;
        }
        Some(Self(start))
    }

    #[inline(always)]
    fn put(self, words: &[u64; HEADER_WORDS]) {
        let to = self.0 as *mut u64;
        let mut word = 0;
        while word < WORDS {
            // SAFETY: `of` has compared; BPF stores are aligned or not as they come. Volatile, or else
            // the compiler makes one copy by bytes of it.
            unsafe { to.add(word).write_volatile(words[word]) };
            word += 1;
        }
    }

    #[inline(always)]
    fn add_to_v4(self, flow: u32, traffic: &Traffic) {
        let (address, _) = halves(flow);
        let more = u32::from(address) + u32::from(vip(flow, traffic));
        self.add_to_checksum(V4_CHECKSUM, more);
    }

    #[inline(always)]
    fn vary(self, places: &Places, flow: u32, traffic: &Traffic) -> Option<()> {
        let (address, port) = halves(flow);
        let vip = vip(flow, traffic);
        self.store(places.source, address);
        let first = self.load(places.destination);
        self.store(places.destination, first.wrapping_add(vip));
        self.store(places.port, port);
        let more = u32::from(address) + u32::from(port) + u32::from(vip);
        for at in CHECKSUMS {
            if traffic.checksum_at == at as u32 && at + 2 <= WORDS * 8 {
                self.add_to_checksum(at, more);
                return Some(());
            }
        }
        None
    }

    /// RFC 1624 for fields that were 0, or have grown without a carry.
    #[inline(always)]
    fn add_to_checksum(self, at: usize, more: u32) {
        let mut sum = u32::from(!self.load(at)) + more;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        self.store(at, !(sum as u16));
    }

    /// A half-word as a number.
    #[inline(always)]
    fn load(self, at: usize) -> u16 {
        // SAFETY: every place above lies within the words.
        u16::from_be(unsafe { ((self.0 + at) as *const u16).read() })
    }

    #[inline(always)]
    fn store(self, at: usize, value: u16) {
        // SAFETY: every place above lies within the words.
        unsafe { ((self.0 + at) as *mut u16).write(value.to_be()) };
    }
}

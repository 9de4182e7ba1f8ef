//! Test runs: the [`Probe`] in the metadata before a packet.

use aya_ebpf::programs::XdpContext;
use lb_common::probe::{Probe, probe_flag};

use crate::maps::PROBE_TOKEN;
use crate::packet;

/// What the packet at hand is asked, if it comes from a test run of ours.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Slot that shall decide.
    pub slot: Option<u32>,
    /// Whether flows are left alone.
    pub no_flows: bool,
}

/// Reads the probe. Packets from an interface carry no metadata, and never the token.
#[inline(always)]
pub fn asked(ctx: &XdpContext) -> Option<Asked> {
    let meta = packet::meta(ctx);
    if meta + size_of::<Probe>() > packet::start(ctx) {
        return None;
    }
    read(meta)
}

#[inline(always)]
fn read(meta: usize) -> Option<Asked> {
    // SAFETY: the caller has checked that the metadata is as long as a probe.
    let probe: Probe = unsafe { packet::load(meta) };
    if probe.token != PROBE_TOKEN.load() || probe.token == 0 {
        return None;
    }
    let slot = (probe.flags & probe_flag::OVERRIDE_SLOT != 0).then_some(u32::from(probe.slot));
    Some(Asked {
        slot,
        no_flows: probe.flags & probe_flag::NO_FLOWS != 0,
    })
}

/// Writes the answer into the metadata, which moves with the packet's head.
#[inline(always)]
pub fn answer(ctx: &XdpContext, answer: &Probe) {
    let meta = packet::meta(ctx);
    if meta + size_of::<Probe>() > packet::start(ctx) {
        return;
    }
    // SAFETY: just checked.
    unsafe { packet::store(meta, *answer) };
}

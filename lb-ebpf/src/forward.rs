//! The pipeline: parse, choose, send, count. Reads like the specification.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use lb_common::counter::{Reason, Verdict};
use lb_common::packet::{Kind, Packet, Role, Skip};
use lb_common::parse::parse;
use lb_common::probe::Probe;
use lb_common::slot::VipEntry;
use lb_common::{gue, tunnel_error};

use crate::control::{self, View};
use crate::maps::{PACKETS, VIEWS};
use crate::packet::XdpFrame;
use crate::pick::{self, Choice};
use crate::probe::Asked;
use crate::rewrite::Sent;
use crate::{count, fast, icmp, probe, reset, rewrite, samples, tracks, vips};

/// What was decided about a packet, for the answer to a test run.
#[derive(Clone, Copy)]
struct Outcome {
    reason: Reason,
    slot: u32,
    vip: u32,
    member: u32,
    followed: bool,
    /// Interface to redirect to; 0 = the one it came from.
    interface: u32,
}

impl Outcome {
    const fn of(reason: Reason, slot: u32) -> Self {
        Self {
            reason,
            slot,
            vip: 0,
            member: 0,
            followed: false,
            interface: 0,
        }
    }
}

/// Handles one packet: the short way if that is enough. Test runs get the long one, which answers.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    if probe::asked(ctx).is_none() {
        let verdict = fast::short_way(ctx.ctx);
        if verdict != fast::LONG {
            return verdict;
        }
    }
    long_way(ctx.ctx)
}

/// Handles any packet.
///
/// A global function beside [`fast::short_way`], so that neither has the other's stack below it.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn long_way(ctx: *mut xdp_md) -> u32 {
    let ctx = &XdpContext::new(ctx);
    let asked = probe::asked(ctx);
    let Some(packet) = at_hand(asked.is_some()) else {
        return xdp_action::XDP_PASS;
    };
    let outcome = match parse(&XdpFrame::new(ctx), packet) {
        Ok(kind) => handle(ctx, kind, packet, asked),
        Err(skip) => Outcome::of(skipped(skip), 0),
    };
    count::reason(count::set(outcome.slot, asked.is_some()), outcome.reason);
    if asked.is_some() {
        answer(ctx, &outcome);
    } else {
        samples::note(ctx, outcome.reason, outcome.slot);
    }
    action(&outcome)
}

/// The place of the packet at hand, empty.
///
/// In a map and not on the stack, so that the verifier forgets what parsing has found out: it walks
/// what follows once, and not for each kind of packet. Test runs have a place of their own, since older
/// kernels let packets interrupt them.
#[inline(always)]
fn at_hand(probed: bool) -> Option<&'static mut Packet> {
    let packet = PACKETS.get_ptr_mut(u32::from(probed))?;
    // SAFETY: this CPU's copy of a map element, and nothing else on this CPU holds it.
    unsafe {
        packet.write(Packet::EMPTY);
        Some(&mut *packet)
    }
}

/// The view in a map, as [`at_hand`] has the packet: the stack has no room for it.
#[inline(always)]
fn kept(view: View, probed: bool) -> Option<&'static View> {
    let kept = VIEWS.get_ptr_mut(u32::from(probed))?;
    // SAFETY: this CPU's copy of a map element, and nothing else on this CPU holds it.
    unsafe {
        kept.write(view);
        Some(&*kept)
    }
}

#[inline(always)]
fn handle(ctx: &XdpContext, kind: Kind, packet: &mut Packet, asked: Option<Asked>) -> Outcome {
    let Some(view) = view(asked) else {
        return Outcome::of(Reason::Unconfigured, 0);
    };
    let Some(view) = kept(view, asked.is_some()) else {
        return Outcome::of(Reason::Unconfigured, 0);
    };
    let by_gue =
        kind == Kind::Flow && gue::may_be_error(packet) && rewrite::is_outer_source(ctx, packet);
    if kind == Kind::Flow && !by_gue {
        return forward(ctx, view, packet, asked);
    }
    if by_gue && tunnel_error::inside_gue(&XdpFrame::new(ctx), packet).is_err() {
        return Outcome::of(Reason::TunnelError, view.active);
    }
    if kind == Kind::TunnelError || by_gue {
        return Outcome::of(tunnel_error(ctx, view, packet), view.active);
    }
    let reason = if !knows(view, &packet.flow.destination) {
        Reason::NotVip
    } else if kind == Kind::Echo {
        icmp::reply(ctx, packet)
    } else {
        Reason::Fragment
    };
    Outcome::of(reason, view.active)
}

/// An error about what was sent to a backend is the host's to read; a trial counts it (S7).
#[inline(always)]
fn tunnel_error(ctx: &XdpContext, view: &View, packet: &Packet) -> Reason {
    if !rewrite::is_outer_source(ctx, packet) {
        return Reason::Icmp;
    }
    if view.evidence {
        tracks::note_error(view, packet);
    }
    Reason::TunnelError
}

/// The state that decides; a test run may name another slot.
#[inline(always)]
fn view(asked: Option<Asked>) -> Option<View> {
    control::keep_timer();
    let view = control::view()?;
    match asked {
        Some(Asked {
            slot: Some(slot), ..
        }) => Some(View {
            active: slot,
            trial: false,
            evidence: false,
            mask: View::NOBODY,
            change: 0,
            ..view
        }),
        _ => Some(view),
    }
}

#[inline(always)]
const fn skipped(skip: Skip) -> Reason {
    match skip {
        Skip::NotIp => Reason::NotIp,
        Skip::Vlan => Reason::Vlan,
        Skip::Runt => Reason::Runt,
        Skip::Protocol => Reason::Protocol,
        Skip::Icmp => Reason::Icmp,
        Skip::Extensions => Reason::Extensions,
    }
}

/// Whether a VIP has this address, in either arm.
#[inline(always)]
fn knows(view: &View, address: &lb_common::address::Address) -> bool {
    vips::has_address(view.active, address)
        || (view.trial && vips::has_address(view.shadow, address))
}

#[inline(always)]
fn forward(ctx: &XdpContext, view: &View, packet: &mut Packet, asked: Option<Asked>) -> Outcome {
    let outcome = chosen(ctx, view, packet, asked);
    if view.trial && asked.is_none() {
        watch(view, packet, &outcome);
    }
    outcome
}

#[inline(always)]
fn chosen(ctx: &XdpContext, view: &View, packet: &mut Packet, asked: Option<Asked>) -> Outcome {
    let flows = !matches!(asked, Some(Asked { no_flows: true, .. }));
    let choice = pick::pick(ctx, view, packet, flows);
    let vip = choice.vip.map_or(0, |vip| u32::from(vip.vip) + 1);
    let mut outcome = Outcome {
        vip,
        ..Outcome::of(choice.reason, choice.slot)
    };
    let Some(vip) = choice.vip else {
        return outcome;
    };
    let set = count::set(choice.slot, asked.is_some());
    if choice.reason == Reason::FlowReset {
        outcome.reason = reset::reply(ctx, packet);
        return outcome;
    }
    if choice.member.is_none() {
        count::vip(set, vip.vip, |counters| counters.dropped += 1);
        return outcome;
    }
    // Between changes only what has a record: flows that are not sampled are not counted.
    if !choice.track.is_never() && (view.evidence || choice.track.has_place()) {
        tracks::note(ctx, view, packet, vip, &choice);
    }
    let sent = rewrite::send(
        ctx,
        packet,
        vip,
        (choice.member_id, choice.hash),
        asked.is_some(),
    );
    count(set, packet, vip, &choice, &sent);
    outcome.reason = match sent.reason {
        Reason::Forwarded => choice.reason,
        other => other,
    };
    outcome.member = choice.member_id;
    outcome.followed = choice.followed;
    outcome.interface = sent.interface;
    outcome
}

/// K8: during a trial, notes what is never right.
#[inline(always)]
fn watch(view: &View, packet: &Packet, outcome: &Outcome) {
    let hard = match outcome.reason {
        Reason::NoBackend | Reason::NoNextHop | Reason::Broken => true,
        Reason::Tombstone => !view.removes,
        _ => false,
    };
    if hard {
        count::hard_event(outcome.slot, &packet.flow.source);
        if view.evidence && outcome.vip != 0 {
            let arm = u32::from(outcome.slot == view.shadow);
            let own = outcome.vip.wrapping_sub(1) as u16;
            let vip = tracks::compared(view, packet, own, arm);
            tracks::count_hard(arm, vip.into());
        }
    }
}

#[inline(always)]
fn count(set: u32, packet: &Packet, vip: &VipEntry, choice: &Choice, sent: &Sent) {
    let bytes = u64::from(packet.ip_length);
    let forwarded = matches!(sent.reason.verdict(), Verdict::Forward);
    count::vip(set, vip.vip, |counters| {
        if forwarded {
            counters.packets += 1;
            counters.bytes += bytes;
            counters.followed += u64::from(choice.followed);
            counters.remembered += u64::from(choice.remembered);
            counters.syns += u64::from(packet.role == Role::Syn);
            counters.options += u64::from(packet.has_options);
        } else if matches!(sent.reason.verdict(), Verdict::Drop) {
            counters.dropped += 1;
        }
        counters.too_big += u64::from(sent.too_big);
    });
    if forwarded {
        count::member(set, choice.member_id, |counters| {
            counters.packets += 1;
            counters.bytes += bytes;
        });
    }
}

#[inline(always)]
fn answer(ctx: &XdpContext, outcome: &Outcome) {
    probe::answer(
        ctx,
        &Probe {
            reason: outcome.reason as u16,
            vip: outcome.vip,
            member: outcome.member,
            decided_by: outcome.slot as u8,
            followed: u8::from(outcome.followed),
            ..Probe::default()
        },
    );
}

#[inline(always)]
fn action(outcome: &Outcome) -> u32 {
    match outcome.reason.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Reply => xdp_action::XDP_TX,
        Verdict::Forward if outcome.interface == 0 => xdp_action::XDP_TX,
        Verdict::Forward => rewrite::redirect(outcome.interface),
    }
}

//! The pipeline: parse, choose, send, count. Reads like the specification.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use lb_common::counter::{Reason, Verdict};
use lb_common::packet::{Fragment, Packet, Parsed, Role, Skip};
use lb_common::parse::parse;
use lb_common::probe::Probe;

use crate::control::{self, View};
use crate::packet::XdpFrame;
use crate::pick::{self, Choice};
use crate::probe::Asked;
use crate::rewrite::Sent;
use crate::{count, icmp, probe, rewrite, vips};

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
        Self { reason, slot, vip: 0, member: 0, followed: false, interface: 0 }
    }
}

/// Handles one packet.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let asked = probe::asked(ctx);
    let outcome = match (parse(&XdpFrame::new(ctx)), view(asked)) {
        (Err(skip), _) => Outcome::of(skipped(skip), 0),
        (_, None) => Outcome::of(Reason::Unconfigured, 0),
        (Ok(Parsed::Packet(packet)), Some(view)) => forward(ctx, &view, &packet, asked),
        (Ok(Parsed::Echo(echo)), Some(view)) => {
            if knows(&view, &echo.destination) {
                Outcome::of(icmp::reply(ctx, &echo), view.active)
            } else {
                Outcome::of(Reason::NotVip, view.active)
            }
        }
        (Ok(Parsed::Fragment(fragment)), Some(view)) => {
            Outcome::of(fragmented(&view, &fragment), view.active)
        }
    };
    count::reason(count::set(outcome.slot, asked.is_some()), outcome.reason);
    if asked.is_some() {
        answer(ctx, &outcome);
    }
    action(&outcome)
}

/// The state that decides; a test run may name another slot.
#[inline(always)]
fn view(asked: Option<Asked>) -> Option<View> {
    let view = control::view()?;
    match asked {
        Some(Asked { slot: Some(slot), .. }) => {
            Some(View { active: slot, trial: false, change: 0, ..view })
        }
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
fn fragmented(view: &View, fragment: &Fragment) -> Reason {
    if knows(view, &fragment.destination) { Reason::Fragment } else { Reason::NotVip }
}

#[inline(always)]
fn forward(ctx: &XdpContext, view: &View, packet: &Packet, asked: Option<Asked>) -> Outcome {
    let flows = !matches!(asked, Some(Asked { no_flows: true, .. }));
    let probed = asked.is_some();
    let choice = match pick::pick(view, packet, flows) {
        Ok(choice) => choice,
        Err(miss) => {
            if let Some(vip) = miss.vip {
                count::vip(count::set(miss.slot, probed), vip.vip, |c| c.dropped += 1);
            }
            let vip = miss.vip.map_or(0, |vip| u32::from(vip.vip) + 1);
            return Outcome { vip, ..Outcome::of(miss.reason, miss.slot) };
        }
    };
    let sent = rewrite::send(ctx, packet, &choice);
    count(packet, &choice, &sent, probed);
    Outcome {
        reason: sent.reason,
        slot: choice.slot,
        vip: u32::from(choice.vip.vip) + 1,
        member: choice.member_id,
        followed: choice.followed,
        interface: sent.interface,
    }
}

#[inline(always)]
fn count(packet: &Packet, choice: &Choice, sent: &Sent, probed: bool) {
    let set = count::set(choice.slot, probed);
    let bytes = u64::from(packet.ip_length);
    let forwarded = matches!(sent.reason.verdict(), Verdict::Forward);
    count::vip(set, choice.vip.vip, |counters| {
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

#[inline(never)]
fn answer(ctx: &XdpContext, outcome: &Outcome) {
    probe::answer(ctx, &Probe {
        reason: outcome.reason as u16,
        vip: outcome.vip,
        member: outcome.member,
        decided_by: outcome.slot as u8,
        followed: u8::from(outcome.followed),
        ..Probe::default()
    });
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

//! Where a flow goes, by each generation in the kernel, and why: asked of the very program that
//! forwards, by test runs that remember nothing and count in a set of their own.

mod question;

use std::net::IpAddr;

use lb_common::control::NO_SLOT;
use lb_common::counter::Reason;
use lb_common::wire::ip_proto;
use serde::Serialize;

use crate::change::golden::packet::{Flow, Kind, build, frame};
use crate::kernel::KernelError;
use crate::kernel::maps::Maps;
use crate::kernel::probe::{Action, Ask, Decision, Prober};
use crate::kernel::readout::{SlotOut, read_slot};

pub use question::question;

/// IP length of the packets that are asked about: what is too long is another question.
const LENGTH: usize = 100;

/// What becomes of a flow.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The flow, in words.
    pub flow: String,
    /// Its next packet, if it is open already: by what is remembered of it, else as a stranger's.
    pub next_packet: Way,
    /// Whether the flow table remembers it.
    pub remembered: bool,
    /// A new flow of these addresses and ports, by each generation.
    pub new_flow: Vec<Way>,
}

/// Where a packet goes by a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// `active`, `last good` or `on trial`.
    pub role: &'static str,
    /// The generation.
    pub generation: u64,
    /// `tx`, `redirect`, `pass` or `drop`.
    pub verdict: &'static str,
    /// Why, as counters name it.
    pub reason: &'static str,
    /// The VIP that it is for.
    pub vip: Option<String>,
    /// Where it goes.
    pub backend: Option<Backend>,
}

/// A backend, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// `up`, `drain` or `down`.
    pub state: &'static str,
    /// MAC address that the packet is sent to.
    pub next_hop: Option<String>,
}

/// Slots that have a generation, and what each is.
struct Slots(Vec<(u8, &'static str, SlotOut)>);

impl Slots {
    fn read(maps: &Maps) -> Result<Self, KernelError> {
        let record = maps
            .record()?
            .ok_or_else(|| KernelError::NoAnswer("the guard has not been started".to_owned()))?;
        let on_trial = record.trial_lives(crate::sys::boot_ns());
        let shadow = if on_trial { record.shadow } else { NO_SLOT };
        let roles = [
            (record.active, "active"),
            (shadow, "on trial"),
            (record.lkg, "last good"),
        ];
        let there = roles.into_iter().filter(|(slot, _)| *slot != NO_SLOT);
        let read = there.map(|(slot, role)| Ok((slot, role, read_slot(maps, slot)?)));
        read.collect::<Result<_, KernelError>>().map(Self)
    }

    /// A decision in names.
    fn way(&self, decision: &Decision) -> Way {
        let slot = self.0.iter().find(|(slot, ..)| *slot == decision.slot);
        let out = slot.map(|(_, _, out)| out);
        let vip = decision.vip.and_then(|number| {
            let vips = out?.vips.iter();
            vips.clone().find(|vip| vip.number == number)
        });
        Way {
            role: slot.map_or("unknown", |(_, role, _)| role),
            generation: out.map_or(0, |out| out.generation),
            verdict: decision.action.as_str(),
            reason: decision.reason.map_or("unknown", Reason::label),
            vip: vip.map(|vip| vip.name.clone()),
            backend: out.and_then(|out| backend(out, decision)),
        }
    }
}

fn backend(slot: &SlotOut, decision: &Decision) -> Option<Backend> {
    let id = decision.member?;
    let of_pool = |pool: &crate::kernel::readout::PoolOut| {
        let found = pool.backends.iter().find(|backend| backend.id == id)?;
        Some(Backend {
            pool: pool.name.clone(),
            name: found.name.clone(),
            address: found.address,
            state: found.state,
            next_hop: decision.action.sends().then(|| mac(&decision.packet)),
        })
    };
    slot.pools.iter().find_map(of_pool)
}

/// The MAC address that a frame is sent to.
fn mac(frame: &[u8]) -> String {
    let bytes = frame.iter().take(6).map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(":")
}

/// Asks the program.
///
/// # Errors
/// If the maps cannot be read, or the program cannot be run.
pub fn explain(maps: &Maps, prober: &Prober, flow: &Flow) -> Result<Explained, KernelError> {
    let slots = Slots::read(maps)?;
    // An error about a flow is looked up like its packets, and never remembered.
    let ask = |kind, ask| prober.run(&frame(&build(flow, kind, LENGTH)), ask);
    let next = ask(Kind::Error, Ask::default())?;
    let first = if flow.protocol == ip_proto::TCP {
        Kind::Syn
    } else {
        Kind::Datagram
    };
    let mut new_flow = Vec::with_capacity(slots.0.len());
    for (slot, ..) in &slots.0 {
        let by_table = Ask {
            slot: Some(*slot),
            no_flows: true,
        };
        new_flow.push(slots.way(&ask(first, by_table)?));
    }
    Ok(Explained {
        flow: flow.to_string(),
        remembered: next.followed,
        next_packet: slots.way(&next),
        new_flow,
    })
}

impl Way {
    /// Whether the packet leaves for a backend.
    pub fn is_forwarded(&self) -> bool {
        [Action::Tx.as_str(), Action::Redirect.as_str()].contains(&self.verdict)
            && self.backend.is_some()
    }
}

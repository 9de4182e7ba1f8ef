//! Loading the BPF object: sizes, keys, frozen maps, pins.

use std::borrow::Cow;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::Map;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use lb_common::SLOTS;
use lb_common::evidence::ARMS;
use lb_common::flow::AGE_NS_SHIFT;
use lb_common::guard::{Op, Refusal};
use lb_common::slot::Node;
use sha2::{Digest as _, Sha256};
use zerocopy::IntoBytes;

use super::KernelError;
use super::guard::Guard;
use super::jiffies;
use super::link::FdInfo;
use super::maps::{Adoptable, FROZEN, Maps, TIMER};
use super::pins::Pins;
use super::probe::Prober;
use super::upgrade;
use super::verified;
use crate::sys;

/// The programs, the guard last.
pub(super) const PROGRAMS: [&str; 2] = ["lb", "guard"];

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb"));

/// The loaded object, or the pinned one.
pub struct Kernel {
    /// The guard.
    pub guard: Guard,
    /// The balancer, for test runs.
    pub prober: Prober,
    /// The maps.
    pub maps: Maps,
    /// What it was loaded with.
    pub node: Node,
    /// Whether the pinned programs were another version's and have been replaced.
    pub upgraded: bool,
}

/// What every change is held to, as the guard keeps it.
pub use lb_common::policy::Policy as Limits;

impl Kernel {
    /// Loads a copy of its own: unpinned, attached nowhere, gone when dropped.
    pub fn load_private(node: Node, limits: Limits) -> Result<Self, KernelError> {
        Self::load_ageing(node, limits, AGE_NS_SHIFT)
    }

    /// The same with flows that age by a step in 2^`age_shift` ns: for tests that would wait for minutes.
    pub fn load_ageing(node: Node, limits: Limits, age_shift: u32) -> Result<Self, KernelError> {
        let mut object = load(&node, None, age_shift)?;
        freeze(&object)?;
        let kernel = Self::assemble(&mut object, node)?;
        kernel.started(limits)
    }

    /// Loads and pins the object.
    pub fn load_pinned(pins: &Pins, node: Node, limits: Limits) -> Result<Self, KernelError> {
        // First, since a directory of ours would keep that version from starting in its turn.
        if let Some((path, found)) = pins.other_abi() {
            return Err(KernelError::OtherAbi { path, found });
        }
        pins.prepare()?;
        pins.clear_unfinished()?;
        let mut object = load(&node, None, AGE_NS_SHIFT)?;
        freeze(&object)?;
        pin_maps(&object, pins)?;
        pin_program(&mut object, pins, "lb")?;
        let kernel = Self::assemble(&mut object, node)?.started(limits)?;
        // The guard last, and started: whoever finds it finds everything.
        pin_program(&mut object, pins, "guard")?;
        Ok(kernel)
    }

    /// Takes over what is pinned, as a new session. Programs of another version are replaced
    /// where they run, without a packet lost.
    pub fn adopt(pins: &Pins, limits: Limits) -> Result<Self, KernelError> {
        let found = Adoptable::read(pins)?;
        upgrade::same_maps(pins, found.control_id)?;
        let kernel = if found.control.object == digest() {
            Self::open(pins)?
        } else {
            upgrade::replace(pins, found.node)?
        };
        kernel.started(limits)
    }

    /// Opens what is pinned.
    pub fn open(pins: &Pins) -> Result<Self, KernelError> {
        let guard = Guard::open(&pins.program("guard"))?;
        let maps = Maps::open(pins)?;
        let node = maps.node()?;
        let prober = Prober::open(&pins.program("lb"), node.probe_token)?;
        Ok(Self {
            guard,
            prober,
            maps,
            node,
            upgraded: false,
        })
    }

    pub(super) fn assemble(object: &mut Ebpf, node: Node) -> Result<Self, KernelError> {
        let guard = Guard::new(program(object, "guard")?);
        let prober = Prober::new(program(object, "lb")?, node.probe_token);
        let maps = Maps::from_source(object)?;
        Ok(Self {
            guard,
            prober,
            maps,
            node,
            upgraded: false,
        })
    }

    /// Tells the guard to start, as a session of its own, and that its programs are this object's.
    fn started(mut self, limits: Limits) -> Result<Self, KernelError> {
        self.start(digest())?;
        match self.guard.call(Op::SetPolicy, 0, &[], limits.as_bytes()) {
            // The policy that holds stays for as long as its trial.
            Err(KernelError::Refused(refused)) if refused.refusal == Refusal::TrialOn => {}
            outcome => {
                outcome?;
            }
        }
        Ok(self)
    }

    /// Makes the timer this guard's, and this the session whose commands are taken.
    pub(super) fn start(&mut self, object: u64) -> Result<(), KernelError> {
        self.guard.set_session(draw()?);
        let args = [jiffies::patience(self)?, object];
        self.guard
            .call(Op::Start, 0, &args, self.node.as_bytes())
            .map(drop)
    }
}

/// First 8 bytes of the SHA-256 of the object.
fn digest() -> u64 {
    let hash = Sha256::digest(OBJECT);
    hash.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// A random number that is not 0.
fn draw() -> Result<u64, KernelError> {
    let number = sys::random_u64().map_err(|e| KernelError::io("draw a random number", e))?;
    Ok(number.max(1))
}

/// Keys of a node, drawn anew.
pub fn draw_keys(node: Node) -> Result<Node, KernelError> {
    Ok(Node {
        tag_key: draw()?,
        probe_token: draw()?,
        ..node
    })
}

/// A program of the object.
pub(super) fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    object
        .program_mut(name)
        .ok_or_else(|| KernelError::Load(format!("the object has no program {name}")))?
        .try_into()
        .map_err(|e| KernelError::Load(format!("{name}: {e}")))
}

/// A handle of its own on a loaded program, which outlives the object.
fn program(object: &mut Ebpf, name: &str) -> Result<Xdp, KernelError> {
    let failed = |e| KernelError::Load(format!("{name}: {e}"));
    let info = xdp(object, name)?.info().map_err(failed)?;
    let name = Cow::Owned(name.to_owned());
    Xdp::from_program_info(info, name, XdpAttachType::Interface).map_err(failed)
}

/// Loads the object: with maps of its own, or with those that are pinned. Maps are taken by their
/// names; that their shapes agree is what the ABI number in the pins' path says.
pub(super) fn load(node: &Node, pins: Option<&Pins>, age_shift: u32) -> Result<Ebpf, KernelError> {
    let slots = u32::try_from(SLOTS).unwrap_or(3);
    let sets = slots.saturating_add(1);
    let arms = u32::try_from(ARMS).unwrap_or(2);
    let mut loader = EbpfLoader::new();
    for name in FROZEN.into_iter().chain([TIMER]) {
        if let Some(pins) = pins {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let sizes = [
        ("VIPS", node.vip_places.saturating_mul(slots)),
        ("POOLS", node.pools.saturating_mul(slots)),
        ("MEMBERS", node.members),
        ("TABLE_HEADERS", node.tables),
        ("TABLES", node.chunks),
        ("NEXT_HOPS", node.next_hops),
        ("VIP_NAMES", node.vips),
        ("PACES", node.vips),
        ("VIPS_TAKEN", node.vips),
        ("POOL_NAMES", node.pools),
        ("MEMBER_NAMES", node.members),
        ("FLOWS", node.flow_lines),
        ("VIP_COUNTS", node.vips.saturating_mul(sets)),
        ("MEMBER_COUNTS", node.members.saturating_mul(sets)),
        ("EVIDENCE", node.vips.saturating_mul(arms)),
        ("MEMBER_EVIDENCE", node.members.saturating_mul(arms)),
    ];
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    loader
        .override_global("TAG_KEY", &node.tag_key, true)
        .override_global("FLEET_KEY", &node.fleet_key, true)
        .override_global("PROBE_TOKEN", &node.probe_token, true)
        .override_global("VIP_PLACES", &node.vip_places, true)
        .override_global("VIPS_MAX", &node.vips, true)
        .override_global("POOLS_MAX", &node.pools, true)
        .override_global("MEMBERS_MAX", &node.members, true)
        .override_global("TABLES_MAX", &node.tables, true)
        .override_global("CHUNKS_MAX", &node.chunks, true)
        .override_global("NEXT_HOPS_MAX", &node.next_hops, true)
        .override_global("FLOW_LINES", &node.flow_lines, true)
        .override_global("FLOOD_RATE", &node.flood_rate, true)
        .override_global("AGE_SHIFT", &age_shift, true)
        .override_global("SOURCE_V4", &node.source_v4, true)
        .override_global("SOURCE_V4_MASK", &node.source_v4_mask, true)
        .override_global("SOURCE_V6", &node.source_v6[..], true)
        .override_global("SOURCE_V6_MASK", &node.source_v6_mask, true);
    let mut object = loader
        .load(OBJECT)
        .map_err(|e| KernelError::Load(chain(&e)))?;
    for name in PROGRAMS {
        verified::load(xdp(&mut object, name)?)
            .map_err(|e| KernelError::Load(format!("{name}: {}", chain(&e))))?;
    }
    Ok(object)
}

/// An error with its causes, in one line each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Freezes the maps; those that are frozen stay so.
pub(super) fn freeze(object: &Ebpf) -> Result<(), KernelError> {
    for name in FROZEN {
        let Some(Map::Array(data) | Map::PerCpuArray(data)) = object.map(name) else {
            return Err(KernelError::Map {
                name,
                why: "the object has none".to_owned(),
            });
        };
        let fd = data.fd().as_fd();
        let failed = |e| KernelError::io(format!("freeze map {name}"), e);
        if FdInfo::of(fd).map_err(failed)?.number("frozen") == 0 {
            sys::freeze_map(fd).map_err(failed)?;
        }
    }
    Ok(())
}

fn pin_maps(object: &Ebpf, pins: &Pins) -> Result<(), KernelError> {
    for name in FROZEN.into_iter().chain([TIMER]) {
        let map = object.map(name).ok_or_else(|| KernelError::Map {
            name,
            why: "the object has none".to_owned(),
        })?;
        let place = pins.map(name);
        map.pin(&place).map_err(|e| not_pinned(&place, &e))?;
    }
    Ok(())
}

fn pin_program(object: &mut Ebpf, pins: &Pins, name: &str) -> Result<(), KernelError> {
    let place = pins.program(name);
    xdp(object, name)?
        .pin(&place)
        .map_err(|e| not_pinned(&place, &e))
}

fn not_pinned(place: &Path, error: &dyn std::error::Error) -> KernelError {
    KernelError::Load(format!("pin {}: {}", place.display(), chain(error)))
}

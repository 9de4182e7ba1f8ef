//! The BPF program that puts health checks on the way of their backends' traffic.
//!
//! It is loaded beside what is pinned, reads the same maps, and is attached for as long as the agent
//! runs: without one nothing is checked.

use aya::programs::tc::qdisc_add_clsact;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use lb_common::slot::Node;

use super::KernelError;
use super::pins::Pins;

/// `lb-ebpf/src/check.rs`, as built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/check"));
/// Maps of the balancer that it reads.
const SHARED: [&str; 2] = ["MEMBERS", "NEXT_HOPS"];

/// The attached program. Dropping it detaches it.
#[derive(Debug)]
pub struct CheckProgram {
    _object: Ebpf,
}

impl CheckProgram {
    /// Loads it beside the pinned maps and attaches it to packets that leave by `interface`.
    pub fn attach(pins: &Pins, node: &Node, interface: &str) -> Result<Self, KernelError> {
        let failed = |e: &dyn std::error::Error| KernelError::Load(format!("check: {e}"));
        let mut loader = EbpfLoader::new();
        for name in SHARED {
            loader.map_pin_path(name, pins.map(name));
        }
        loader
            .override_global("SOURCE_V4", &node.source_v4, true)
            .override_global("SOURCE_V4_MASK", &node.source_v4_mask, true)
            .override_global("SOURCE_V6", &node.source_v6[..], true)
            .override_global("SOURCE_V6_MASK", &node.source_v6_mask, true);
        let mut object = loader.load(OBJECT).map_err(|e| failed(&e))?;
        let program: &mut SchedClassifier = object
            .program_mut("check")
            .ok_or_else(|| KernelError::Load("the object has no program check".to_owned()))?
            .try_into()
            .map_err(|e: aya::programs::ProgramError| failed(&e))?;
        program.load().map_err(|e| failed(&e))?;
        // Kernels before 6.6 attach by a qdisc, which may be there already.
        let _ = qdisc_add_clsact(interface);
        program
            .attach(interface, TcAttachType::Egress)
            .map_err(|e| failed(&e))?;
        Ok(Self { _object: object })
    }
}

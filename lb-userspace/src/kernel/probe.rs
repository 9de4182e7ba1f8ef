//! Test runs of the very program that is attached: a packet in, a decision and a packet out.

use std::path::Path;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::counter::Reason;
use lb_common::probe::{Probe, probe_flag};
use zerocopy::{FromBytes, IntoBytes};

use super::KernelError;

/// `struct xdp_md`, as a test run takes it.
#[repr(C)]
#[derive(Clone, Copy, zerocopy::IntoBytes, zerocopy::Immutable)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    rx_queue: u32,
    egress_interface: u32,
}

/// Shortest frame that a test run takes.
pub const SHORTEST: usize = 14;
/// Longest frame in one page beside headroom and tailroom.
pub const LONGEST: usize = 3_328;

/// The verdicts of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Error in the program.
    Aborted,
    /// Dropped.
    Drop,
    /// To the stack.
    Pass,
    /// Out by the interface it came from.
    Tx,
    /// Out by another.
    Redirect,
}

impl Action {
    /// From `enum xdp_action`.
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            _ => Self::Aborted,
        }
    }

    /// One word, as in read-outs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Tx => "tx",
            Self::Redirect => "redirect",
        }
    }

    /// Whether a packet leaves.
    pub const fn sends(self) -> bool {
        matches!(self, Self::Tx | Self::Redirect)
    }
}

/// What the program did with a packet.
#[derive(Clone, Debug)]
pub struct Decision {
    /// XDP verdict.
    pub action: Action,
    /// Why.
    pub reason: Option<Reason>,
    /// Number of the VIP.
    pub vip: Option<u16>,
    /// Member id of the backend.
    pub member: Option<u32>,
    /// Slot that decided.
    pub slot: u8,
    /// Whether the flow table was followed.
    pub followed: bool,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// How a packet is to be treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// Decide by this slot instead of the control word.
    pub slot: Option<u8>,
    /// Neither look flows up nor remember them.
    pub no_flows: bool,
}

/// The program `lb`, to be run on packets.
#[derive(Debug)]
pub struct Prober {
    program: Xdp,
    token: u64,
}

impl Prober {
    pub(super) fn new(program: Xdp, token: u64) -> Self {
        Self { program, token }
    }

    /// The pinned program; `token` as in the node's record.
    pub fn open(path: &Path, token: u64) -> Result<Self, KernelError> {
        let program = Xdp::from_pin(path, XdpAttachType::Interface)
            .map_err(|e| KernelError::Load(format!("{}: {e}", path.display())))?;
        Ok(Self::new(program, token))
    }

    /// Runs one frame of [`SHORTEST`] to [`LONGEST`] bytes.
    pub fn run(&self, frame: &[u8], ask: Ask) -> Result<Decision, KernelError> {
        let mut flags = 0;
        if ask.slot.is_some() {
            flags |= probe_flag::OVERRIDE_SLOT;
        }
        if ask.no_flows {
            flags |= probe_flag::NO_FLOWS;
        }
        let probe = Probe {
            token: self.token,
            slot: ask.slot.unwrap_or(0),
            flags,
            ..Probe::default()
        };
        let mut data = probe.as_bytes().to_vec();
        data.extend_from_slice(frame);
        let (action, mut out) = self.run_raw(&data)?;
        let answer = Probe::read_from_prefix(&out)
            .map(|(answer, _)| answer)
            .map_err(|_| KernelError::NoAnswer("the packet came back too short".to_owned()))?;
        if answer.token != 0 {
            return Err(KernelError::NoAnswer(
                "the program did not know the token".to_owned(),
            ));
        }
        out.drain(..size_of::<Probe>());
        Ok(Decision {
            action,
            reason: Reason::from_code(answer.reason),
            vip: answer
                .vip
                .checked_sub(1)
                .and_then(|vip| u16::try_from(vip).ok()),
            member: (answer.member != 0).then_some(answer.member),
            slot: answer.decided_by,
            followed: answer.followed != 0,
            packet: out,
        })
    }

    /// Runs a frame as if it had come by an interface: without a mark, so that it counts as traffic
    /// does, and nothing but the verdict and the packet afterwards is known.
    pub fn run_unmarked(&self, frame: &[u8]) -> Result<(Action, Vec<u8>), KernelError> {
        self.run_with(frame, 0)
    }

    /// Time of one run, ns, over `runs` runs on one frame, each of which gets what the one before
    /// made of it: only for frames that the program leaves as they are but for MAC addresses.
    pub fn time(&self, frame: &[u8], runs: u32) -> Result<u64, KernelError> {
        let mut out = vec![0u8; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: runs,
            ..TestRunOptions::default()
        };
        let result = self
            .program
            .test_run(options)
            .map_err(|e| KernelError::NoAnswer(format!("test run of the balancer: {e}")))?;
        Ok(u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Runs metadata and frame; returns the verdict and both afterwards.
    fn run_raw(&self, data: &[u8]) -> Result<(Action, Vec<u8>), KernelError> {
        self.run_with(data, size_of::<Probe>())
    }

    /// Runs data of which the first `meta` bytes are metadata.
    fn run_with(&self, data: &[u8], meta: usize) -> Result<(Action, Vec<u8>), KernelError> {
        let context = XdpMd {
            data: u32::try_from(meta).unwrap_or(0),
            data_end: u32::try_from(data.len()).unwrap_or(0),
            data_meta: 0,
            ingress_interface: 0,
            rx_queue: 0,
            egress_interface: 0,
        };
        let mut out = vec![0u8; data.len() + 256];
        let options = TestRunOptions {
            data_in: Some(data),
            data_out: Some(&mut out),
            ctx_in: Some(context.as_bytes()),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = self
            .program
            .test_run(options)
            .map_err(|e| KernelError::NoAnswer(format!("test run of the balancer: {e}")))?;
        out.truncate(result.data_size_out as usize);
        Ok((Action::from_code(result.return_value), out))
    }
}

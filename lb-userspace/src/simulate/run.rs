//! One configuration in the kernel, and packets through it.

use std::time::Duration;

use lb_common::control::SHARE_ALL;
use lb_common::counter::Reason;
use lb_common::guard::Op;
use lb_common::slot::{NextHop, next_hop_flag};
use serde::Serialize;
use zerocopy::{FromZeros, IntoBytes};

use super::pcap::Record;
use crate::config::{Config, Mac, NodeConfig, Policy, Tables};
use crate::kernel::image::Image;
use crate::kernel::object::Kernel;
use crate::kernel::probe::{Action, Ask, Decision, LONGEST, SHORTEST};
use crate::kernel::{KernelError, size, stage};

/// The largest IP packet towards backends: Ethernet's usual one.
pub const MTU: u16 = 1500;
/// The balancer's own MAC address: the source of what it sends on.
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The interface that test runs come in by, so that what is sent on is `tx`.
const INGRESS: u32 = 1;
/// The next hop that every backend has.
const HOP: u16 = 1;
/// More flows than this are not given a place of their own each.
const MAX_FLOWS: u64 = 1 << 23;
/// Times that a packet is run again when answers are rate limited.
const PATIENCE: u32 = 100;
/// Places of the VIP table depend on a key; this many keys are tried if one fills a corner.
const KEYS: u64 = 8;

/// What became of one packet; one line of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Number of the packet, from 1, as Wireshark's `frame.number`.
    pub n: u64,
    /// `tx`, `redirect`, `pass`, `drop` or `aborted`.
    pub verdict: &'static str,
    /// Name of the VIP it was for, if it was for one.
    pub vip: Option<String>,
    /// Name of the backend it goes to, if it goes to one.
    pub backend: Option<String>,
    /// Why: a [`Reason`]'s label, or `too-long` for what no interface hands to the program.
    pub reason: &'static str,
    /// Bytes of the frame that is sent; 0 if none is.
    pub out_len: usize,
    /// That frame.
    #[serde(skip)]
    pub packet: Option<Vec<u8>>,
}

/// A loaded copy of the program with one configuration and an empty flow table.
pub struct Simulation {
    kernel: Kernel,
    image: Image,
    packets: u64,
}

impl Simulation {
    /// Loads the program with `config`; `node` gives seed and outer sources. `most_packets` is how
    /// many may come: it sizes the flow table.
    pub fn new(
        config: &Config,
        node: &NodeConfig,
        gateway: Mac,
        most_packets: u64,
    ) -> Result<Self, KernelError> {
        let node = NodeConfig {
            tables: tables(config, most_packets),
            ..node.clone()
        };
        let mut key = 0;
        loop {
            key += 1;
            match Self::with_key(config, &node, gateway, key) {
                Err(KernelError::Capacity(_)) if key < KEYS => {}
                outcome => return outcome,
            }
        }
    }

    fn with_key(
        config: &Config,
        node: &NodeConfig,
        gateway: Mac,
        key: u64,
    ) -> Result<Self, KernelError> {
        let mut sizes = size::node(node)?;
        // Drawn anew in operation; the same each time here, so that outer sources are, too.
        sizes.tag_key = key;
        let kernel = Kernel::load_private(sizes, size::limits(&Policy::default()))?;
        put_hop(&kernel, gateway)?;
        let image = Image::build(config, node.fleet_seed, &kernel.maps, &|_, _| Some(HOP))?;
        let sealed = stage::stage(&kernel, &image, 1, 0)?;
        stage::verify(&kernel, &image, &sealed)?;
        let (salt, time, change) = (1, 60_000, 1);
        let trial = [u64::from(SHARE_ALL), salt, time, time, change];
        kernel.guard.call(Op::Trial, 0, &trial, &[])?;
        kernel.guard.call(Op::Confirm, 0, &[0], &[])?;
        Ok(Self {
            kernel,
            image,
            packets: 0,
        })
    }

    /// Runs the next packet.
    pub fn run(&mut self, record: &Record) -> Result<Outcome, KernelError> {
        self.packets = self.packets.saturating_add(1);
        if record.is_cut() || record.data.len() < SHORTEST {
            return Ok(self.passed(Reason::Runt.label()));
        }
        if record.data.len() > LONGEST {
            return Ok(self.passed("too-long"));
        }
        let decision = self.decide(&record.data)?;
        Ok(self.outcome(decision))
    }

    /// Runs a frame, again as long as only the rate limit of answers speaks against one.
    fn decide(&self, frame: &[u8]) -> Result<Decision, KernelError> {
        let mut decision = self.kernel.prober.run(frame, Ask::default())?;
        for _ in 0..PATIENCE {
            match decision.reason {
                Some(Reason::EchoLimited | Reason::TooBigLimited) => {}
                _ => break,
            }
            std::thread::sleep(Duration::from_millis(2));
            decision = self.kernel.prober.run(frame, Ask::default())?;
        }
        Ok(decision)
    }

    fn passed(&self, reason: &'static str) -> Outcome {
        Outcome {
            n: self.packets,
            verdict: Action::Pass.as_str(),
            vip: None,
            backend: None,
            reason,
            out_len: 0,
            packet: None,
        }
    }

    fn outcome(&self, decision: Decision) -> Outcome {
        let vip = decision.vip.and_then(|vip| self.image.vip_name(vip));
        let backend = decision
            .member
            .and_then(|member| self.image.member_name(member));
        let packet = decision.action.sends().then_some(decision.packet);
        Outcome {
            n: self.packets,
            verdict: decision.action.as_str(),
            vip: vip.map(str::to_owned),
            backend: backend.map(|(_, name)| name.to_owned()),
            reason: decision.reason.map_or("unknown", Reason::label),
            out_len: packet.as_ref().map_or(0, Vec::len),
            packet,
        }
    }
}

fn put_hop(kernel: &Kernel, gateway: Mac) -> Result<(), KernelError> {
    let hop = NextHop {
        destination: gateway.0,
        source: OWN_MAC,
        flags: next_hop_flag::RESOLVED,
        interface: INGRESS,
        mtu: MTU,
        ..NextHop::new_zeroed()
    };
    kernel
        .guard
        .call(Op::PutNextHops, 0, &[u64::from(HOP), 1], hop.as_bytes())
        .map(drop)
}

/// Tables that this configuration and so many packets fit into, and little more.
fn tables(config: &Config, most_packets: u64) -> Tables {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).max(1);
    let backends = config
        .pools
        .iter()
        .map(|pool| pool.backends.len().saturating_mul(2).max(16));
    let entries = config
        .pools
        .iter()
        .map(|pool| pool.table_size.next_multiple_of(32));
    let flows = most_packets.clamp(8192, MAX_FLOWS);
    Tables {
        vips: count(config.vips.len()),
        pools: count(config.pools.len()),
        backends: count(backends.sum()).saturating_add(16),
        lookup_entries: entries.fold(32, u32::saturating_add),
        flows: u32::try_from(flows).unwrap_or(u32::MAX),
        flood_rate: 0,
        nexthops: 4,
    }
}

//! A lab whose pinned balancer the test flips by the guard, its agent gone: as quickly as the
//! grace period of slots allows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::control::SHARE_ALL;
use lb_common::counter::{Reason, Verdict};
use lb_common::guard::Op;
use lb_tests::bench::LIMITS;
use lb_tests::loaded::bpf_pins;
use lb_tests::services::everything;
use lb_tests::steering::steer_client;
use lb_userspace::check::check;
use lb_userspace::config::NodeConfig;
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::object::Kernel;
use lb_userspace::kernel::stage::{stage, verify};
use lb_userspace::lab::{Host, Instance, Lab};
use nix::sys::signal::Signal;

/// Sets of backends' counters: one a slot.
const SETS: u32 = 3;

/// The balancer.
pub struct Field {
    pub lab: Lab,
    pub kernel: Kernel,
    node: NodeConfig,
    hops: BTreeMap<IpAddr, u16>,
}

impl Field {
    /// Four backends behind a balancer that an agent has set up and left.
    pub fn new() -> Self {
        let lab = Lab::builder()
            .backends("web", 4)
            .without_web()
            .build()
            .unwrap();
        // Else each packet goes all the way alone, on the CPU and in the time of its sender; so they are
        // taken by another, in batches, as those of a network card are.
        let cpus = std::thread::available_parallelism().unwrap().get();
        steer_client(&lab, cpus - 1);
        let file = lab.root().join("etc/lbguard/agent.toml");
        let agent = std::fs::read_to_string(&file).unwrap();
        let agent = agent.replace("flows = 65_536", "flows = 4_194_304");
        std::fs::write(&file, agent).unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let all: Vec<&Host> = lab.backends().collect();
        instance.commit(&everything("ipip", &all)).unwrap();
        instance.stop_agent(Signal::SIGTERM).unwrap();
        let kernel = Kernel::adopt(&bpf_pins(&lab), LIMITS).unwrap();
        let members = (0..kernel.node.members).filter_map(|id| kernel.maps.member(id));
        let hops = members
            .filter(|member| member.slots != 0)
            .map(|member| (IpAddr::from(member.address), member.next_hop))
            .collect();
        let node = NodeConfig::load(&file).unwrap();
        drop(instance);
        drop(all);
        Self {
            lab,
            kernel,
            node,
            hops,
        }
    }

    /// The image of a configuration with the backends `from..to`.
    pub fn image(&self, from: usize, to: usize) -> Image {
        let all: Vec<&Host> = self.lab.backends().collect();
        let report = check(
            &everything("ipip", &all[from..to]),
            "services.toml",
            &self.node,
        );
        let config = report.config.clone().expect("a good configuration");
        let hop = |_: &_, backend: &lb_userspace::config::Backend| {
            self.hops.get(&backend.address).copied()
        };
        Image::build(&config, self.node.fleet_seed, &self.kernel.maps, &hop).unwrap()
    }

    /// Stages and seals.
    pub fn stage(&self, image: &Image) {
        let record = self.kernel.maps.record().unwrap().unwrap();
        let generation = record.highest_generation.max(record.shadow_generation) + 1;
        let sealed = stage(&self.kernel, image, generation, record.active_generation).unwrap();
        verify(&self.kernel, image, &sealed).unwrap();
    }

    fn call(&self, op: Op, arguments: &[u64]) {
        let record = self.kernel.maps.record().unwrap().unwrap();
        let base = record.active_generation;
        self.kernel.guard.call(op, base, arguments, &[]).unwrap();
    }

    /// A share of new flows, of [`SHARE_ALL`], goes to SHADOW.
    pub fn trial(&self, share: u64, change: u64) {
        let share = share.min(u64::from(SHARE_ALL));
        self.call(Op::Trial, &[share, change, 60_000, 60_000, change]);
    }

    /// The flip.
    pub fn confirm(&self) {
        self.call(Op::Confirm, &[0]);
    }

    /// Ends the trial; with none, goes back to LKG.
    pub fn revert(&self) {
        self.call(Op::Revert, &[0]);
    }

    /// Datagrams forwarded, by all slots.
    pub fn forwarded(&self) -> u64 {
        let image = self.image(0, 4);
        let udp = image.vips.iter().filter(|vip| vip.name.ends_with("-udp"));
        let counted = |(set, number)| {
            let maps = &self.kernel.maps;
            maps.vip_counters(&self.kernel.node, set, number).unwrap()
        };
        udp.flat_map(|vip| (0..SETS).map(|set| (set, vip.entry.vip)))
            .map(|of| counted(of).packets)
            .sum()
    }

    /// Packets that were dropped or that no VIP took, by reason; those that take no part in
    /// balancing (ARP and the like) are left out.
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        let lost = |reason: &&Reason| {
            reason.verdict() == Verdict::Drop
                || matches!(reason, Reason::Tombstone | Reason::Unconfigured)
        };
        let count = |reason: &Reason| {
            let packets = |set| self.kernel.maps.reasons(set).unwrap().packets;
            (0..SETS).map(|set| packets(set)[*reason as usize]).sum()
        };
        Reason::ALL
            .iter()
            .filter(lost)
            .map(|reason| (reason.label(), count(reason)))
            .collect()
    }
}

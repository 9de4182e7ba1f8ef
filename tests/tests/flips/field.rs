//! A lab whose pinned balancer the test flips by the guard, its agent gone: as quickly as the
//! grace period of slots allows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::control::SHARE_ALL;
use lb_common::counter::{Reason, Verdict};
use lb_common::guard::Op;
use lb_tests::bench::LIMITS;
use lb_tests::loaded::bpf_pins;
use lb_tests::services::{self, Pool};
use lb_userspace::check::check;
use lb_userspace::config::NodeConfig;
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::object::Kernel;
use lb_userspace::kernel::stage::{stage, verify};
use lb_userspace::lab::{Host, Instance, Lab, VIP_V4};
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

/// One VIP for TCP and one for UDP, any port, both of one pool.
fn text(hosts: &[&Host]) -> String {
    let vip = |protocol| services::vip(protocol, "web", VIP_V4.into(), 0, protocol, "shop");
    let pool = Pool {
        name: "shop",
        service: "web",
        forward: "ipip",
        v6: false,
    };
    format!(
        "version = 1\n{}{}{}",
        vip("tcp"),
        vip("udp"),
        services::pool(pool, hosts)
    )
}

impl Field {
    /// Four backends behind a balancer that an agent has set up and left.
    pub fn new() -> Self {
        let lab = Lab::builder()
            .backends("web", 4)
            .without_web()
            .build()
            .unwrap();
        let file = lab.root().join("etc/lbguard/agent.toml");
        let agent = std::fs::read_to_string(&file).unwrap();
        let agent = agent.replace("flows = 65_536", "flows = 4_194_304");
        std::fs::write(&file, agent).unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let all: Vec<&Host> = lab.backends().collect();
        instance.commit(&text(&all)).unwrap();
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
        let report = check(&text(&all[from..to]), "services.toml", &self.node);
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

    /// Packets forwarded for a VIP, by all slots.
    pub fn forwarded(&self, vip: &str) -> u64 {
        let image = self.image(0, 4);
        let number = image.vips.iter().find(|image| image.name == vip);
        let number = number.expect("the VIP").entry.vip;
        let counted = |set| {
            let maps = &self.kernel.maps;
            maps.vip_counters(&self.kernel.node, set, number).unwrap()
        };
        (0..SETS).map(|set| counted(set).packets).sum()
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

    /// Packets that the lab's wires and queues have lost, which is no work of the balancer: drops of
    /// every host's interfaces. They happen when others have the processor.
    pub fn lost_on_wires(&self) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let drops = |line: &str| {
            let (_, counts) = line.split_once(':')?;
            let counts: Vec<u64> = counts
                .split_whitespace()
                .filter_map(|count| count.parse().ok())
                .collect();
            Some(counts.get(3)? + counts.get(11)?)
        };
        let host =
            |host: &Host| -> u64 { host.in_ns(read).unwrap().lines().filter_map(drops).sum() };
        self.lab.hosts().iter().map(host).sum()
    }
}

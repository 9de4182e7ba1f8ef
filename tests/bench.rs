//! A balancer of its own for one test: the real object, loaded unpinned and attached nowhere.

use std::fmt::Write as _;

use lb_common::control::SHARE_ALL;
use lb_common::guard::{Op, Refusal};
use lb_common::slot::{NextHop, next_hop_flag};
use lb_userspace::check::check;
use lb_userspace::config::{Config, Digest, FleetSeed, NodeConfig};
use lb_userspace::kernel::image::Image;
use lb_userspace::kernel::kept::Known;
use lb_userspace::kernel::object::{Kernel, Limits};
use lb_userspace::kernel::pins::Pins;
use lb_userspace::kernel::stage::{Sealed, stage, verify};
use lb_userspace::kernel::{KernelError, size};
use zerocopy::{FromZeros, IntoBytes};

/// Limits as the default policy has them, but for the velocity: tests are quicker than people.
pub const LIMITS: Limits = Limits {
    digest: [0; 32],
    r1_ppm: 100_000,
    r2_ppm: 340_000,
    max_deadline_ms: 3_600_000,
    flips: 0,
    flip_every_ms: 0,
    ejected_ppm: 1_000_000,
    hard_events: 3,
    reserved: 0,
    spent_ns: 0,
};

/// The MAC address of the only next hop.
pub const HOP: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// Its source MAC address.
pub const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

/// agent.toml of tests: small tables.
pub const AGENT: &str = r#"
version = 1
interfaces = ["lo"]
fleet_seed = "a seed for tests only"
encap_source_v4 = "172.16.0.0/16"
encap_source_v6 = "fd00:172::/64"
[tables]
vips = 64
pools = 64
backends = 2048
lookup_entries = 1048576
flows = 8192
nexthops = 16
"#;

/// The node that [`AGENT`] describes.
pub fn node() -> NodeConfig {
    NodeConfig::parse(AGENT.as_bytes(), "agent.toml").expect("agent.toml of tests")
}

/// A loaded balancer, generation 0 active.
pub struct Bench {
    /// The object.
    pub kernel: Kernel,
    node: NodeConfig,
}

impl Bench {
    /// Loads the object, with one resolved next hop that every backend has.
    pub fn new() -> Self {
        Self::with(LIMITS)
    }

    /// As [`Bench::new`], held to other limits.
    pub fn with(limits: Limits) -> Self {
        let sizes = size::node(&node()).expect("sizes");
        Self::of(Kernel::load_private(sizes, limits).expect("load"), node())
    }

    /// As [`Bench::new`], with flows that age by a step in 2^`age_shift` ns.
    pub fn ageing(age_shift: u32) -> Self {
        let sizes = size::node(&node()).expect("sizes");
        Self::of(
            Kernel::load_ageing(sizes, LIMITS, age_shift).expect("load"),
            node(),
        )
    }

    /// As [`Bench::new`], sized by another agent.toml.
    pub fn by(agent: &str) -> Self {
        let node = NodeConfig::parse(agent.as_bytes(), "agent.toml").expect("agent.toml");
        let sizes = size::node(&node).expect("sizes");
        Self::of(Kernel::load_private(sizes, LIMITS).expect("load"), node)
    }

    /// As [`Bench::new`], pinned.
    pub fn pinned(pins: &Pins) -> Self {
        Self::pinned_by(pins, AGENT)
    }

    /// As [`Bench::by`], pinned.
    pub fn pinned_by(pins: &Pins, agent: &str) -> Self {
        let node = NodeConfig::parse(agent.as_bytes(), "agent.toml").expect("agent.toml");
        let sizes = size::node(&node).expect("sizes");
        let kernel = Kernel::load_pinned(pins, sizes, LIMITS).expect("load and pin");
        Self::of(kernel, node)
    }

    /// A balancer that has been started.
    fn of(kernel: Kernel, node: NodeConfig) -> Self {
        let bench = Self { kernel, node };
        bench.set_hop(1, 1500, true);
        bench
    }

    /// Writes a next hop on interface 1.
    pub fn set_hop(&self, number: u64, mtu: u16, resolved: bool) {
        self.set_hop_by(number, 1, mtu, resolved);
    }

    /// Writes a next hop on this interface.
    pub fn set_hop_by(&self, number: u64, interface: u32, mtu: u16, resolved: bool) {
        let hop = NextHop {
            destination: HOP,
            source: OWN,
            interface,
            mtu,
            flags: if resolved { next_hop_flag::RESOLVED } else { 0 },
            ..NextHop::new_zeroed()
        };
        self.kernel
            .guard
            .call(Op::PutNextHops, 0, &[number, 1], hop.as_bytes())
            .expect("next hop");
    }

    /// The checked configuration; every finding but errors is ignored.
    pub fn config(&self, services: &str) -> Config {
        let report = check(services, "services.toml", &self.node);
        report
            .config
            .clone()
            .unwrap_or_else(|| panic!("{:#?}", report.findings))
    }

    /// The image of a configuration, every backend behind next hop 1.
    pub fn image(&self, services: &str) -> Image {
        self.image_of(&self.config(services))
    }

    /// The image of a configuration, every backend behind next hop 1.
    pub fn image_of(&self, config: &Config) -> Image {
        Image::build(config, self.seed(), &self.kernel.maps, &|_, _| Some(1)).expect("image")
    }

    /// The same when `committed` is in ACTIVE, as an agent knows it.
    pub fn image_after(&self, known: &Known, config: &Config, digest: Digest) -> Image {
        let (maps, seed) = (&self.kernel.maps, self.seed());
        Image::after(Some(known), config, digest, seed, maps, &|_, _| Some(1)).expect("image")
    }

    /// The fleet's seed.
    pub fn seed(&self) -> FleetSeed {
        self.node.fleet_seed
    }

    /// Generation in ACTIVE.
    pub fn active(&self) -> u64 {
        self.record().active_generation
    }

    /// The current control record.
    pub fn record(&self) -> lb_common::control::ControlRecord {
        self.kernel.maps.record().expect("record").expect("started")
    }

    /// Stages an image on top of ACTIVE and reads it back.
    pub fn stage(&self, image: &Image) -> Result<Sealed, KernelError> {
        let record = self.record();
        let generation = record.highest_generation.max(record.shadow_generation) + 1;
        let sealed = stage(&self.kernel, image, generation, record.active_generation)?;
        verify(&self.kernel, image, &sealed)?;
        Ok(sealed)
    }

    /// Puts SHADOW on trial with all new flows.
    pub fn trial(&self, change: u64) -> Result<(), KernelError> {
        self.trial_of(u64::from(SHARE_ALL), change, 60_000, 60_000)
    }

    /// Puts SHADOW on trial.
    pub fn trial_of(
        &self,
        share: u64,
        change: u64,
        lease: u64,
        deadline: u64,
    ) -> Result<(), KernelError> {
        self.kernel
            .guard
            .call(
                Op::Trial,
                self.active(),
                &[share, 0x5eed, lease, deadline, change],
                &[],
            )
            .map(drop)
    }

    /// Commits the trial.
    pub fn confirm(&self) -> Result<(), KernelError> {
        self.kernel
            .guard
            .call(Op::Confirm, self.active(), &[0], &[])
            .map(drop)
    }

    /// Goes back.
    pub fn revert(&self) -> Result<(), KernelError> {
        self.kernel.guard.call(Op::Revert, 0, &[0], &[]).map(drop)
    }

    /// Stages, tries and commits a configuration.
    pub fn commit(&self, services: &str) -> Image {
        let image = self.image(services);
        self.stage(&image).expect("stage");
        self.trial(1).expect("trial");
        self.confirm().expect("confirm");
        image
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// What the guard refused; `None` if it did as told.
pub fn refusal(outcome: Result<impl Sized, KernelError>) -> Option<Refusal> {
    match outcome {
        Ok(_) => None,
        Err(KernelError::Refused(refused)) => Some(refused.refusal),
        Err(other) => panic!("{other}"),
    }
}

/// services.toml with one VIP and one pool of `backends` backends.
pub fn shop(backends: usize) -> String {
    let mut text = String::from(
        r#"version = 1
[[vip]]
name = "shop-v4"
service = "shop"
address = "203.0.113.10"
port = 80
protocol = "tcp"
pool = "shop-web"
[[pool]]
name = "shop-web"
service = "shop"
forward = "ipip"
table_size = 4099
"#,
    );
    for number in 1..=backends {
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"web-{number}\"\naddress = \"10.0.1.{number}\"\nweight = 100\n"
        );
    }
    text
}

//! The BPF programs of the benchmarks: loaded, fed, run.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use lb_common::slot::Node;
use lb_userspace::kernel::probe::Action;
use zerocopy::IntoBytes as _;

use crate::measure::shared::{FLOWS, REALS, RING, SEEN_KINDS, SOURCE, Seen, Traffic, VipKey};
use crate::measure::workload::{TCP_PORT, UDP_PORT, VIP_V4};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// Bytes of [`Traffic`].
const TRAFFIC_LEN: usize = size_of::<Traffic>();
/// Frames that the kernel makes at a time.
const BATCH: u32 = 64;

/// A handle of its own on a loaded program.
fn handle(object: &Ebpf, name: &'static str) -> Xdp {
    let program = object.program(name).expect("a program of the object");
    let program: &Xdp = program.try_into().expect("an XDP program");
    let info = program.info().expect("program info");
    Xdp::from_program_info(info, Cow::Borrowed(name), XdpAttachType::Interface).expect("a handle")
}

/// What became of the last packet of a run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Verdict.
    pub action: Action,
    /// The packet.
    pub packet: Vec<u8>,
    /// ns a packet by the kernel's count, which leaves out when others had the CPU.
    pub ns: f64,
}

/// The loaded programs.
pub struct Programs {
    object: Ebpf,
    shim: Xdp,
    make: Xdp,
    target: ProgramArray<MapData>,
    traffic: PerCpuArray<MapData, [u8; TRAFFIC_LEN]>,
    seen: PerCpuArray<MapData, u64>,
}

impl Programs {
    /// Loads them; the floor that remembers does so for `flows` flows.
    pub fn load(flows: u32) -> Self {
        let mut loader = EbpfLoader::new();
        assert!(flows as usize <= FLOWS, "{flows} flows");
        loader.map_max_entries("FLOOR_FLOWS", flows);
        let mut object = loader.load(OBJECT).expect("the object of the benchmarks");
        for (name, program) in object.programs_mut() {
            let program: &mut Xdp = program.try_into().expect("an XDP program");
            program.load().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let mut take = |name: &str| -> Map {
            object
                .take_map(name)
                .unwrap_or_else(|| panic!("no map {name}"))
        };
        let target = take("TARGET").try_into().expect("TARGET");
        let traffic = take("TRAFFIC").try_into().expect("TRAFFIC");
        let seen = take("SEEN").try_into().expect("SEEN");
        let mut programs = Self {
            shim: handle(&object, "shim"),
            make: handle(&object, "make"),
            object,
            target,
            traffic,
            seen,
        };
        programs.fill_floors();
        programs
    }

    /// The floors' VIPs, lookup table and backends.
    fn fill_floors(&mut self) {
        fn map<'a, T: TryFrom<&'a mut Map>>(object: &'a mut Ebpf, name: &str) -> T {
            let map = object.map_mut(name).expect("a map of the object");
            map.try_into().ok().expect("of this kind")
        }
        let mut vips: HashMap<_, [u8; size_of::<VipKey>()], u64> =
            map(&mut self.object, "FLOOR_VIPS");
        for (protocol, port) in [(6, TCP_PORT), (17, UDP_PORT)] {
            let key = VipKey {
                address: VIP_V4.octets(),
                port: port.to_be_bytes(),
                protocol,
                reserved: 0,
            };
            let key: [u8; size_of::<VipKey>()] = key.as_bytes().try_into().expect("its size");
            vips.insert(key, 0, 0).expect("a VIP");
        }
        let count = u32::try_from(floor_backends().count()).expect("few");
        let mut ring: Array<_, u32> = map(&mut self.object, "FLOOR_RING");
        for entry in 0..RING {
            let number = entry.wrapping_mul(2_654_435_761) >> 8;
            ring.set(entry, 1 + number % count, 0).expect("an entry");
        }
        let mut reals: Array<_, u32> = map(&mut self.object, "FLOOR_REALS");
        assert!(count < REALS);
        for (number, address) in (1..).zip(floor_backends()) {
            let word = u32::from_ne_bytes(address.octets());
            reals.set(number, word, 0).expect("a backend");
        }
    }

    /// A handle on one of them.
    pub fn program(&self, name: &'static str) -> Xdp {
        handle(&self.object, name)
    }

    /// Has the shim go on with this program.
    pub fn aim(&mut self, program: &Xdp) {
        let fd = program.fd().expect("a loaded program");
        self.target
            .set(0, fd, 0)
            .expect("the kernel lets the shim call it");
    }

    /// The packets that are made from here on, on every CPU.
    pub fn feed(&mut self, traffic: &Traffic) {
        self.feed_each(&vec![*traffic; cpus()]);
    }

    /// The packets that each CPU makes from here on.
    pub fn feed_each(&mut self, traffic: &[Traffic]) {
        let bytes = traffic
            .iter()
            .map(|of_cpu| of_cpu.as_bytes().try_into().expect("its size"));
        let values = PerCpuValues::try_from(bytes.collect::<Vec<_>>()).expect("one a CPU");
        self.traffic.set(0, values, 0).expect("traffic");
    }

    /// What is made now, by CPU.
    pub fn fed(&self) -> Vec<Traffic> {
        let values = self.traffic.get(&0, 0).expect("traffic");
        let read = |bytes: &[u8; TRAFFIC_LEN]| {
            <Traffic as zerocopy::FromBytes>::read_from_bytes(bytes).expect("its size")
        };
        values.iter().map(read).collect()
    }

    /// Runs `packets` packets of what is fed through the program that is aimed at, as if they had come
    /// by the interface with this index.
    pub fn run(&self, frame_length: usize, packets: u32, interface: u32) -> Ran {
        let frame = vec![0; frame_length];
        let mut out = vec![0; frame_length + 256];
        let context = context(frame_length, interface);
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let result = self.shim.test_run(options).expect("a test run of the shim");
        out.truncate(result.data_size_out as usize);
        Ran {
            action: Action::from_code(result.return_value),
            packet: out,
            ns: result.duration.as_secs_f64() * 1e9,
        }
    }

    /// Sends `packets` packets of what is fed out by an interface; how long that took.
    pub fn send(&self, frame_length: usize, packets: u32, interface: u32) -> Duration {
        let frame = vec![0; frame_length];
        let context = context(frame_length, interface);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let began = Instant::now();
        self.make.test_run(options).expect("live frames");
        began.elapsed()
    }

    /// What has come to sinks.
    pub fn seen(&self, seen: Seen) -> u64 {
        let kind = seen as u32;
        assert!((kind as usize) < SEEN_KINDS);
        let values = self.seen.get(&kind, 0).expect("counters of sinks");
        values.iter().sum()
    }
}

/// CPUs that the kernel may have.
pub fn cpus() -> usize {
    nr_cpus().expect("CPUs")
}

/// `struct xdp_md`: no metadata, the whole frame, its interface.
fn context(frame_length: usize, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    let length = u32::try_from(frame_length).expect("a frame");
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    context[12..16].copy_from_slice(&interface.to_ne_bytes());
    context
}

/// Where the floors send.
pub fn floor_backends() -> impl Iterator<Item = Ipv4Addr> {
    (1..=100).map(|number| Ipv4Addr::new(10, 99, 0, number))
}

/// How the floors send, as an expected packet is told.
pub fn floor_node() -> Node {
    Node {
        source_v4: u32::from_ne_bytes(SOURCE),
        ..Node::default()
    }
}

/// Whether the floors send there.
pub fn is_floor_backend(address: IpAddr) -> bool {
    floor_backends().any(|backend| address == IpAddr::from(backend))
}

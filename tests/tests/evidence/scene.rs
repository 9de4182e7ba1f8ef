//! A lab, an agent that judges, and clients.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lb_common::control::ControlRecord;
use lb_tests::services;
use lb_userspace::kernel::maps::Maps;
use lb_userspace::kernel::pins::Pins;
use lb_userspace::lab::{
    Builder, Host, HttpLoop, HttpOptions, Instance, Lab, VIP_V4, VIP_V6, client_addresses,
};
use serde_json::Value;

use crate::applied::{Applied, Applying};
use crate::gate::{Load, Turn, turn};

pub const SOON: Duration = Duration::from_secs(30);
/// Longer than what TCP needs to send a SYN a second time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes of all of the client's addresses, so that a hard event comes from many sources.
pub const WEB: &str = "/1k";

/// What a scene is made of.
pub struct Setup {
    pub load: Load,
    pub builder: Builder,
    /// `[limits]` beside those that let tests make many changes.
    pub limits: &'static str,
    /// `[evidence]`.
    pub evidence: &'static str,
    /// The configuration that is committed first.
    pub first: fn(&Scene) -> String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            load: Load::Light,
            builder: Lab::builder().backends("web", 2).backends("mail", 2),
            limits: "",
            evidence: "",
            first: |scene| both(&scene.of("web"), &scene.of("web")),
        }
    }
}

/// The lab, with generation 1 committed: VIPs served by "web-1" and "web-2".
pub struct Scene {
    pub lab: Lab,
    pub instance: Instance,
    _turn: Turn,
}

impl Scene {
    /// Two servers of each service and one VIP, judged by this `[evidence]`.
    pub fn new(evidence: &'static str) -> Self {
        Self::with(Setup {
            evidence,
            first: |scene| services::shop(&scene.of("web")),
            ..Setup::default()
        })
    }

    pub fn with(setup: Setup) -> Self {
        let turn = turn(setup.load);
        let lab = setup.builder.build().unwrap();
        // Brand-new VIPs need not wait, unless that is what a scene is about.
        let dwell = if setup.evidence.contains("dwell") {
            ""
        } else {
            "dwell = \"0s\"\n"
        };
        let policy = format!(
            "version = 1\n[limits]\nchanges = 1000\nchange_every = \"1ms\"\n{}\n[evidence]\n{dwell}{}",
            setup.limits, setup.evidence
        );
        std::fs::write(lab.root().join("etc/lbguard/policy.toml"), policy).unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let scene = Self {
            lab,
            instance,
            _turn: turn,
        };
        let first = scene.apply(&(setup.first)(&scene), &["--confirm", "auto"]);
        assert_eq!(first.code, 0, "{}", first.text());
        scene
    }

    /// Hosts by their names.
    pub fn hosts(&self, names: &[&str]) -> Vec<&Host> {
        let host = |name: &&str| self.lab.host(name).unwrap_or_else(|| panic!("no {name}"));
        names.iter().map(host).collect()
    }

    /// The hosts of a service.
    pub fn of(&self, service: &str) -> Vec<&Host> {
        let all = self.lab.backends();
        all.filter(|host| host.service() == service).collect()
    }

    /// Starts requests to the IPv4 VIP, and waits until they flow.
    pub fn requests(&self, rate: u32, path: &str) -> HttpLoop {
        self.ask(VIP_V4.into(), rate, path, 0)
    }

    /// Starts requests to a VIP, from all of the client's addresses in turn.
    pub fn ask(&self, vip: IpAddr, rate: u32, path: &str, cookie: usize) -> HttpLoop {
        let options = HttpOptions {
            rate,
            path: path.to_owned(),
            timeout: PATIENCE,
            sources: client_addresses(vip),
            cookie,
        };
        let requests = self
            .lab
            .client()
            .http_loop(SocketAddr::new(vip, 80), &options)
            .unwrap();
        requests
            .wait(usize::try_from(rate / 4).unwrap(), SOON)
            .unwrap();
        requests
    }

    /// Begins a change.
    pub fn begin(&self, services: &str, more: &[&str]) -> Applying {
        let file = self.instance.write("next.toml", services).unwrap();
        let file = file.to_string_lossy().into_owned();
        let mut words = vec!["--json", "apply", &file, "-m", "lab"];
        words.extend(more);
        let mut command = self.instance.command(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let child = self.lab.balancer().in_ns(move || command.spawn());
        Applying {
            began,
            child: child.unwrap().unwrap(),
        }
    }

    /// Runs a change to its end.
    pub fn apply(&self, services: &str, more: &[&str]) -> Applied {
        self.begin(services, more).wait()
    }

    /// The maps as pinned.
    pub fn maps(&self) -> Maps {
        Maps::open(&Pins::new(&self.lab.root().join("sys/fs/bpf/lbguard"))).unwrap()
    }

    /// The kernel's control record.
    pub fn record(&self) -> ControlRecord {
        self.maps().record().unwrap().unwrap()
    }

    /// Records of the journal.
    pub fn journal(&self) -> Vec<Value> {
        let journal = self.lab.root().join("var/lib/lbguard/journal.jsonl");
        let journal = std::fs::read_to_string(journal).unwrap_or_default();
        let whole = journal.lines().map(serde_json::from_str);
        whole.map_while(Result::ok).collect()
    }

    /// The first record of this kind about a generation.
    pub fn recorded(&self, generation: u64, kind: &str) -> Option<Value> {
        let found = |record: &Value| record["generation"] == generation && record["kind"] == kind;
        self.journal().into_iter().find(found)
    }
}

/// VIPs of both families, each with a pool of its own.
pub fn both(v4: &[&Host], v6: &[&Host]) -> String {
    let pool = |name, v6| services::Pool {
        name,
        service: "web",
        forward: "ipip",
        v6,
    };
    format!(
        "version = 1\n{}{}{}{}",
        services::vip("shop-v4", "web", VIP_V4.into(), 0, "tcp", "shop-web"),
        services::vip("shop-v6", "web", VIP_V6.into(), 0, "tcp", "shop-web6"),
        services::pool(pool("shop-web", false), v4),
        services::pool(pool("shop-web6", true), v6),
    )
}

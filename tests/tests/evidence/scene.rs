//! A lab with two services, an agent that judges, and clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::services;
use lb_userspace::lab::{Host, HttpLoop, HttpOptions, Instance, Lab, Outcome, Request, VIP_V4};
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(30);
/// Longer than what TCP needs to send a SYN a second time.
const PATIENCE: Duration = Duration::from_secs(5);
const POLICY: &str = "version = 1\n[limits]\nchanges = 1000\nchange_every = \"1ms\"\n";

/// How many times each case runs: few here, many in the soak.
pub fn runs() -> usize {
    std::env::var("LB_EVIDENCE_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(2)
}

/// The lab, with generation 1 committed: VIP "shop-v4" served by the hosts of "web".
pub struct Scene {
    pub lab: Lab,
    pub instance: Instance,
}

impl Scene {
    /// With two servers of each service, judged by this `[evidence]`.
    pub fn new(evidence: &str) -> Self {
        let lab = Lab::builder()
            .backends("web", 2)
            .backends("mail", 2)
            .build()
            .unwrap();
        let policy = format!("{POLICY}[evidence]\n{evidence}");
        std::fs::write(lab.root().join("etc/lbguard/policy.toml"), policy).unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let scene = Self { lab, instance };
        let first = scene.apply(&services::shop(&scene.of("web")), &["--confirm", "auto"]);
        assert_eq!(first.code, 0, "{}", first.text());
        scene
    }

    /// The hosts of a service.
    pub fn of(&self, service: &str) -> Vec<&Host> {
        let all = self.lab.backends();
        all.filter(|host| host.service() == service).collect()
    }

    /// Starts requests to the VIP.
    pub fn requests(&self, rate: u32, path: &str) -> HttpLoop {
        let options = HttpOptions {
            rate,
            path: path.to_owned(),
            timeout: PATIENCE,
            ..HttpOptions::default()
        };
        let vip = SocketAddr::new(VIP_V4.into(), 80);
        let requests = self.lab.client().http_loop(vip, &options).unwrap();
        requests.wait(usize::try_from(rate).unwrap(), SOON).unwrap();
        requests
    }

    /// Runs a change to its end.
    pub fn apply(&self, services: &str, more: &[&str]) -> Applied {
        let file = self.instance.write("next.toml", services).unwrap();
        let file = file.to_string_lossy().into_owned();
        let mut words = vec!["--json", "apply", &file, "-m", "lab"];
        words.extend(more);
        let began = Instant::now();
        let output = self.instance.output(&words).unwrap();
        Applied {
            began,
            code: output.status.code().unwrap_or(-1),
            events: String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A change that has ended.
#[derive(Debug)]
pub struct Applied {
    pub began: Instant,
    pub code: i32,
    pub events: Vec<Value>,
    pub errors: String,
}

impl Applied {
    /// All that was printed.
    pub fn text(&self) -> String {
        let last = self.events.iter().rev().take(6).rev();
        let lines: Vec<String> = last.map(ToString::to_string).collect();
        format!("exit {}: {} {}", self.code, lines.join("\n"), self.errors)
    }

    /// The last progress event.
    pub fn end(&self) -> &Value {
        let progress = |event: &&Value| event["event"] == "progress";
        self.events.iter().rev().find(progress).unwrap()
    }

    /// Why it did not commit, in one word.
    pub fn cause(&self) -> &str {
        self.end()["cause"].as_str().unwrap_or("none")
    }

    /// The verdict that ended it, from the last round of judgement.
    pub fn finding(&self) -> &Value {
        let judged = |event: &&Value| event["event"] == "evidence";
        let last = self.events.iter().rev().find(judged);
        last.map_or(&Value::Null, |event| &event["finding"])
    }
}

/// What clients saw of a change.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: usize,
    pub failed: usize,
    pub wrong: usize,
    pub slowest: Duration,
}

/// Of the requests that began since.
pub fn seen(requests: &HttpLoop, since: Instant) -> Seen {
    let mut seen = Seen::default();
    for Request {
        at,
        latency,
        outcome,
    } in requests.requests()
    {
        if at < since {
            continue;
        }
        seen.requests += 1;
        seen.slowest = seen.slowest.max(latency);
        match outcome {
            Outcome::Ok { service, .. } if service == "web" => {}
            Outcome::Ok { .. } => seen.wrong += 1,
            // A page that is not there is another service's answer.
            Outcome::Failed(why) if why.contains("404") => seen.wrong += 1,
            Outcome::Failed(_) => seen.failed += 1,
        }
    }
    seen
}

//! A lab whose pool is checked, and what its agent says of it.

use std::fmt::Write as _;
use std::time::Duration;

use lb_tests::certificate::Certificate;
use lb_tests::services;
use lb_userspace::lab::{Builder, Host, Instance, Lab, Process, VIP_V4, until};
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(30);
/// Checks that are quick, but for a machine that has other things to do.
pub const HTTP: &str = "health = { type = \"http\", port = 80, path = \"/healthz\", \
                        interval = \"300ms\", timeout = \"250ms\", rise = 2, fall = 2 }";

pub struct Scene {
    pub lab: Lab,
    pub instance: Instance,
}

impl Scene {
    /// A lab with an agent, and all backends committed with this line in their pool.
    pub fn new(builder: Builder, line: &str) -> Self {
        let lab = builder.build().unwrap();
        let mut instance = Instance::new(&lab).unwrap();
        instance.start_agent().unwrap();
        let scene = Self { lab, instance };
        scene.commit(line);
        scene
    }

    /// As [`Scene::new`]; the backends are there before they are checked, so that none is probed as new.
    pub fn known(builder: Builder, line: &str) -> Self {
        let scene = Self::new(builder, "");
        scene.commit(line);
        scene
    }

    pub fn commit(&self, line: &str) {
        self.instance.commit(&self.services(line)).unwrap();
    }

    /// One IPv4 TCP VIP on any port, a pool of all backends, near ones first.
    pub fn services(&self, line: &str) -> String {
        let hosts: Vec<&Host> = self.lab.backends().collect();
        let mut text = services::shop(&hosts);
        let place = text.find("table_size").unwrap();
        text.insert_str(place, &format!("{line}\n"));
        text
    }

    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap().clone()
    }

    /// What the agent says of a backend's health.
    pub fn health(&self, name: &str) -> Option<Value> {
        let status = self.instance.status()?;
        let lines = status.pointer("/agent/health")?.as_array()?.clone();
        lines.into_iter().find(|line| line["backend"] == name)
    }

    /// State of a backend in ACTIVE, by the kernel.
    pub fn kernel_state(&self, name: &str) -> Option<String> {
        let status = self.instance.status()?;
        let backends = status
            .pointer("/kernel/active/pools/0/backends")?
            .as_array()?
            .clone();
        let own = backends.into_iter().find(|b| b["name"] == name)?;
        Some(own["state"].as_str()?.to_owned())
    }

    /// Waits for a backend's state by its checks; the line that says so.
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        let found = until(&format!("{name} is {state}"), SOON, || {
            self.health(name).filter(|line| line["state"] == state)
        });
        found.unwrap_or_else(|error| panic!("{error}: {:?}", self.health(name)))
    }

    /// Waits for an alert of a kind about something; its text.
    pub fn alert(&self, kind: &str, about: &str) -> String {
        until(&format!("an alert: {kind} {about}"), SOON, || {
            self.find_alert(kind, about)
        })
        .unwrap()
    }

    pub fn find_alert(&self, kind: &str, about: &str) -> Option<String> {
        let status = self.instance.status()?;
        let alerts = status.pointer("/agent/alerts")?.as_array()?.clone();
        let own = alerts
            .into_iter()
            .find(|alert| alert["alert"] == kind && alert["about"] == about)?;
        Some(own["text"].as_str()?.to_owned())
    }

    /// What a check that asks the backend's own address, past the balancer, would say.
    pub fn answers_at_its_address(&self, name: &str) -> bool {
        let to = std::net::SocketAddr::new(self.host(name).v4().into(), 80);
        let answer = self.lab.balancer().http(to, "/healthz").unwrap();
        matches!(answer.outcome, lb_userspace::lab::Outcome::Ok { .. })
    }

    pub fn target(port: u16) -> std::net::SocketAddr {
        std::net::SocketAddr::new(VIP_V4.into(), port)
    }
}

/// nginx on port 443 of a host with a certificate of its own; needs openssl.
pub fn https(host: &Host) -> Process {
    let directory = host.directory();
    let Certificate { certificate, key } = Certificate::new(directory);
    let server = format!(
        "listen 443 ssl;\nlisten [::]:443 ssl;\nssl_certificate {};\nssl_certificate_key {};\n\
         location / {{ return 200 \"ok\\n\"; }}\n",
        certificate.display(),
        key.display(),
    );
    nginx(host, "tls", &server)
}

/// One more nginx on a host, with this inside `server`.
pub fn nginx(host: &Host, name: &str, server: &str) -> Process {
    let base = host.directory().join(name);
    std::fs::create_dir_all(&base).unwrap();
    let mut text = String::from("daemon off;\nmaster_process off;\nuser root;\n");
    let at = base.display();
    let _ = write!(
        text,
        "pid {at}/pid;\nerror_log {at}/log;\nevents {{ worker_connections 64; }}\n\
         http {{\naccess_log off;\nclient_body_temp_path {at}/b;\nproxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f;\nuwsgi_temp_path {at}/u;\nscgi_temp_path {at}/s;\n\
         server {{\n{server}}}\n}}\n",
    );
    let file = base.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    host.spawn(&["nginx".as_ref(), "-c".as_ref(), file.as_os_str()])
        .unwrap()
}

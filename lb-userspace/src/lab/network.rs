//! Makes the namespaces and cables of a [`Plan`].

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::address::{ROUTER_V4, ROUTER_V6};
use super::cleanup::NAMESPACES;
use super::error::{Context as _, LabError, show};
use super::host::{Host, Inner, Role};
use super::id::LabId;
use super::topology::{Node, Plan};

/// Gives the hosts of a plan their handles, before there is anything behind them.
pub(super) struct Hosts<'a> {
    pub id: LabId,
    /// The lab's directory.
    pub root: &'a Path,
}

impl Hosts<'_> {
    /// The router, then the nodes of the plan in their order.
    pub(super) fn all(&self, plan: &Plan) -> Vec<Host> {
        let nodes = plan.nodes.iter().map(|node| self.host(node));
        [self.router()].into_iter().chain(nodes).collect()
    }

    pub(super) fn router(&self) -> Host {
        let node = Node {
            name: "router".to_owned(),
            role: Role::Router,
            interface: "br0",
            port: String::new(),
            ..Node::client()
        };
        self.handle(&node, (ROUTER_V4, ROUTER_V6))
    }

    pub(super) fn host(&self, node: &Node) -> Host {
        self.handle(node, node.net.host(node.number))
    }

    fn handle(&self, node: &Node, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Host {
        Host(Arc::new(Inner {
            name: node.name.clone(),
            service: node.service.clone(),
            role: node.role,
            v4,
            v6,
            interface: node.interface,
            port: node.port.clone(),
            namespace: Path::new(NAMESPACES).join(self.id.host(&node.name)),
            directory: self.root.join("hosts").join(&node.name),
        }))
    }
}

/// Makes all of it. What has been made when something fails is left to the caller.
pub(super) fn make(hosts: &[Host], plan: &Plan, id: LabId) -> Result<(), LabError> {
    let mut batch = String::new();
    for host in hosts {
        let _ = writeln!(batch, "netns add {}", host.namespace_name());
    }
    ip_batch(None, &batch)?;
    // Before the cables: an interface takes its settings from `default` when it is made.
    for host in hosts {
        let settings = plan.settings(host.name());
        host.in_ns(|| apply_settings(&settings))??;
    }
    ip_batch(None, &plan.cables(|name| id.host(name)))?;
    for (namespace, interface) in plan.interfaces() {
        if let Some(host) = hosts.iter().find(|host| host.name() == namespace) {
            offloads_off(host, interface)?;
        }
    }
    for host in hosts {
        let commands = plan.commands(host.name()).join("\n");
        ip_batch(Some(&host.namespace_name()), &commands)?;
    }
    Ok(())
}

fn apply_settings(settings: &[(&str, &str)]) -> Result<(), LabError> {
    for (name, value) in settings {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value).context(|| path.display().to_string())?;
    }
    Ok(())
}

fn offloads_off(host: &Host, interface: &str) -> Result<(), LabError> {
    let mut words = vec!["ethtool", "-K", interface];
    words.extend(["tx", "off", "gro", "off", "gso", "off", "tso", "off"]);
    host.run(&words).map(drop)
}

/// Many `ip` commands in one go, in a namespace or in ours.
fn ip_batch(namespace: Option<&str>, batch: &str) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]);
    let what = show(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| what.clone())?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes()).context(|| what.clone())?;
    }
    let output = child.wait_with_output().context(|| what.clone())?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: what,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

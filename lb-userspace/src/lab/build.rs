//! Makes a lab and takes it away.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::address::{VIP_V4, VIP_V6};
use super::cleanup::{directory, register, remove, sweep};
use super::error::{Context as _, LabError};
use super::files;
use super::host::{Host, Role};
use super::id::LabId;
use super::network::{self, Hosts};
use super::nginx;
use super::process::Process;
use super::topology::{Group, Node, Plan};
use crate::decap::{Held, hold_decap, hold_pass};

/// Says what a lab shall consist of; see [`Lab::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    groups: Vec<Group>,
    others: usize,
    mtu: u16,
    vips: Vec<IpAddr>,
    web: bool,
    decap: bool,
    second: bool,
}

impl Builder {
    /// Adds `count` backends of a service on the balancer's segment: `web-1`, `web-2` ..
    #[must_use]
    pub fn backends(mut self, service: &str, count: usize) -> Self {
        self.groups.push(Group {
            service: service.to_owned(),
            count,
            far: false,
        });
        self
    }

    /// Adds `count` backends behind a second router, another next hop: `web-far-1` ..
    #[must_use]
    pub fn far_backends(mut self, service: &str, count: usize) -> Self {
        self.groups.push(Group {
            service: service.to_owned(),
            count,
            far: true,
        });
        self
    }

    /// Adds hosts on the segment that have no part in it: `other-1` .. (at most 10).
    #[must_use]
    pub fn others(mut self, count: usize) -> Self {
        self.others = count;
        self
    }

    /// MTU of the segment, in bytes; 1600 unless told, so that 1,500 fit inside a tunnel. Veth
    /// takes no XDP program beyond 3506.
    #[must_use]
    pub fn segment_mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Another address on `lo` of every backend, beside [`VIP_V4`] and [`VIP_V6`].
    #[must_use]
    pub fn vip(mut self, vip: IpAddr) -> Self {
        self.vips.push(vip);
        self
    }

    /// A second interface of the balancer, `lb1`, in the network of the far backends: those are then
    /// reached by another interface than the one that clients come by. For labs that have some.
    #[must_use]
    pub fn second_interface(mut self) -> Self {
        self.second = true;
        self
    }

    /// Leaves out nginx.
    #[must_use]
    pub fn without_web(mut self) -> Self {
        self.web = false;
        self
    }

    /// Leaves out the decap program on the backends.
    #[must_use]
    pub fn without_decap(mut self) -> Self {
        self.decap = false;
        self
    }

    /// Makes the lab, after removing what killed processes have left of theirs.
    ///
    /// # Errors
    /// Whatever the system refuses, by name; nothing is left behind then.
    pub fn build(self) -> Result<Lab, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        sweep();
        let mut plan = Plan::new(&self.groups, self.others, self.mtu, self.vips.clone())?;
        plan.second = (self.second && plan.has_far).then(Node::far_balancer);
        let id = LabId::new();
        let root = directory(id);
        let hosts = Hosts { id, root: &root };
        // From here on dropping the lab removes what has been made.
        let mut lab = Lab {
            id,
            router: hosts.router(),
            client: hosts.host(&Node::client()),
            balancer: hosts.host(&Node::balancer()),
            hosts: hosts.all(&plan),
            root,
            programs: Vec::new(),
            services: Vec::new(),
        };
        register(id);
        lab.make_files()?;
        network::make(&lab.hosts, &plan, id)?;
        lab.attach_programs(self.decap)?;
        if let Some(second) = &plan.second {
            lab.attach_pass("router-2", &second.port)?;
        }
        if self.web {
            let backends: Vec<Host> = lab.backends().cloned().collect();
            for host in backends {
                lab.services
                    .push((host.name().to_owned(), nginx::start(&host)?));
            }
        }
        let second = plan.second.as_ref().map(|node| node.interface);
        files::write_agent_toml(&lab, second)?;
        Ok(lab)
    }
}

/// A running lab. Dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    id: LabId,
    root: PathBuf,
    router: Host,
    client: Host,
    balancer: Host,
    hosts: Vec<Host>,
    /// Attached programs, and the host that each is for.
    programs: Vec<(String, Held)>,
    services: Vec<(String, Process)>,
}

impl Lab {
    /// A lab with a client, a router, a balancer, and what the builder adds.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            groups: Vec::new(),
            others: 0,
            mtu: 1600,
            vips: vec![VIP_V4.into(), VIP_V6.into()],
            web: true,
            decap: true,
            second: false,
        }
    }

    /// What every name of this lab begins with.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// The `--root` of the lbguard that runs in the balancer: `etc/lbguard/agent.toml` is
    /// written, a bpffs is mounted at `sys/fs/bpf`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All hosts: the router, the client, the balancer, then the others.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// The client.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The balancer.
    pub fn balancer(&self) -> &Host {
        &self.balancer
    }

    /// The router between client and segment.
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// All backends, near and far.
    pub fn backends(&self) -> impl Iterator<Item = &Host> {
        let hosts = self.hosts.iter();
        hosts.filter(|host| host.role() == Role::Backend)
    }

    /// The hosts that have no part in it.
    pub fn others(&self) -> impl Iterator<Item = &Host> {
        let hosts = self.hosts.iter();
        hosts.filter(|host| host.role() == Role::Other)
    }

    /// Stops the web server of a backend (the host and its addresses stay).
    pub fn stop_web(&mut self, host: &str) {
        self.services.retain(|(name, _)| name != host);
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When nginx does not answer within 10 s, with its output.
    pub fn start_web(&mut self, host: &Host) -> Result<(), LabError> {
        self.stop_web(host.name());
        self.services
            .push((host.name().to_owned(), nginx::start(host)?));
        Ok(())
    }

    /// Detaches the decap program of a backend, which then drops tunnelled packets.
    pub fn stop_decap(&mut self, host: &Host) {
        self.stop_programs(host.name());
    }

    /// Detaches the lab's XDP programs in a host: a backend's, or a router's on its port to the balancer,
    /// which then takes nothing that XDP sends there.
    pub fn stop_programs(&mut self, host: &str) {
        self.programs.retain(|(owner, _)| owner != host);
    }

    fn make_files(&self) -> Result<(), LabError> {
        let bpffs = self.bpffs();
        let hosts = self.hosts.iter().map(Host::directory);
        for directory in hosts.chain([bpffs.as_path()]) {
            fs::create_dir_all(directory).context(|| directory.display().to_string())?;
        }
        let none: Option<&str> = None;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none)
            .context(|| format!("mount bpffs at {}", bpffs.display()))
    }

    /// The lab's own bpffs.
    pub fn bpffs(&self) -> PathBuf {
        self.root.join("sys/fs/bpf")
    }

    /// XDP's sending back and redirecting over veth works only if the other end runs an XDP program, too.
    fn attach_pass(&mut self, router: &str, port: &str) -> Result<(), LabError> {
        let Some(host) = self.host(router) else {
            return Ok(());
        };
        let pass = host.in_ns(|| hold_pass(port))??;
        self.programs.push((router.to_owned(), pass));
        Ok(())
    }

    fn attach_programs(&mut self, with_decap: bool) -> Result<(), LabError> {
        let port = self.balancer().router_port().to_owned();
        self.attach_pass("router", &port)?;
        if with_decap {
            let backends: Vec<Host> = self.backends().cloned().collect();
            for host in backends {
                let held = host.in_ns(|| hold_decap(host.interface()))??;
                self.programs.push((host.name().to_owned(), held));
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.services.clear();
        self.programs.clear();
        remove(self.id);
    }
}

//! A loaded balancer in a lab, without an agent.

use lb_userspace::config::{NodeConfig, Policy};
use lb_userspace::kernel::object::Kernel;
use lb_userspace::kernel::pins::Pins;
use lb_userspace::kernel::size;
use lb_userspace::lab::Lab;

/// Where the lab's lbguard pins.
pub fn bpf_pins(lab: &Lab) -> Pins {
    Pins::new(&lab.bpffs().join("lbguard"))
}

/// Loads and pins the programs by the lab's agent.toml.
pub fn load(lab: &Lab, pins: &Pins) {
    let file = lab.root().join("etc/lbguard/agent.toml");
    let config = NodeConfig::load(&file).expect("the lab's agent.toml");
    let node = size::node(&config).expect("sizes");
    let limits = size::limits(&Policy::default());
    drop(Kernel::load_pinned(pins, node, limits).expect("load"));
}

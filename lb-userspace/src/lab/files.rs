//! The files that the lab writes for the lbguard in its balancer.

use std::fs;

use super::address::{ENCAP_SOURCE_V4, ENCAP_SOURCE_V6};
use super::build::Lab;
use super::error::{Context as _, LabError};

/// Writes `etc/lbguard/agent.toml` and `policy.toml` below the lab's root; paths follow `--root`.
pub(super) fn write_agent_toml(lab: &Lab, second: Option<&str>) -> Result<(), LabError> {
    let directory = lab.root().join("etc/lbguard");
    fs::create_dir_all(&directory).context(|| directory.display().to_string())?;
    let file = directory.join("agent.toml");
    let interfaces: Vec<&str> = [lab.balancer().interface()]
        .into_iter()
        .chain(second)
        .collect();
    let text = agent_toml(&interfaces);
    fs::write(&file, text).context(|| file.display().to_string())?;
    let file = directory.join("policy.toml");
    fs::write(&file, POLICY_TOML).context(|| file.display().to_string())
}

/// Tests make more changes in a second than an operator in a day.
/// Most have no traffic to judge, or wait for nobody: those that do write a policy of their own.
const POLICY_TOML: &str = "version = 1\n[limits]\nchanges = 1000\nchange_every = \"1ms\"\n\
                           [evidence]\nenabled = false\n";

fn agent_toml(interfaces: &[&str]) -> String {
    format!(
        r#"version = 1
interfaces = {interfaces:?}
xdp_mode = "auto"
fleet_seed = "laboratory"
encap_source_v4 = "{ENCAP_SOURCE_V4}"
encap_source_v6 = "{ENCAP_SOURCE_V6}"

[tables]
vips = 64
pools = 64
backends = 1024
lookup_entries = 1_048_576
flows = 65_536
nexthops = 256
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn the_agent_reads_what_the_lab_writes() {
        let node = NodeConfig::parse(agent_toml(&["lb0", "lb1"]).as_bytes(), "agent.toml").unwrap();
        assert_eq!(node.interfaces, ["lb0", "lb1"]);
        assert_eq!(node.tables.flows, 65_536);
    }
}

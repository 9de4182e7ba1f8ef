//! Debian packages, installed without starting any service of theirs.

use anyhow::{Result, bail};

use crate::command::{Root, find, run};

/// `apt-get install` with two precautions: no service is started (a `policy-rc.d` of our own,
/// unless the host has one), and none is enabled for the next start of the host.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update || exit 1
apt-get -q -y install --no-install-recommends "$@" || exit 1
for package in "$@"; do
    if [ "$package" = nginx-light ] && [ -d /run/systemd/system ]; then
        systemctl disable nginx.service
    fi
done
"#;

/// Installs `packages`.
///
/// # Errors
/// One sentence with the commands to run by hand, when this user may not or apt fails.
pub fn install(packages: &[String]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {list}");
    if find("apt-get").is_none() {
        bail!(
            "{list}: missing, and there is no apt-get here; install what these Debian packages hold"
        );
    }
    let Some(mut shell) = Root::find().command("sh") else {
        bail!(
            "{list}: missing, and neither root nor sudo without a password is at hand; run as root: {by_hand}"
        );
    };
    println!("setup: installing by apt (no service is started): {list}");
    match run(shell.args(["-c", INSTALL, "setup"]).args(packages)) {
        Ok(()) => Ok(()),
        Err(_) => {
            bail!("apt could not install {list}; its messages are above; run as root: {by_hand}")
        }
    }
}

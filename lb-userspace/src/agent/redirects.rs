//! Backends behind an interface that takes nothing from XDP: what comes for them by another interface
//! is dropped after it was forwarded, and only this tells.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::hops::members;
use crate::kernel::KernelError;
use crate::net::{Link, redirects};

/// The alert's kind.
const KIND: &str = "redirect";
/// Backends that are named.
const NAMED: usize = 3;

impl Engine {
    /// Looks whether packets can leave by the interfaces that lead to backends.
    pub(super) fn look_at_redirects(&mut self) -> Result<(), KernelError> {
        // A kernel that does not tell is no reason for an alert.
        let closed = redirects::closed(&self.setup.node.interfaces).unwrap_or_default();
        let behind = if closed.is_empty() {
            BTreeMap::new()
        } else {
            self.behind(&closed)?
        };
        let over = self.watching.alerts.of(KIND);
        for about in over.iter().filter(|about| !behind.contains_key(&about.1)) {
            self.alert_over(about, "it takes them again, or nothing is sent there");
        }
        let standing = |name: &String| over.iter().any(|about| about.1 == *name);
        for (name, backends) in behind.into_iter().filter(|(name, _)| !standing(name)) {
            let named: Vec<&str> = backends.iter().take(NAMED).map(String::as_str).collect();
            let more = match backends.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let text = format!(
                "{name} takes nothing from XDP: packets that come by another interface, for {}{more}, \
                 are dropped by the kernel and count as forwarded. {}",
                named.join(", "),
                redirects::WAY_OUT
            );
            self.alert((KIND, name), text);
        }
        Ok(())
    }

    /// Names of backends by interface, for each of these that has some.
    fn behind(&self, closed: &[Link]) -> Result<BTreeMap<String, Vec<String>>, KernelError> {
        let mut behind: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, member) in members(&self.kernel) {
            let hop = self.kernel.maps.next_hop(u32::from(member.next_hop))?;
            if let Some(link) = closed.iter().find(|link| link.index == hop.interface) {
                let name = self.kernel.maps.member_name(id)?;
                behind.entry(link.name.clone()).or_default().push(name);
            }
        }
        Ok(behind)
    }
}

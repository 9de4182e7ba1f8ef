//! Alerts: what is odd and stands, and how often that is written down.

use std::collections::BTreeMap;

use serde_json::json;

use super::engine::Engine;
use super::wire::Alert;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::Kind;

/// Records that may be written at once, and the time after which there may be one more: a day of
/// alerts that come and go must not fill the disk.
const AT_ONCE: u64 = 20;
const ONE_MORE_NS: u64 = 60_000_000_000;

/// What an alert is about: its kind, and VIP or `POOL/BACKEND`.
pub(super) type About = (&'static str, String);

/// The alerts that stand.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    standing: BTreeMap<About, Alert>,
    /// When the records so far will be paid for, boot-clock ns.
    paid_ns: u64,
}

impl Alerts {
    /// All of them.
    pub fn all(&self) -> Vec<Alert> {
        self.standing.values().cloned().collect()
    }

    /// Those of one kind.
    pub fn of(&self, kind: &str) -> Vec<About> {
        let mine = self.standing.keys().filter(|(k, _)| *k == kind);
        mine.cloned().collect()
    }

    /// Whether one more record may be written.
    fn may_write(&mut self, now_ns: u64) -> bool {
        let paid = self.paid_ns.max(now_ns);
        let ahead = paid.saturating_sub(now_ns);
        if ahead > ONE_MORE_NS.saturating_mul(AT_ONCE.saturating_sub(1)) {
            return false;
        }
        self.paid_ns = paid.saturating_add(ONE_MORE_NS);
        true
    }
}

impl Engine {
    /// Something odd begins.
    pub(super) fn alert(&mut self, about: About, text: String) {
        let now = Now::read();
        let alert = Alert {
            alert: about.0.to_owned(),
            about: about.1.clone(),
            text,
            since: now.wall,
        };
        tracing::warn!(alert = about.0, about = about.1, "{}", alert.text);
        let fresh = self
            .watching
            .alerts
            .standing
            .insert(about, alert.clone())
            .is_none();
        if fresh {
            self.write_alert(&alert, true, now.boot_ns);
        }
    }

    /// It is over, if it stood.
    pub(super) fn alert_over(&mut self, about: &About, text: &str) {
        let Some(mut alert) = self.watching.alerts.standing.remove(about) else {
            return;
        };
        text.clone_into(&mut alert.text);
        tracing::info!(alert = about.0, about = about.1, "over: {text}");
        self.write_alert(&alert, false, Now::read().boot_ns);
    }

    fn write_alert(&mut self, alert: &Alert, begins: bool, now_ns: u64) {
        if self.watching.alerts.may_write(now_ns) {
            let body = json!({
                "alert": alert.alert, "about": alert.about, "text": alert.text, "begins": begins,
            });
            self.write_down(Kind::Alert, Actor::me(), body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_and_then_one_a_minute() {
        let mut alerts = Alerts::default();
        let burst = (0..100).filter(|_| alerts.may_write(7)).count();
        assert_eq!(burst, 20);
        let minutes = (1..=10).filter(|minute| alerts.may_write(7 + minute * ONE_MORE_NS));
        assert_eq!(minutes.count(), 10);
        let burst = (0..100).filter(|_| alerts.may_write(7 + 11 * ONE_MORE_NS));
        assert_eq!(burst.count(), 1);
    }
}

//! Burn rate: how fast handshakes that fail use up what an objective allows. An alert needs a long
//! and a short window above its rate: the long one that it matters, the short one that it still
//! goes on (Google, "The Site Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts").

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use super::number::{ratio, real};

const MINUTE_NS: u64 = 60_000_000_000;
/// Minutes that are kept: six hours, and where they begin.
const KEPT: usize = 361;
/// Failed flows in the long window below which there is no alert.
const FEW: u64 = 10;

/// How urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// 5 % of a month's allowance in six hours: look at it today.
    Ticket,
    /// 2 % of a month's allowance in an hour: look at it now.
    Page,
}

impl Urgency {
    /// Rate, long and short window in minutes.
    const fn rule(self) -> (f64, usize, usize) {
        match self {
            Self::Ticket => (6.0, 360, 30),
            Self::Page => (14.4, 60, 5),
        }
    }
}

/// An alert that begins or ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burn {
    /// The VIP.
    pub vip: String,
    /// How urgent it is.
    pub urgency: Urgency,
    /// Whether it begins.
    pub begins: bool,
    /// Times the allowed rate, long window.
    pub long: f64,
    /// Times the allowed rate, short window.
    pub short: f64,
}

impl fmt::Display for Burn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, long, short) = self.urgency.rule();
        write!(
            f,
            "handshakes of {} fail {:.1} times as often as allowed over {long} min, {:.1} times over {short} min ({} {rate})",
            self.vip,
            self.long,
            self.short,
            if self.begins {
                "both above"
            } else {
                "no longer both above"
            },
        )
    }
}

/// Watches one VIP.
#[derive(Clone, Debug)]
pub struct BurnWatch {
    vip: String,
    /// Share of handshakes that may fail.
    allowed: f64,
    /// Flows and failed flows so far, at the start of each minute; the newest last.
    minutes: VecDeque<(u64, u64, u64)>,
    burning: [bool; 2],
}

impl BurnWatch {
    /// `allowed`: share of handshakes that may fail, 0.001 for an objective of 99.9 %.
    pub fn new(vip: String, allowed: f64) -> Self {
        Self {
            vip,
            allowed,
            minutes: VecDeque::new(),
            burning: [false; 2],
        }
    }

    /// Alerts that begin or end. `flows` and `failed` are all mature flows so far; they only rise, and
    /// where they do not, everything starts anew.
    pub fn round(&mut self, flows: u64, failed: u64, now_ns: u64) -> Vec<Burn> {
        let minute = now_ns / MINUTE_NS;
        let last = self.minutes.back().copied();
        if last.is_some_and(|(_, f, bad)| f > flows || bad > failed) {
            self.minutes.clear();
        }
        if self.minutes.back().is_none_or(|(m, _, _)| *m < minute) {
            self.minutes.push_back((minute, flows, failed));
            while self.minutes.len() > KEPT {
                self.minutes.pop_front();
            }
        }
        let both = [Urgency::Ticket, Urgency::Page];
        let mut burns = Vec::new();
        for (urgency, index) in both.into_iter().zip(0..) {
            let Some(burn) = self.burn(urgency, (flows, failed), minute) else {
                continue;
            };
            if let Some(burning) = self.burning.get_mut(index)
                && *burning != burn.begins
            {
                *burning = burn.begins;
                burns.push(burn);
            }
        }
        burns
    }

    fn burn(&self, urgency: Urgency, now: (u64, u64), minute: u64) -> Option<Burn> {
        let (rate, long, short) = urgency.rule();
        let (long, failed) = self.rate(now, minute, long)?;
        let (short, _) = self.rate(now, minute, short)?;
        Some(Burn {
            vip: self.vip.clone(),
            urgency,
            begins: long > rate && short > rate && failed >= FEW,
            long,
            short,
        })
    }

    /// Times the allowed rate over the last minutes, or since the first round, and failed flows.
    fn rate(&self, now: (u64, u64), minute: u64, minutes: usize) -> Option<(f64, u64)> {
        let from = minute.saturating_sub(minutes as u64);
        let then = self.minutes.iter().find(|(m, _, _)| *m >= from)?;
        let flows = now.0.saturating_sub(then.1);
        let failed = now.1.saturating_sub(then.2);
        let share = ratio(failed, flows.max(1));
        Some((share / self.allowed.max(1.0 / real(u64::MAX)), failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day at 10 flows a second; failing per 1,000 by minute. Alerts by minute.
    fn day(failing: impl Fn(u64) -> u64) -> Vec<(u64, Urgency, bool)> {
        let mut watch = BurnWatch::new("shop-v4".to_owned(), 0.001);
        let (mut flows, mut failed, mut alerts) = (0, 0, Vec::new());
        for minute in 0..1440 {
            for burn in watch.round(flows, failed, minute * MINUTE_NS) {
                alerts.push((minute, burn.urgency, burn.begins));
            }
            flows += 600;
            failed += failing(minute) * 600 / 1000;
        }
        alerts
    }

    #[test]
    fn what_is_allowed_is_no_alert() {
        assert_eq!(day(|_| 0), []);
        assert_eq!(day(|_| 5), []);
        // One bad minute in a good hour.
        assert_eq!(day(|minute| if minute == 700 { 300 } else { 0 }), []);
    }

    #[test]
    fn an_outage_pages_within_minutes_and_ends() {
        let alerts = day(|minute| if (700..730).contains(&minute) { 500 } else { 0 });
        let pages: Vec<_> = alerts.iter().filter(|a| a.1 == Urgency::Page).collect();
        assert_eq!(pages.len(), 2);
        assert!((701..=705).contains(&pages[0].0) && pages[0].2, "{pages:?}");
        assert!(
            (731..=740).contains(&pages[1].0) && !pages[1].2,
            "{pages:?}"
        );
    }

    #[test]
    fn a_slow_burn_is_a_ticket() {
        let alerts = day(|minute| if minute >= 700 { 10 } else { 0 });
        assert_eq!(alerts.len(), 1);
        assert_eq!((alerts[0].1, alerts[0].2), (Urgency::Ticket, true));
        assert!((850..=1000).contains(&alerts[0].0), "{alerts:?}");
    }

    #[test]
    fn a_restart_is_no_alert() {
        let mut watch = BurnWatch::new("shop-v4".to_owned(), 0.001);
        assert_eq!(watch.round(1_000_000, 1_000, 0), []);
        assert_eq!(watch.round(10, 1, MINUTE_NS), []);
        assert_eq!(watch.round(1_000, 1, 2 * MINUTE_NS), []);
    }
}

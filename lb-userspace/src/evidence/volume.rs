//! S13: a VIP's new flows against its own past. A VIP that somebody else on the network answers for,
//! or whose route was withdrawn, falls silent here, and nothing fails. Events for people; nothing
//! is done about them.

use std::fmt;

use serde::Serialize;

/// Time that the usual rate is averaged over, seconds.
const MEMORY: f64 = 300.0;
/// Seconds without enough traffic before there is an event.
const PATIENCE: u32 = 20;
/// What is left of the usual rate when there is an event, and when it is over.
const LOW: f64 = 0.2;
const ENOUGH: f64 = 0.5;
/// Usual new flows a second below which silence says nothing.
const FEW: f64 = 2.0;
/// After so many seconds what is left is what is usual.
const RESIGNED: u32 = 3_600;

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drop {
    /// The VIP.
    pub vip: String,
    /// Whether it begins.
    pub begins: bool,
    /// New flows a second, lately.
    pub rate: f64,
    /// What is usual.
    pub usual: f64,
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "new flows to {}: {:.1} a second, {:.1} are usual",
            self.vip, self.rate, self.usual
        )?;
        if self.begins {
            f.write_str(" (does another host answer for its address, or is its route gone?)")?;
        }
        Ok(())
    }
}

/// Watches one VIP.
#[derive(Clone, Debug)]
pub struct VolumeWatch {
    vip: String,
    usual: Option<f64>,
    /// Seconds that were too quiet, or that the event lasts.
    quiet: u32,
    dropped: bool,
}

impl VolumeWatch {
    /// A watch that has seen nothing.
    pub fn new(vip: String) -> Self {
        Self {
            vip,
            usual: None,
            quiet: 0,
            dropped: false,
        }
    }

    /// New flows a second that are usual; none before the first round.
    pub fn usual(&self) -> Option<f64> {
        self.usual
    }

    /// Called once a second with the rate of the last ten; an event that begins or ends.
    pub fn round(&mut self, rate: f64) -> Option<Drop> {
        let usual = *self.usual.get_or_insert(rate);
        if self.dropped {
            self.quiet = self.quiet.saturating_add(1);
            if rate < usual * ENOUGH && self.quiet < RESIGNED {
                return None;
            }
            self.dropped = false;
            self.quiet = 0;
            self.usual = Some(rate);
            return Some(self.event(false, rate, usual));
        }
        if usual < FEW || rate > usual * LOW {
            self.quiet = 0;
            self.usual = Some(usual + (rate - usual) / MEMORY);
            return None;
        }
        // What may be an outage is not learned as usual.
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet < PATIENCE {
            return None;
        }
        self.dropped = true;
        self.quiet = 0;
        Some(self.event(true, rate, usual))
    }

    fn event(&self, begins: bool, rate: f64, usual: f64) -> Drop {
        Drop {
            vip: self.vip.clone(),
            begins,
            rate,
            usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events by second.
    fn run(seconds: u32, rate: impl Fn(u32) -> f64) -> Vec<(u32, bool)> {
        let mut watch = VolumeWatch::new("shop-v4".to_owned());
        (0..seconds)
            .filter_map(|second| Some((second, watch.round(rate(second))?.begins)))
            .collect()
    }

    #[test]
    fn a_vip_that_falls_silent_is_told_and_its_return_too() {
        let rate = |s| if (600..700).contains(&s) { 0.0 } else { 100.0 };
        assert_eq!(run(1_000, rate), [(619, true), (700, false)]);
    }

    #[test]
    fn an_evening_little_traffic_and_a_pause_are_no_event() {
        assert_eq!(run(20_000, |s| 100.0 * (1.0 - f64::from(s) / 20_000.0)), []);
        assert_eq!(run(2_000, |s| if s % 60 < 50 { 1.5 } else { 0.0 }), []);
        assert_eq!(run(2_000, |s| if s % 60 < 45 { 100.0 } else { 0.0 }), []);
        assert_eq!(run(2_000, |_| 0.0), []);
    }

    #[test]
    fn what_lasts_becomes_usual() {
        let events = run(10_000, |s| if s < 600 { 100.0 } else { 10.0 });
        assert_eq!(events, [(619, true), (4_219, false)]);
    }
}

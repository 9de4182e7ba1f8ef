//! How long each VIP's proof will take, said before a change begins.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::forecast::{Forecast, Step, Traffic, forecast};
use super::noninferiority::Margin;
use super::pace;
use super::plan::Touched;

/// What VIPs see, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// New TCP flows a second, over the last seconds.
    pub flows_per_second: BTreeMap<String, f64>,
    /// Share of handshakes that fail anyhow, where enough were watched.
    pub failing: BTreeMap<String, f64>,
}

impl Seen {
    /// What a VIP sees; none if that is not known.
    fn of(&self, vip: &Touched) -> Option<Traffic> {
        Some(Traffic {
            flows_per_second: *self.flows_per_second.get(&vip.name)?,
            failing: self.failing.get(&vip.name).copied().unwrap_or(0.0),
        })
    }
}

/// What is to be expected of a VIP's proof.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "kebab-case")]
pub enum Proof {
    /// After about so long, all steps together.
    After {
        /// Seconds.
        seconds: f64,
    },
    /// Not in the time that the steps have.
    NotAtThisRate,
    /// How much traffic there is is not known.
    RateUnknown,
    /// Traffic can't prove it: the VIP is new, or UDP.
    ProbesOnly,
}

/// One VIP's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofLine {
    /// Its name.
    pub vip: String,
    /// Its pool in the new configuration: what is proven, per family.
    pub pool: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// New flows a second of the pool's VIPs of this family that the change touches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flows_per_second: Option<f64>,
    /// What is to be expected.
    #[serde(flatten)]
    pub proof: Proof,
}

/// Says it for the VIPs that a change touches, of which so many new flows a second are followed at most.
/// Flows of a pool's VIPs of one family prove it together.
pub fn expected(
    touched: &[Touched],
    seen: &Seen,
    margin: Margin,
    steps: &[Step],
    most_followed: u32,
) -> Vec<ProofLine> {
    let pace = pace::of_vips(touched, seen, most_followed);
    let line = |vip: &Touched| {
        let alike = touched.iter().filter(|other| {
            other.provable() && (&other.pool, other.family) == (&vip.pool, vip.family)
        });
        let seen: Vec<Traffic> = alike.filter_map(|vip| seen.of(vip)).collect();
        let paced = steps.iter().enumerate().map(|(number, step)| {
            let pace = pace::in_step(pace, number, step.0);
            (*step, together(&seen, pace))
        });
        let proof = match seen.first() {
            _ if !vip.provable() => Proof::ProbesOnly,
            None => Proof::RateUnknown,
            Some(_) => match forecast(margin, paced) {
                Forecast::After(time) => Proof::After {
                    seconds: time.as_secs_f64(),
                },
                Forecast::NotAtThisRate => Proof::NotAtThisRate,
            },
        };
        ProofLine {
            vip: vip.name.clone(),
            pool: vip.pool.clone(),
            family: vip.family.name().to_ascii_lowercase(),
            flows_per_second: (vip.provable() && !seen.is_empty())
                .then(|| together(&seen, f64::INFINITY).flows_per_second),
            proof,
        }
    };
    touched.iter().map(line).collect()
}

/// The traffic of several VIPs, each up to `pace`.
fn together(vips: &[Traffic], pace: f64) -> Traffic {
    let followed = |vip: &Traffic| vip.flows_per_second.min(pace);
    let flows_per_second: f64 = vips.iter().map(followed).sum();
    let failed: f64 = vips.iter().map(|vip| followed(vip) * vip.failing).sum();
    Traffic {
        flows_per_second,
        failing: if flows_per_second > 0.0 {
            failed / flows_per_second
        } else {
            0.0
        },
    }
}

impl fmt::Display for ProofLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proof of {}: ", self.vip)?;
        let rate = self.flows_per_second.unwrap_or(0.0);
        let rate = if rate >= 10.0 {
            format!("{rate:.0} flows/s")
        } else {
            format!("{rate:.1} flows/s")
        };
        match self.proof {
            Proof::After { seconds } => {
                let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                write!(f, "{} at {rate}", Forecast::After(time))
            }
            Proof::NotAtThisRate => write!(f, "{}: {rate}", Forecast::NotAtThisRate),
            Proof::RateUnknown => f.write_str("unknown, as its flow rate is"),
            Proof::ProbesOnly => f.write_str("by probes only, traffic says nothing of it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::plan::{Family, Plan};
    use crate::evidence::signals::Transport;

    fn vip(name: &str, pool: &str) -> Touched {
        Touched {
            vip: 1,
            name: name.to_owned(),
            pool: pool.to_owned(),
            family: Family::Ipv4,
            transport: Transport::Tcp,
            in_control: true,
        }
    }

    fn lines(touched: &[Touched], rates: &[(&str, f64)]) -> Vec<String> {
        let seen = Seen {
            flows_per_second: rates.iter().map(|(n, r)| ((*n).to_owned(), *r)).collect(),
            failing: BTreeMap::new(),
        };
        let margin = Plan::new(Vec::new(), Vec::new()).margin();
        let minutes = Duration::from_mins(10);
        let steps = [(100_000, minutes), (500_000, minutes), (900_000, minutes)];
        let lines = expected(touched, &seen, margin, &steps, lb_common::pace::MOST);
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pools_vips_of_one_family_prove_it_together() {
        let touched = [vip("a", "web"), vip("b", "web"), vip("c", "mail")];
        let told = lines(&touched, &[("a", 90.0), ("b", 6.0), ("c", 0.2)]);
        assert!(told[0].starts_with("proof of a: about "), "{told:?}");
        assert!(told[0].ends_with(" s at 96 flows/s"), "{told:?}");
        assert_eq!(told[1].replace(" b:", " a:"), told[0]);
        assert_eq!(told[2], "proof of c: not at this rate: 0.2 flows/s");
    }

    /// There are records for so many flows a second.
    #[test]
    fn a_proof_takes_no_less_time_where_flows_come_faster_than_they_are_followed() {
        let at = |rate| {
            let told = lines(&[vip("a", "web")], &[("a", rate)]).remove(0);
            told.split(" at ").next().unwrap().to_owned()
        };
        assert_eq!(at(100_000.0), at(2_500.0));
        assert_ne!(at(100.0), at(2_500.0));
    }

    #[test]
    fn what_is_not_known_or_cannot_be_proven_is_said() {
        let mut new = vip("new", "web");
        new.in_control = false;
        let told = lines(&[vip("a", "web"), new], &[]);
        assert_eq!(
            told,
            [
                "proof of a: unknown, as its flow rate is",
                "proof of new: by probes only, traffic says nothing of it"
            ]
        );
    }

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let line = ProofLine {
            vip: "a".to_owned(),
            pool: "web".to_owned(),
            family: "ipv4".to_owned(),
            flows_per_second: Some(1.5),
            proof: Proof::After { seconds: 24.0 },
        };
        let json = serde_json::to_string(&line).unwrap();
        assert!(json.contains(r#""proof":"after","seconds":24.0"#), "{json}");
        assert_eq!(serde_json::from_str::<ProofLine>(&json).unwrap(), line);
    }
}

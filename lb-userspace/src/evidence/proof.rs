//! How long each VIP's proof will take, said before a change begins.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::forecast::{Forecast, Step, Traffic, forecast};
use super::noninferiority::Margin;
use super::plan::Touched;

/// What VIPs see, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// New TCP flows a second, over the last seconds.
    pub flows_per_second: BTreeMap<String, f64>,
    /// Share of handshakes that fail anyhow, where enough were watched.
    pub failing: BTreeMap<String, f64>,
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

/// Says it for the VIPs that a change touches. Flows of a pool's VIPs of one family prove it together.
pub fn expected(
    touched: &[Touched],
    seen: &Seen,
    margin: Margin,
    steps: &[Step],
) -> Vec<ProofLine> {
    let line = |vip: &Touched| {
        let alike = touched.iter().filter(|other| {
            other.provable() && (&other.pool, other.family) == (&vip.pool, vip.family)
        });
        let traffic = if vip.provable() {
            together(alike, seen)
        } else {
            None
        };
        let proof = match traffic {
            _ if !vip.provable() => Proof::ProbesOnly,
            None => Proof::RateUnknown,
            Some(traffic) => match forecast(traffic, margin, steps) {
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
            flows_per_second: traffic.map(|traffic| traffic.flows_per_second),
            proof,
        }
    };
    touched.iter().map(line).collect()
}

/// The traffic of several VIPs; none if nothing is known of any.
fn together<'a>(vips: impl Iterator<Item = &'a Touched>, seen: &Seen) -> Option<Traffic> {
    let (mut rate, mut failed, mut known) = (0.0, 0.0, false);
    for vip in vips {
        let Some(own) = seen.flows_per_second.get(&vip.name) else {
            continue;
        };
        known = true;
        rate += own;
        failed += own * seen.failing.get(&vip.name).copied().unwrap_or(0.0);
    }
    let failing = if rate > 0.0 { failed / rate } else { 0.0 };
    known.then_some(Traffic {
        flows_per_second: rate,
        failing,
    })
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
        let lines = expected(touched, &seen, margin, &steps);
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

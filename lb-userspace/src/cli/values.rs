//! Values on the command line: from what was typed to what it means.

use std::str::FromStr;
use std::time::Duration;

use lb_common::counter::Reason;
use lb_common::sample::is_sampled;

use crate::config::Mac;

/// A share of new flows in whole percent, 1 to 50: what a canary may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryShare(u8);

impl CanaryShare {
    /// Parts per million, 10,000 to 500,000.
    pub fn ppm(self) -> u32 {
        u32::from(self.0).saturating_mul(10_000)
    }
}

impl FromStr for CanaryShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse::<u8>() {
            Ok(percent @ 1..=50) => Ok(Self(percent)),
            _ => Err("a canary takes a whole 1 to 50 percent of new flows".to_owned()),
        }
    }
}

/// A unicast MAC address, `02:00:00:00:00:fe`.
pub fn mac(text: &str) -> Result<Mac, String> {
    let bad = || format!("`{text}` is no MAC address: write 02:00:00:00:00:fe");
    let mut bytes = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts
            .next()
            .filter(|part| is_hex_pair(part))
            .ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() {
        return Err(bad());
    }
    match bytes {
        [first, ..] if first & 1 == 1 => Err(format!("`{text}` is a group address, not a host's")),
        [0, 0, 0, 0, 0, 0] => Err("an all-zero MAC address belongs to nobody".to_owned()),
        _ => Ok(Mac(bytes)),
    }
}

fn is_hex_pair(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Why a packet did not get through, as `status` names it.
pub fn reason(text: &str) -> Result<Reason, String> {
    let kept = || {
        Reason::ALL
            .iter()
            .copied()
            .filter(|reason| is_sampled(*reason))
    };
    kept().find(|reason| reason.label() == text).ok_or_else(|| {
        let names: Vec<_> = kept().map(Reason::label).collect();
        format!(
            "`{text}` is no reason of packets that are kept: {}",
            names.join(", ")
        )
    })
}

/// A time span such as `90s`, `2m` or `1h30m`; zero is refused.
pub fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(format!("{error}; write 90s, 2m or 1h30m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_share_is_1_to_50_percent() {
        assert_eq!("10%".parse::<CanaryShare>().unwrap().ppm(), 100_000);
        assert_eq!("1".parse::<CanaryShare>().unwrap().ppm(), 10_000);
        assert_eq!("50".parse::<CanaryShare>().unwrap().ppm(), 500_000);
        for bad in ["0", "51", "100%", "ten", "-1", "2.5", "10%%", ""] {
            assert!(bad.parse::<CanaryShare>().is_err(), "{bad}");
        }
    }

    #[test]
    fn macs_of_hosts_only() {
        assert_eq!(
            mac("02:00:00:00:00:fe").unwrap(),
            Mac([2, 0, 0, 0, 0, 0xfe])
        );
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:fe:00",
            "2:0:0:0:0:fe",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "02-00-00-00-00-fe",
            "+2:00:00:00:00:fe",
        ] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans() {
        assert_eq!(span("2m").unwrap(), Duration::from_mins(2));
        assert!(span("0s").is_err());
        assert!(span("soon").unwrap_err().contains("90s"));
    }
}

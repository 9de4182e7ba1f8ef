//! An address prefix, as given with `--source`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address or prefix, such as 10.0.1.2 or fd00:172::/64")]
pub struct PrefixError(String);

impl Prefix {
    /// As a key of the program's map: IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2), the length with
    /// it.
    pub(super) fn mapped(self) -> (u32, [u8; 16]) {
        match self.address {
            IpAddr::V4(v4) => {
                let length = u32::from(self.length).saturating_add(96);
                (length, v4.to_ipv6_mapped().octets())
            }
            IpAddr::V6(v6) => (u32::from(self.length), v6.octets()),
        }
    }
}

/// An address as a key of the program's maps.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets()
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), str::parse).map_err(|_| error())?;
        if length > most {
            return Err(error());
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_prefixes() {
        for (text, shown) in [
            ("10.0.1.2", "10.0.1.2/32"),
            ("172.16.0.0/16", "172.16.0.0/16"),
            ("fd00:172::/64", "fd00:172::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "10.0.1",
            "10.0.1.2/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn ipv4_prefixes_are_mapped_with_their_length() {
        let (length, key) = "10.0.0.0/8".parse::<Prefix>().unwrap().mapped();
        assert_eq!(length, 104);
        assert_eq!(key[10..14], [0xff, 0xff, 10, 0]);
    }
}

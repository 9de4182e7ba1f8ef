//! The address plan, all of it from the ranges for documentation and private use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the router sends to the balancer.
pub const VIP_PREFIX_V4: &str = "203.0.113.0/24";
/// What the router sends to the balancer.
pub const VIP_PREFIX_V6: &str = "2001:db8:cafe::/64";
/// The VIP that every lab has.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The VIP that every lab has.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xcafe, 0, 0, 0, 0, 0x10);
/// The balancer, `lb0`.
pub const BALANCER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// The balancer, `lb0`.
pub const BALANCER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
/// The router's address on the segment.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The router's address on the segment.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
/// A prefix that the router sends to the balancer: outer sources of encapsulated packets.
pub const ENCAP_SOURCE_V4: &str = "172.16.0.0/16";
/// A prefix that the router sends to the balancer: outer sources of encapsulated packets.
pub const ENCAP_SOURCE_V6: &str = "fd00:172::/64";
/// How many addresses of each family the client has, as if it were so many hosts: 198.51.100.2 and on,
/// `2001:db8:1::2` and on. The first is its interface's.
pub const CLIENT_ADDRESSES: u8 = 64;
/// The last part of the client's first address.
pub const FIRST_CLIENT: u8 = 2;

/// The most hosts of one kind in a segment.
pub(super) const HOSTS_PER_SEGMENT: usize = 200;
/// The most bystanders.
pub(super) const OTHERS: usize = 10;

/// A network of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Net {
    /// Client and router.
    Client,
    /// Balancer, near backends, both routers.
    Segment,
    /// The backends behind the second router.
    Far,
}

impl Net {
    /// The host with this number, both families: the IPv6 address is *written* with the same
    /// digits as the IPv4 one.
    pub(super) const fn host(self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let written = digits(number);
        let ([a, b, c], v4) = match self {
            Self::Client => ([0x2001, 0xdb8, 1], Ipv4Addr::new(198, 51, 100, number)),
            Self::Segment => ([0xfd00, 1, 0], Ipv4Addr::new(10, 0, 1, number)),
            Self::Far => ([0xfd00, 2, 0], Ipv4Addr::new(10, 0, 2, number)),
        };
        (v4, Ipv6Addr::new(a, b, c, 0, 0, 0, 0, written))
    }
}

/// The number whose hexadecimal digits are the decimal ones of `number`: 65 is 0x65.
const fn digits(number: u8) -> u16 {
    let number = number as u16;
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

/// The client's address with this last part ([`FIRST_CLIENT`] and on), in both families.
pub const fn client_address(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    Net::Client.host(number)
}

/// All addresses of the client, in the family of `like`.
pub fn client_addresses(like: IpAddr) -> Vec<IpAddr> {
    client_numbers()
        .map(client_address)
        .map(|(v4, v6)| if like.is_ipv4() { v4.into() } else { v6.into() })
        .collect()
}

/// The last parts of the client's addresses.
pub(super) fn client_numbers() -> impl Iterator<Item = u8> {
    (FIRST_CLIENT..).take(usize::from(CLIENT_ADDRESSES))
}

/// The address with the prefix length of one host.
pub(super) fn as_host_prefix(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_share_their_digits() {
        let (v4, v6) = Net::Segment.host(11);
        assert_eq!(
            (v4.to_string(), v6.to_string()),
            ("10.0.1.11".into(), "fd00:1::11".into())
        );
        for number in 0..=u8::MAX {
            let (v4, v6) = Net::Client.host(number);
            let (v4, v6) = (v4.to_string(), v6.to_string());
            assert_eq!(
                v4.rsplit('.').next(),
                v6.rsplit(':')
                    .next()
                    .map(|end| if end.is_empty() { "0" } else { end })
            );
        }
        assert_eq!(Net::Segment.host(2), (BALANCER_V4, BALANCER_V6));
        assert_eq!(Net::Segment.host(1), (ROUTER_V4, ROUTER_V6));
    }
}

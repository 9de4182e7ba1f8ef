//! Route look-ups: which interface, and which gateway if any.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use super::NetError;
use super::connection::{Requests, within_patience};

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Interface index.
    pub interface: u32,
    /// Gateway; none = the destination itself is on the link.
    pub gateway: Option<IpAddr>,
    /// The route's own MTU, if it has one.
    pub mtu: Option<u32>,
}

/// Why it would not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPath {
    /// The address is one of this host's.
    Local,
    /// There is no route, or one that says no; the kernel's words.
    NoRoute(String),
}

/// Asks the kernel, by all its tables and rules.
pub(super) async fn look_up(
    requests: &Requests,
    address: IpAddr,
) -> Result<Result<Path, NoPath>, NetError> {
    let what = format!("look up the route to {address}");
    let request = match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .build(),
    };
    let mut answers = Box::pin(requests.handle().route().get(request).execute());
    let answer = within_patience(what.clone(), async { Ok(answers.try_next().await) });
    match answer.await? {
        Ok(Some(message)) => Ok(parse(&message)),
        Ok(None) => Err(NetError::request(what, &"no answer")),
        Err(rtnetlink::Error::NetlinkError(error)) => Ok(Err(refusal(error.raw_code()))),
        Err(error) => Err(NetError::request(what, &error)),
    }
}

fn refusal(code: i32) -> NoPath {
    let words = match code.saturating_neg() {
        libc::ENETUNREACH => "no route".to_owned(),
        libc::EHOSTUNREACH => "the route says unreachable".to_owned(),
        libc::EACCES => "the route says prohibited".to_owned(),
        libc::EINVAL => "the route says blackhole".to_owned(),
        other => std::io::Error::from_raw_os_error(other).to_string(),
    };
    NoPath::NoRoute(words)
}

fn parse(message: &RouteMessage) -> Result<Path, NoPath> {
    let says = |word: &str| Err(NoPath::NoRoute(format!("the route says {word}")));
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => return Err(NoPath::Local),
        RouteType::BlackHole => return says("blackhole"),
        RouteType::Unreachable => return says("unreachable"),
        RouteType::Prohibit => return says("prohibited"),
        other => return says(&format!("{other:?}")),
    }
    let (mut interface, mut gateway, mut mtu) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(v4))
            | RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6))
            | RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            _ => {}
        }
    }
    let interface = interface.ok_or_else(|| NoPath::NoRoute("no interface".to_owned()))?;
    Ok(Path {
        interface,
        gateway,
        mtu,
    })
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_v4_route_may_have_a_v6_gateway() {
        let gateway: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        let found = parse(&message(
            RouteType::Unicast,
            vec![
                RouteAttribute::Oif(3),
                RouteAttribute::Via(RouteVia::Inet6(gateway)),
                RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(64), RouteMetric::Mtu(1400)]),
            ],
        ));
        let expected = Path {
            interface: 3,
            gateway: Some(gateway.into()),
            mtu: Some(1400),
        };
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn what_is_no_path_is_told_apart() {
        assert_eq!(
            parse(&message(RouteType::Local, vec![])),
            Err(NoPath::Local)
        );
        for kind in [
            RouteType::BlackHole,
            RouteType::Prohibit,
            RouteType::Unicast,
        ] {
            let found = parse(&message(kind, vec![]));
            assert!(matches!(found, Err(NoPath::NoRoute(_))), "{found:?}");
        }
        assert_eq!(
            refusal(-libc::ENETUNREACH),
            NoPath::NoRoute("no route".to_owned())
        );
    }
}

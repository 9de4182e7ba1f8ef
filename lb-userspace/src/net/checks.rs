//! The way out of health checks: packets with their mark leave by one interface, whatever the host's
//! routes say of VIPs (they may say nothing, or "unreachable", as BGP daemons like to).
//!
//! A rule sends the mark to a table with one default route each family, by a gateway that does not
//! exist: its neighbour entry is permanent, so that nobody is asked for it, and the BPF program `check`
//! writes the right address over it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;

use futures_util::TryStreamExt as _;
use lb_common::checks::{MARK, MARK_MASK};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::NetError;
use super::connection::{Requests, within_patience};

/// The table. Its number is the mark's first half.
const TABLE: u32 = MARK >> 16;
/// Behind the local table, before all else that hosts usually have.
const PRIORITY: u32 = 999;
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 108, 98);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6c62, 0x6764, 0, 1);
/// Locally administered, nobody's.
const NOBODY: [u8; 6] = [0x02, 0x6c, 0x62, 0x67, 0x64, 0x01];

/// Makes rule, routes and neighbours for an interface, anew if some are there.
pub async fn prepare(index: u32) -> Result<(), NetError> {
    let requests = Requests::open()?;
    let handle = requests.handle();
    let what = "make a way out for health checks";
    within_patience(what, async {
        remove_from(&handle).await;
        let added = add(&handle, index).await;
        added.map_err(|error| NetError::request(what, &error))
    })
    .await
}

async fn add(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    for gateway in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        let neighbour = handle.neighbours().add(index, gateway);
        neighbour
            .link_layer_address(&NOBODY)
            .replace()
            .execute()
            .await?;
    }
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .gateway(GATEWAY_V4)
        .output_interface(index)
        .table_id(TABLE)
        .onlink()
        .build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
        .gateway(GATEWAY_V6)
        .output_interface(index)
        .table_id(TABLE)
        .onlink()
        .build();
    for route in [v4, v6] {
        handle.route().add(route).replace().execute().await?;
    }
    let rule = || {
        let mut rule = handle
            .rule()
            .add()
            .table_id(TABLE)
            .fw_mark(MARK)
            .priority(PRIORITY)
            .action(RuleAction::ToTable);
        let mask = RuleAttribute::FwMask(MARK_MASK);
        rule.message_mut().attributes.push(mask);
        rule
    };
    rule().v4().execute().await?;
    rule().v6().execute().await?;
    Ok(())
}

/// Takes them away again. Blocks; may be called in any thread.
pub fn remove() -> Result<(), NetError> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NetError::Socket)?;
        runtime.block_on(async {
            remove_from(&Requests::open()?.handle()).await;
            Ok(())
        })
    };
    // A thread of its own because the caller may be inside a runtime; it inherits the namespace.
    let removed = thread::scope(|scope| scope.spawn(work).join());
    removed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether an agent has made them. Blocks; may be called in any thread.
pub fn are_there() -> bool {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        runtime.block_on(async {
            let requests = Requests::open().ok()?;
            let rules = requests.handle().rule().get(IpVersion::V4).execute();
            let rules: Vec<_> = rules.try_collect().await.ok()?;
            let marked = RuleAttribute::FwMark(MARK);
            Some(rules.iter().any(|rule| rule.attributes.contains(&marked)))
        })
    };
    let found = thread::scope(|scope| scope.spawn(work).join());
    found.ok().flatten().unwrap_or(false)
}

/// What is not there need not be removed.
async fn remove_from(handle: &Handle) {
    for (version, family) in [
        (IpVersion::V4, AddressFamily::Inet),
        (IpVersion::V6, AddressFamily::Inet6),
    ] {
        let rules = handle.rule().get(version).execute();
        let rules: Vec<_> = rules.try_collect().await.unwrap_or_default();
        for rule in rules.into_iter().filter(|rule| {
            rule.attributes.contains(&RuleAttribute::Table(TABLE))
                && rule.attributes.contains(&RuleAttribute::FwMark(MARK))
        }) {
            let _ = handle.rule().del(rule).execute().await;
        }
        let mut all = RouteMessage::default();
        all.header.address_family = family;
        let routes = handle.route().get(all).execute();
        let routes: Vec<_> = routes.try_collect().await.unwrap_or_default();
        let ours = |route: &RouteMessage| route.attributes.contains(&RouteAttribute::Table(TABLE));
        for route in routes.into_iter().filter(ours) {
            let _ = handle.route().del(route).execute().await;
        }
    }
    let neighbours = handle.neighbours().get().execute();
    let neighbours: Vec<_> = neighbours.try_collect().await.unwrap_or_default();
    let ours = [
        NeighbourAttribute::Destination(NeighbourAddress::Inet(GATEWAY_V4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(GATEWAY_V6)),
    ];
    for neighbour in neighbours {
        if ours.iter().any(|own| neighbour.attributes.contains(own)) {
            let _ = handle.neighbours().del(neighbour).execute().await;
        }
    }
}

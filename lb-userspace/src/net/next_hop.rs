//! From a route, an interface and a neighbour to a next hop: the decision alone, on what is known.

use std::net::IpAddr;

use serde::Serialize;

use super::links::{Link, Links};
use super::neighbour::{Answer, Key, Neighbours};
use super::route::{NoPath, Path};
use crate::config::{Gateway, NodeConfig};

/// Whom packets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Target {
    /// The backend's address.
    pub address: IpAddr,
    /// The frame must reach the backend itself, for its packet is addressed to the VIP (forward
    /// mode `l2`): a gateway would send it back.
    pub direct: bool,
}

/// What this host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The balancer's interfaces, by name.
    pub interfaces: Vec<String>,
    /// Next hops that are not to be resolved.
    pub gateways: Vec<Gateway>,
}

impl From<&NodeConfig> for Settings {
    fn from(node: &NodeConfig) -> Self {
        Self {
            interfaces: node.interfaces.clone(),
            gateways: node.gateways.clone(),
        }
    }
}

/// Who carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The `[[gateway]]` of the interface in agent.toml.
    Static,
    /// The gateway of the route.
    Gateway(IpAddr),
    /// The backend itself.
    OnLink(IpAddr),
}

/// A next hop that packets can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Destination MAC address.
    pub mac: [u8; 6],
    /// Source MAC address: the interface's.
    pub source: [u8; 6],
    /// Interface index.
    pub interface: u32,
    /// VLAN on that interface, 0 = none.
    pub vlan: u16,
    /// Largest IP packet, outer header included: the smaller of the interface's and the route's.
    pub mtu: u16,
    /// Who it is.
    pub via: Via,
}

/// Why there is no next hop, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unresolved {
    /// The routing tables do not lead there.
    #[error("this host has no route to {address} ({why})")]
    NoRoute {
        /// The backend.
        address: IpAddr,
        /// The kernel's words, and which of our interfaces is down.
        why: String,
    },
    /// It is this host.
    #[error("{0} is an address of this host: a balancer cannot be its own backend")]
    Local(IpAddr),
    /// The route leads over an interface that the balancer has not been given.
    #[error(
        "the route to {address} leads over {interface}, which is not in agent.toml's interfaces: \
         add it there, or change the route"
    )]
    NotOurs {
        /// The backend.
        address: IpAddr,
        /// The route's interface.
        interface: String,
    },
    /// A pool with `forward = "l2"` needs its backends on the link.
    #[error(
        "{address} is behind the gateway {gateway}, but forward = \"l2\" reaches only hosts on the \
         same link: use \"ipip\", or give this host an address in the backend's network"
    )]
    NotOnLink {
        /// The backend.
        address: IpAddr,
        /// The gateway.
        gateway: IpAddr,
    },
    /// The interface is off or has no signal.
    #[error("{interface}, which leads to {address}, {}", if *.off { "is switched off (`ip link set up`)" } else { "has no carrier" })]
    LinkDown {
        /// The backend.
        address: IpAddr,
        /// The interface.
        interface: String,
        /// Switched off, as against without a signal.
        off: bool,
    },
    /// The interface carries no Ethernet frames.
    #[error("{interface}, which leads to {address}, is not an Ethernet interface")]
    NotEthernet {
        /// The backend.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// Nobody answers ARP or neighbour solicitations for the address.
    #[error("{} on {interface} does not answer {}", who(.via, .address), question(*.via))]
    NoAnswer {
        /// The backend.
        address: IpAddr,
        /// The gateway, or the backend itself.
        via: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The kernel could not be asked.
    #[error("the next hop of {address} is not known: {why}")]
    Unknown {
        /// The backend.
        address: IpAddr,
        /// What failed.
        why: String,
    },
}

fn who(via: &IpAddr, address: &IpAddr) -> String {
    if via == address {
        address.to_string()
    } else {
        format!("{via}, the gateway to {address},")
    }
}

fn question(via: IpAddr) -> &'static str {
    if via.is_ipv4() {
        "ARP requests"
    } else {
        "neighbour solicitations"
    }
}

/// A next hop, or why there is none.
pub type Resolution = Result<Resolved, Unresolved>;

/// Where to send, as far as routes and interfaces tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    pub link: &'a Link,
    /// The interface that frames leave by, and their VLAN there, 0 = none.
    pub out: (u32, u16),
    pub source: [u8; 6],
    pub mtu: u16,
    pub hop: Hop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Static([u8; 6]),
    Neighbour { key: Key, via: Via },
}

/// The route's part of the decision.
pub(super) fn plan<'a>(
    target: Target,
    route: &Result<Path, NoPath>,
    links: &'a Links,
    settings: &Settings,
) -> Result<Plan<'a>, Unresolved> {
    let address = target.address;
    let (link, path) = match route {
        Ok(path) => (link_of(address, path.interface, links)?, Some(path)),
        Err(NoPath::Local) => return Err(Unresolved::Local(address)),
        Err(NoPath::NoRoute(why)) => match only_gateway(target, links, settings) {
            Some(link) => (link, None),
            None => return Err(no_route(address, why, links, settings)),
        },
    };
    let interface = link.name.clone();
    let Some(out) = out(link, links, settings) else {
        return Err(Unresolved::NotOurs { address, interface });
    };
    if !link.up || !link.carrier {
        return Err(Unresolved::LinkDown {
            address,
            interface,
            off: !link.up,
        });
    }
    let Some(source) = link.mac else {
        return Err(Unresolved::NotEthernet { address, interface });
    };
    let hop = match (
        static_mac(link, settings),
        path.and_then(|path| path.gateway),
    ) {
        (_, Some(gateway)) if target.direct => {
            return Err(Unresolved::NotOnLink { address, gateway });
        }
        (Some(mac), _) if !target.direct => Hop::Static(mac),
        (_, Some(gateway)) => Hop::Neighbour {
            key: (link.index, gateway),
            via: Via::Gateway(gateway),
        },
        (_, None) => Hop::Neighbour {
            key: (link.index, address),
            via: Via::OnLink(address),
        },
    };
    let mtu = path
        .and_then(|path| path.mtu)
        .map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Ok(Plan {
        link,
        out,
        source,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        hop,
    })
}

/// The whole decision.
pub(super) fn decide(
    target: Target,
    route: &Result<Path, NoPath>,
    links: &Links,
    neighbours: &Neighbours,
    settings: &Settings,
) -> Resolution {
    let plan = plan(target, route, links, settings)?;
    let (mac, via) = match plan.hop {
        Hop::Static(mac) => (mac, Via::Static),
        Hop::Neighbour { key, via } => match neighbours.get(&key).map(|found| found.answer) {
            Some(Answer::Mac(mac)) => (mac, via),
            _ => {
                return Err(Unresolved::NoAnswer {
                    address: target.address,
                    via: key.1,
                    interface: plan.link.name.clone(),
                });
            }
        },
    };
    Ok(Resolved {
        mac,
        source: plan.source,
        interface: plan.out.0,
        vlan: plan.out.1,
        mtu: plan.mtu,
        via,
    })
}

/// How frames leave by an interface: itself, if the balancer has it, or as a VLAN of one that it has.
fn out(link: &Link, links: &Links, settings: &Settings) -> Option<(u32, u16)> {
    let ours = |link: &Link| settings.interfaces.contains(&link.name);
    if ours(link) {
        return Some((link.index, 0));
    }
    let vlan = link.vlan?;
    let parent = links.get(&vlan.parent)?;
    ours(parent).then_some((parent.index, vlan.id))
}

fn link_of(address: IpAddr, index: u32, links: &Links) -> Result<&Link, Unresolved> {
    let unknown = || Unresolved::Unknown {
        address,
        why: format!("the route names interface {index}, which is gone"),
    };
    links.get(&index).ok_or_else(unknown)
}

fn static_mac(link: &Link, settings: &Settings) -> Option<[u8; 6]> {
    let mut gateways = settings.gateways.iter();
    gateways
        .find(|gateway| gateway.interface == link.name)
        .map(|gateway| gateway.mac.0)
}

/// A host without routes may still have one static gateway, and then everything goes there.
fn only_gateway<'a>(target: Target, links: &'a Links, settings: &Settings) -> Option<&'a Link> {
    let [gateway] = &settings.gateways[..] else {
        return None;
    };
    let mut links = links.values();
    links.find(|link| !target.direct && link.name == gateway.interface)
}

/// The kernel drops routes of an interface that is down: then that is the reason to be told.
fn no_route(address: IpAddr, why: &str, links: &Links, settings: &Settings) -> Unresolved {
    let state = |name: &String| match links.values().find(|link| link.name == *name) {
        None => Some(format!("; there is no interface {name}")),
        Some(link) if !link.up => Some(format!("; {name} is switched off")),
        Some(link) if !link.carrier => Some(format!("; {name} has no carrier")),
        Some(_) => None,
    };
    let states: String = settings.interfaces.iter().filter_map(state).collect();
    Unresolved::NoRoute {
        address,
        why: format!("{why}{states}"),
    }
}

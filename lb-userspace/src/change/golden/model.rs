//! What should become of a packet, by the image alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::address::Address;
use lb_common::counter::Reason;
use lb_common::packet::FlowKey;
use lb_common::slot::{Member, NextHop, Node, forward_mode, member_state, next_hop_flag};
use lb_common::wire::ip_proto;
use lb_common::{hash, scheme};

use super::packet::{self, Flow, Header, Kind};
use crate::kernel::KernelError;
use crate::kernel::image::{Image, MemberImage, PoolImage, VipImage};
use crate::kernel::object::Kernel;
use crate::kernel::probe::{Action, LONGEST};

/// The port of GUE.
const GUE_PORT: u16 = 6080;
/// Positions of the table that are tried for a backend that takes flows.
const TRIES: usize = 16;
/// The interface that test runs come in by: the loopback.
const INGRESS: u32 = 1;
/// Bytes of a packet that is not to be long.
const SHORT: usize = 100;

/// What should become of a packet.
#[derive(Clone, Debug)]
pub struct Expected {
    /// XDP verdict.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Number of the VIP.
    pub vip: Option<u16>,
    /// Member id of the backend.
    pub member: Option<u32>,
    /// The frame afterwards.
    pub packet: Vec<u8>,
}

/// A backend: as it was meant, and as it is now.
#[derive(Clone, Copy)]
struct Meant {
    id: u32,
    member: Member,
    now: Member,
}

/// An image, by number.
pub struct Model<'a> {
    pools: BTreeMap<u16, &'a PoolImage>,
    members: BTreeMap<u32, &'a MemberImage>,
}

impl<'a> Model<'a> {
    /// Of an image.
    pub fn new(image: &'a Image) -> Self {
        Self {
            pools: image.pools.iter().map(|pool| (pool.number, pool)).collect(),
            members: image.members().map(|member| (member.id, member)).collect(),
        }
    }

    /// Name of a backend.
    pub fn backend(&self, kernel: &Kernel, id: Option<u32>) -> String {
        let Some(id) = id else {
            return "none".to_owned();
        };
        let foreign = || format!("#{id}, which is not of this generation");
        if let Some(member) = self.members.get(&id) {
            return member.name.clone();
        }
        let pool = kernel.maps.member(id).map(|member| member.pool);
        let pool = pool.and_then(|pool| self.pools.get(&pool));
        if !pool.is_some_and(|pool| pool.kept) {
            return foreign();
        }
        let name = kernel.maps.member_name(id);
        name.unwrap_or_else(|_| foreign())
    }

    /// The backend with this id of a pool: as it was meant, and as it is now. What is kept is meant to be
    /// as it is.
    fn member(&self, kernel: &Kernel, pool: &PoolImage, id: u32) -> Option<Meant> {
        let now = kernel.maps.member(id)?;
        let member = if pool.kept {
            let own = now.identity != 0 && now.pool == pool.number;
            own.then_some(now)?
        } else {
            self.members.get(&id)?.member
        };
        Some(Meant { id, member, now })
    }

    /// A packet of a flow to `vip`, and what should become of it.
    pub fn expect(
        &self,
        kernel: &Kernel,
        vip: &VipImage,
        flow: &Flow,
        kind: Kind,
    ) -> Result<(Vec<u8>, Expected), KernelError> {
        let dropped = |reason, vip, member, frame: &[u8]| Expected {
            action: Action::Drop,
            reason,
            vip,
            member,
            packet: frame.to_vec(),
        };
        let number = Some(vip.entry.vip);
        if kind == Kind::Fragment {
            let frame = packet::frame(&packet::build(flow, kind, SHORT));
            let expected = dropped(Reason::Fragment, None, None, &frame);
            return Ok((frame, expected));
        }
        let Some(meant) = self.choose(kernel, vip, &key(flow)) else {
            let frame = packet::frame(&packet::build(flow, kind, SHORT));
            let expected = dropped(Reason::NoBackend, number, None, &frame);
            return Ok((frame, expected));
        };
        let hop = kernel.maps.next_hop(u32::from(meant.now.next_hop))?;
        let pool = self.pools.get(&vip.entry.pool);
        let mtu = match pool.map_or(0, |pool| pool.entry.mtu) {
            0 => hop.mtu,
            own => own.min(hop.mtu),
        };
        let inner = packet::build(flow, kind, length(kind, &meant.member, mtu));
        let frame = packet::frame(&inner);
        if hop.flags & next_hop_flag::RESOLVED == 0 {
            let expected = dropped(Reason::NoNextHop, number, Some(meant.id), &frame);
            return Ok((frame, expected));
        }
        let expected = Expected {
            action: if hop.interface == INGRESS {
                Action::Tx
            } else {
                Action::Redirect
            },
            reason: match kind {
                Kind::Error => Reason::IcmpError,
                _ => Reason::Forwarded,
            },
            vip: number,
            member: Some(meant.id),
            packet: sent(&kernel.node, &inner, flow, &meant.member, &hop),
        };
        Ok((frame, expected))
    }

    /// The backend that the table gives a flow: as it was meant, and as it is now (health, drains and
    /// next hop are no part of a generation).
    fn choose(&self, kernel: &Kernel, vip: &VipImage, key: &FlowKey) -> Option<Meant> {
        let pool = self.pools.get(&vip.entry.pool)?;
        let size = pool.table.size;
        let key = scheme::placed(key, vip.entry.flags, vip.entry.port);
        let mut hash = hash::flow(kernel.node.fleet_key, &key);
        let mut spare: Option<Meant> = None;
        for _ in 0..TRIES {
            let number = pool.entry_at(&kernel.maps, hash::entry(hash, size));
            let id = pool.entry.member_base.saturating_add(u32::from(number));
            let found = self.member(kernel, pool, id);
            if let Some(found) = found.filter(|_| number != 0) {
                if found.now.takes(hash) {
                    return Some(found);
                }
                let up = found.now.state == member_state::UP;
                if found.now.spare() && (spare.is_none() || up) {
                    spare = Some(found);
                }
            }
            hash = hash::finish(hash.wrapping_add(1));
        }
        spare
    }
}

/// The flow as the program knows it.
fn key(flow: &Flow) -> FlowKey {
    FlowKey {
        source: Address::from(flow.client),
        destination: Address::from(flow.vip),
        source_port: flow.client_port.to_be(),
        destination_port: flow.vip_port.to_be(),
        protocol: flow.protocol,
    }
}

/// Bytes that a tunnel to this member adds.
fn overhead(member: &Member) -> u16 {
    match (member.forward, member.address.is_v4()) {
        (forward_mode::IPIP, true) => 20,
        (forward_mode::IPIP, false) => 40,
        (forward_mode::GUE, true) => 28,
        (forward_mode::GUE, false) => 48,
        _ => 0,
    }
}

/// Bytes of the IP packet: for the full size exactly what fits.
fn length(kind: Kind, member: &Member, mtu: u16) -> usize {
    let fits = usize::from(mtu.saturating_sub(overhead(member)));
    match kind {
        Kind::Full => fits
            .min(LONGEST.saturating_sub(packet::ETHERNET))
            .max(SHORT),
        _ => SHORT,
    }
}

/// The frame that leaves.
fn sent(node: &Node, inner: &[u8], flow: &Flow, member: &Member, hop: &NextHop) -> Vec<u8> {
    if !matches!(member.forward, forward_mode::IPIP | forward_mode::GUE) {
        return packet::ethernet(hop.destination, hop.source, inner);
    }
    let entropy = hash::flow(node.tag_key, &key(flow));
    let backend = IpAddr::from(member.address);
    let outer = Header {
        from: source(node, backend, entropy),
        to: backend,
        protocol: if flow.vip.is_ipv4() { 4 } else { 41 },
        tos: packet::TOS,
        ttl: 64,
        id: 0,
        flags: packet::DONT_FRAGMENT,
        flow_label: u32::try_from(entropy >> 32).unwrap_or(0) & 0xf_ffff,
    };
    let whole = if member.forward == forward_mode::GUE {
        let [.., high, low] = (0xc000 | (entropy >> 16) & 0x3fff).to_be_bytes();
        let datagram = packet::in_udp(&outer, u16::from_be_bytes([high, low]), GUE_PORT, inner);
        let outer = Header {
            protocol: ip_proto::UDP,
            ..outer
        };
        packet::ip(&outer, &datagram)
    } else {
        packet::ip(&outer, inner)
    };
    packet::ethernet(hop.destination, hop.source, &whole)
}

/// The outer source: the prefix of agent.toml, the rest filled from the flow's hash.
fn source(node: &Node, backend: IpAddr, entropy: u64) -> IpAddr {
    let low = u32::try_from(entropy & u64::from(u32::MAX)).unwrap_or(0);
    match backend {
        IpAddr::V4(_) => IpAddr::from((node.source_v4 ^ (low & node.source_v4_mask)).to_ne_bytes()),
        IpAddr::V6(_) => {
            let [a, b, c, d] = node.source_v6;
            let words = [a, b, c, d ^ (low & node.source_v6_mask)];
            IpAddr::from(Address::from_words(words).v6_bytes())
        }
    }
}

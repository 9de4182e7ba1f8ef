//! VIPs, and where they lie.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::address::Address;
use lb_common::hash;
use lb_common::slot::{Node, VIP_PROBES, VipEntry, vip_flag, vip_kind};
use zerocopy::FromZeros;

use super::super::KernelError;
use super::VipImage;
use crate::config::{Protocol, Vip, VipFlag};

/// The kernel's bits of a VIP's flags.
pub fn flag_bits(flags: &BTreeSet<VipFlag>) -> u8 {
    let bit = |flag: &VipFlag| match flag {
        VipFlag::ClientAffinity => vip_flag::CLIENT_AFFINITY,
        VipFlag::Stateless => vip_flag::STATELESS,
        VipFlag::HashDport => vip_flag::HASH_DPORT,
        VipFlag::Quic => vip_flag::QUIC,
    };
    flags.iter().map(bit).fold(0, |bits, bit| bits | bit)
}

pub(super) fn vip_entry(vip: &Vip, number: u16, pool: u16) -> VipEntry {
    VipEntry {
        address: Address::from(vip.address),
        port: vip.port.to_be(),
        protocol: match vip.protocol {
            Protocol::Tcp => lb_common::wire::ip_proto::TCP,
            Protocol::Udp => lb_common::wire::ip_proto::UDP,
        },
        kind: vip_kind::VIP,
        vip: number,
        pool,
        flags: flag_bits(&vip.flags),
        ..VipEntry::new_zeroed()
    }
}

pub(super) fn address_entry(address: IpAddr) -> VipEntry {
    VipEntry {
        address: Address::from(address),
        kind: vip_kind::ADDRESS,
        ..VipEntry::new_zeroed()
    }
}

/// The places of a VIP table, as they fill up.
pub(super) struct Places {
    node: Node,
    taken: BTreeSet<u32>,
}

impl Places {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            node: *node,
            taken: BTreeSet::new(),
        }
    }

    /// First free place where the packet path looks for this key.
    pub(super) fn put(&mut self, entry: VipEntry, name: &str) -> Result<VipImage, KernelError> {
        let mask = self.node.vip_places.wrapping_sub(1);
        let hash = hash::vip(
            self.node.tag_key,
            &entry.address,
            entry.port,
            entry.protocol,
        );
        let first = u32::try_from(hash & u64::from(mask)).unwrap_or(0);
        let place = (0..VIP_PROBES)
            .map(|probe| first.wrapping_add(probe) & mask)
            .find(|place| !self.taken.contains(place))
            .ok_or_else(|| {
                KernelError::Capacity(format!(
                    "no place for VIP {name} in a table of {}: raise [tables] vips in agent.toml",
                    self.node.vip_places
                ))
            })?;
        self.taken.insert(place);
        Ok(VipImage {
            place,
            name: name.to_owned(),
            entry,
        })
    }
}

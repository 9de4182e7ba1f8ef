//! What a change touches: the VIPs whose flows it may move, and the backends that get them.

use std::net::IpAddr;

use lb_common::slot::vip_flag;

use crate::config::{Config, Protocol};
use crate::evidence::plan::{Family, Touched};
use crate::evidence::shares::{MemberShare, PoolShares};
use crate::evidence::signals::Transport;
use crate::kernel::image::{Image, PoolImage, VipImage};
use crate::kernel::object::Kernel;

/// VIPs of a sealed slot whose flows may go elsewhere than by the old configuration: as the guard found when it
/// sealed them, since packets go by the same.
pub(super) fn vips<'a>(kernel: &Kernel, image: &'a Image, slot: u8) -> Vec<&'a VipImage> {
    let may_move = |vip: &&VipImage| {
        let entry = kernel.maps.vip(&kernel.node, slot, vip.place);
        entry.is_some_and(|entry| entry.sealed_ppm > 1)
    };
    image.vips.iter().filter(may_move).collect()
}

/// Whether the configuration serves what the VIP serves, be it as a part of a port-0 VIP.
fn has(config: Option<&Config>, vip: &VipImage) -> bool {
    let (address, port, protocol) = clients_use(vip);
    config.is_some_and(|config| config.serving(address, port, protocol).is_some())
}

/// What clients know a VIP by.
fn clients_use(vip: &VipImage) -> (IpAddr, u16, Protocol) {
    let protocol = match vip.entry.protocol {
        6 => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    let port = u16::from_be(vip.entry.port);
    (vip.entry.address.into(), port, protocol)
}

/// A VIP, as it is judged.
pub(super) fn touched(image: &Image, vip: &VipImage, old: Option<&Config>) -> Touched {
    let pool = image
        .pools
        .iter()
        .find(|pool| pool.number == vip.entry.pool);
    let family = if vip.entry.address.is_v4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let transport = match vip.entry.protocol {
        // What nothing remembers is not followed.
        6 if !vip.entry.has(vip_flag::STATELESS) => Transport::Tcp,
        _ if vip.entry.has(vip_flag::QUIC) && !vip.entry.has(vip_flag::STATELESS) => {
            Transport::Quic
        }
        _ => Transport::Udp,
    };
    Touched {
        vip: vip.entry.vip,
        name: vip.name.clone(),
        pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
        family,
        transport,
        in_control: has(old, vip),
    }
}

/// How a pool's table shares its flows out.
pub(super) fn shares(pool: &PoolImage, old: Option<&Config>) -> PoolShares {
    let entries = pool.table.entries.len().max(1);
    let before = old.and_then(|config| config.pool(&pool.name));
    let member = |member: &crate::kernel::image::MemberImage| {
        let number = member.id.saturating_sub(pool.entry.member_base);
        let mine = pool
            .table
            .entries
            .iter()
            .filter(|entry| u32::from(**entry) == number);
        #[expect(clippy::cast_precision_loss, reason = "tables have few entries")]
        let share = mine.count() as f64 / entries as f64;
        MemberShare {
            member: member.id,
            name: member.name.clone(),
            share,
            in_control: before
                .is_some_and(|pool| pool.backends.iter().any(|old| old.name == member.name)),
        }
    };
    PoolShares {
        pool: pool.name.clone(),
        members: pool.members.iter().map(member).collect(),
    }
}

//! Looking without touching: what this kernel can do, and what the pins hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use lb_common::encap;
use lb_common::slot::{forward_mode, next_hop_flag, vip_kind};
use lb_common::wire::ip_proto;

use super::KernelError;
use super::link::{self, FdInfo};
use super::maps::{FROZEN, Maps};
use super::pins::Pins;
use crate::sys;

/// A feature of the kernel that lbguard cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `bpf_map_lookup_percpu_elem`, Linux 5.19: the breaker sums counters over CPUs.
    PerCpuLookup,
    /// `bpf_loop`, Linux 5.17.
    Loop,
    /// `bpf_timer`, Linux 5.15.
    Timer,
    /// Arrays that can be mapped, Linux 5.5.
    MappedArray,
    /// Freezing of maps, Linux 5.2.
    Freeze,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PerCpuLookup,
        Self::Loop,
        Self::Timer,
        Self::MappedArray,
        Self::Freeze,
    ];

    /// Its name, and the version that brought it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerCpuLookup => "bpf_map_lookup_percpu_elem (Linux 5.19)",
            Self::Loop => "bpf_loop (Linux 5.17)",
            Self::Timer => "bpf_timer (Linux 5.15)",
            Self::MappedArray => "mmapable arrays (Linux 5.5)",
            Self::Freeze => "frozen maps (Linux 5.2)",
        }
    }

    /// Tries it out.
    ///
    /// # Errors
    /// When it could not be tried, say for lack of a capability.
    pub fn is_there(self) -> Result<bool, KernelError> {
        let failed = |e: &dyn ToString| {
            KernelError::Load(format!("trying {}: {}", self.name(), e.to_string()))
        };
        let helper = |helper| is_helper_supported(ProgramType::Xdp, helper).map_err(|e| failed(&e));
        match self {
            Self::PerCpuLookup => helper(BpfHelper::BPF_FUNC_map_lookup_percpu_elem),
            Self::Loop => helper(BpfHelper::BPF_FUNC_loop),
            Self::Timer => helper(BpfHelper::BPF_FUNC_timer_init),
            Self::MappedArray => match link::create_array(link::MMAPABLE) {
                Ok(_) => Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
                Err(error) => Err(failed(&error)),
            },
            Self::Freeze => {
                let map = link::create_array(0).map_err(|e| failed(&e))?;
                Ok(sys::freeze_map(map.as_fd()).is_ok())
            }
        }
    }
}

/// Pinned maps that are not frozen, and so could be written by any tool of root's.
pub fn unfrozen(pins: &Pins) -> Result<Vec<&'static str>, KernelError> {
    let mut found = Vec::new();
    for name in FROZEN {
        let path = pins.map(name);
        let failed = |e| KernelError::io(format!("open {}", path.display()), e);
        let map = link::open(&path).map_err(failed)?;
        let info = FdInfo::of(map.as_fd()).map_err(failed)?;
        if info.number("frozen") != 1 {
            found.push(name);
        }
    }
    Ok(found)
}

/// What the committed generation forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// VIPs by name.
    pub vips: Vec<(String, IpAddr)>,
    /// Backends.
    pub backends: Vec<Backend>,
}

/// A backend as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Reached by MAC address rather than by encapsulation.
    pub direct: bool,
    /// The kernel has a next hop for it, of this MTU, or its pool's if that is smaller.
    pub next_hop_mtu: Option<u16>,
    /// Its member id.
    pub member: u32,
    /// Bytes of the outer headers; 0 = none.
    pub overhead: u16,
    /// TCP VIPs with a port that it answers for.
    pub tcp: Vec<SocketAddr>,
}

/// Reads the active slot.
pub fn active(maps: &Maps) -> Result<Active, KernelError> {
    let mut active = Active::default();
    let Some(record) = maps.record()? else {
        return Ok(active);
    };
    let node = maps.node()?;
    let mut tcp: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
    for place in 0..node.vip_places {
        match maps.vip(&node, record.active, place) {
            Some(vip) if vip.kind == vip_kind::VIP => {
                if vip.protocol == ip_proto::TCP && vip.port != 0 {
                    let own = SocketAddr::new(vip.address.into(), u16::from_be(vip.port));
                    tcp.entry(vip.pool).or_default().push(own);
                }
                active
                    .vips
                    .push((maps.vip_name(vip.vip)?, vip.address.into()));
            }
            _ => {}
        }
    }
    let slot = 1u8.checked_shl(u32::from(record.active)).unwrap_or(0);
    for id in 1..node.members {
        let Some(member) = maps.member(id).filter(|member| member.slots & slot != 0) else {
            continue;
        };
        let hop = maps.next_hop(u32::from(member.next_hop))?;
        let resolved = member.next_hop != 0 && hop.flags & next_hop_flag::RESOLVED != 0;
        let mtu = match maps.pool(&node, record.active, member.pool)?.mtu {
            0 => hop.mtu,
            own => own.min(hop.mtu),
        };
        active.backends.push(Backend {
            name: maps.member_name(id)?,
            address: member.address.into(),
            direct: member.forward == forward_mode::L2,
            next_hop_mtu: resolved.then_some(mtu),
            member: id,
            overhead: encap::added(member.forward, member.address.is_v4()),
            tcp: tcp.get(&member.pool).cloned().unwrap_or_default(),
        });
    }
    active.vips.sort();
    Ok(active)
}

//! Interfaces: by name and by index, with what matters for sending a frame.

use std::collections::BTreeMap;
use std::thread;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    VlanProtocol, XdpAttached,
};

use super::NetError;
use super::connection::{Requests, within_patience};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address, if it is an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Switched on (`ip link set up`).
    pub up: bool,
    /// There is a signal (a cable, a peer).
    pub carrier: bool,
    /// The XDP program on it, if any.
    pub xdp: Option<XdpProgram>,
    /// Whose VLAN it is, if it is one (`ip link add ... type vlan`).
    pub vlan: Option<Vlan>,
}

/// A VLAN of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the interface whose frames are tagged.
    pub parent: u32,
    /// 1 to 4094.
    pub id: u16,
}

/// An XDP program on an interface, whoever attached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// Its id in the kernel (`bpftool prog show id`).
    pub id: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// After the kernel has built an skb: slow.
    Generic,
    /// On the card.
    Offloaded,
}

impl XdpMode {
    /// One word, as in agent.toml.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        }
    }
}

/// All interfaces, by index.
pub(super) type Links = BTreeMap<u32, Link>;

/// Reads an interface by name; `None` if there is none. Blocks; may be called in any thread.
pub fn read(name: &str) -> Result<Option<Link>, NetError> {
    Ok(read_all()?.into_iter().find(|link| link.name == name))
}

/// Reads all interfaces of the calling thread's network namespace. Blocks; may be called in any
/// thread, one that runs a tokio runtime included.
pub fn read_all() -> Result<Vec<Link>, NetError> {
    // A thread of its own because the caller may be inside a runtime; it inherits the namespace.
    let links = thread::scope(|scope| scope.spawn(read_in_own_runtime).join());
    let links = links.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(links.into_values().collect())
}

fn read_in_own_runtime() -> Result<Links, NetError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NetError::Socket)?;
    runtime.block_on(async { dump(&Requests::open()?).await })
}

/// All interfaces.
pub(super) async fn dump(requests: &Requests) -> Result<Links, NetError> {
    const WHAT: &str = "list the interfaces";
    let messages = requests.handle().link().get().execute();
    let messages = within_patience(WHAT, async {
        messages
            .try_collect::<Vec<_>>()
            .await
            .map_err(|e| NetError::request(WHAT, &e))
    });
    let links = messages
        .await?
        .iter()
        .filter_map(parse)
        .map(|link| (link.index, link))
        .collect();
    Ok(links)
}

/// `None` for messages that are not about an interface as such (a bridge's ports are told so, too).
pub(super) fn parse(message: &LinkMessage) -> Option<Link> {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let flags = message.header.flags;
    let (mut name, mut mac, mut mtu, mut xdp) = (None, None, None, None);
    let (mut parent, mut id) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) if ethernet => mac = <[u8; 6]>::try_from(&bytes[..]).ok(),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            LinkAttribute::Xdp(attributes) => xdp = program(attributes),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => id = vlan_id(infos),
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        mtu: mtu?,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        xdp,
        vlan: parent.zip(id).map(|(parent, id)| Vlan { parent, id }),
    })
}

/// The id of an 802.1Q VLAN; frames of an 802.1ad one have another EtherType, which is not supported.
fn vlan_id(infos: &[LinkInfo]) -> Option<u16> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let foreign =
        |info: &InfoVlan| matches!(info, InfoVlan::Protocol(p) if *p != VlanProtocol::Ieee8021Q);
    if data.iter().any(foreign) {
        return None;
    }
    data.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn program(attributes: &[LinkXdp]) -> Option<XdpProgram> {
    let id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })?;
    let native = attributes.iter().any(|attribute| match attribute {
        LinkXdp::Attached(attached) => *attached == XdpAttached::Driver,
        LinkXdp::DrvProgId(_) => true,
        _ => false,
    });
    let offloaded = attributes.contains(&LinkXdp::Attached(XdpAttached::Hardware));
    let mode = match (native, offloaded) {
        (true, _) => XdpMode::Native,
        (_, true) => XdpMode::Offloaded,
        _ => XdpMode::Generic,
    };
    Some(XdpProgram { id, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_told_apart() {
        let on = |attached, id| program(&[LinkXdp::Attached(attached), id]);
        let found = on(XdpAttached::Driver, LinkXdp::ProgId(7));
        assert_eq!(
            found,
            Some(XdpProgram {
                id: 7,
                mode: XdpMode::Native
            })
        );
        let found = on(XdpAttached::SocketBuffer, LinkXdp::ProgId(8));
        assert_eq!(
            found,
            Some(XdpProgram {
                id: 8,
                mode: XdpMode::Generic
            })
        );
        let found = on(XdpAttached::Hardware, LinkXdp::ProgId(9));
        assert_eq!(
            found,
            Some(XdpProgram {
                id: 9,
                mode: XdpMode::Offloaded
            })
        );
        assert_eq!(program(&[LinkXdp::Attached(XdpAttached::None)]), None);
    }

    /// This machine may have no VLANs: what the kernel says of one.
    #[test]
    fn a_vlan_is_known_with_its_interface() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.100".to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vlan(vec![
                InfoVlan::Protocol(VlanProtocol::Ieee8021Q),
                InfoVlan::Id(100),
            ]))]),
        ];
        let vlan = |message: &LinkMessage| parse(message).unwrap().vlan;
        assert_eq!(vlan(&message), Some(Vlan { parent: 3, id: 100 }));
        // A veth has a peer's index and is no VLAN.
        message.attributes.truncate(3);
        assert_eq!(vlan(&message), None);
    }

    #[test]
    fn the_loopback_has_no_ethernet_address_and_is_found_by_name() {
        let lo = read("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.mac), (1, None));
        assert_eq!(read("no-such-one").unwrap(), None);
    }
}

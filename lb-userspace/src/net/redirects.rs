//! Which interfaces take packets that XDP redirects to them, as the kernel tells since 6.3 (generic
//! netlink family "netdev", `Documentation/netlink/specs/netdev.yaml`).
//!
//! To one that does not, `bpf_redirect` is a drop that no program sees: the verdict was given, and the
//! kernel refuses afterwards. A veth takes them while its other end has an XDP program or GRO; cards do
//! if their driver can, many only while a program is attached.

use std::collections::BTreeMap;
use std::io;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

use super::{Link, XdpMode, links};

/// Numbers of `linux/genetlink.h`.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Numbers of `linux/netdev.h`.
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const NDO_XMIT: u64 = 1 << 2;
/// Lengths of the headers.
const NETLINK: usize = 16;
const GENERIC: usize = 4;

/// What to do about an interface that takes none.
pub const WAY_OUT: &str = "a veth: switch GRO on at its other end (`ethtool -K PEER gro on`); a card: attach \
                           a program, which many drivers need for it (`lbguard attach`); else set xdp_mode \
                           = \"generic\", which needs nothing of a driver, and is slow";

/// Those of a balancer's interfaces that do not take what another of them redirects. Blocks.
///
/// # Errors
/// The system's; `NotFound` from kernels that do not tell (before 6.3).
pub fn closed(interfaces: &[String]) -> io::Result<Vec<Link>> {
    if interfaces.len() < 2 {
        return Ok(Vec::new());
    }
    let takes = targets()?;
    let open = |name: &String| {
        let index = if_nametoindex(name.as_str()).ok();
        index.is_none_or(|index| takes.get(&index).copied().unwrap_or(true))
    };
    if interfaces.iter().all(open) {
        return Ok(Vec::new());
    }
    let all = links::read_all().map_err(io::Error::other)?;
    let ours = |link: &&Link| interfaces.contains(&link.name);
    // A program in generic mode hands over whole skbs, which every interface takes.
    let native = |link: &Link| link.xdp.is_some_and(|xdp| xdp.mode == XdpMode::Native);
    let others = |one: &Link| {
        all.iter()
            .filter(ours)
            .any(|link| link.index != one.index && native(link))
    };
    let closed = all
        .iter()
        .filter(ours)
        .filter(|link| takes.get(&link.index) == Some(&false));
    Ok(closed.filter(|link| others(link)).cloned().collect())
}

/// Interfaces of the calling thread's network namespace, by index, and whether they take redirected
/// packets.
fn targets() -> io::Result<BTreeMap<u32, bool>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = family(&socket)?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    send(&socket, family, flags, DEV_GET, &[])?;
    let mut found = BTreeMap::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in messages(&answer) {
            match message? {
                Message::Done => return Ok(found),
                Message::Attributes(bytes) => found.extend(device(bytes)),
            }
        }
    }
}

/// The number that the kernel has given the family "netdev".
fn family(socket: &Socket) -> io::Result<u16> {
    let mut name = attribute_header(FAMILY_NAME, 7).to_vec();
    name.extend(b"netdev\0\0");
    send(socket, CONTROLLER, libc::NLM_F_REQUEST, GET_FAMILY, &name)?;
    let (answer, _) = socket.recv_from_full()?;
    for message in messages(&answer) {
        if let Message::Attributes(bytes) = message?
            && let Some(id) = attribute(bytes, FAMILY_ID)
            && let Ok(id) = id.try_into()
        {
            return Ok(u16::from_ne_bytes(id));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn attribute_header(kind: u16, length: u8) -> [u8; 4] {
    let [a, b] = (u16::from(length).saturating_add(4)).to_ne_bytes();
    let [c, d] = kind.to_ne_bytes();
    [a, b, c, d]
}

fn send(
    socket: &Socket,
    family: u16,
    flags: i32,
    command: u8,
    attributes: &[u8],
) -> io::Result<()> {
    let length = NETLINK
        .saturating_add(GENERIC)
        .saturating_add(attributes.len());
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let flags = u16::try_from(flags).map_err(io::Error::other)?;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and sender: there is one question at a time.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attributes);
    socket.send(&bytes, 0).map(drop)
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Attributes(&'a [u8]),
    Done,
}

/// The messages of a datagram; an error ends them.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        let length: [u8; 4] = *bytes.first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
        let message = bytes.get(..length).filter(|_| length >= NETLINK)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(read(message))
    })
}

fn read(message: &[u8]) -> io::Result<Message<'_>> {
    let kind = message.get(4..6).and_then(|kind| kind.try_into().ok());
    match kind.map(u16::from_ne_bytes).map(i32::from) {
        Some(libc::NLMSG_DONE) => Ok(Message::Done),
        Some(libc::NLMSG_ERROR) => {
            let code = message.get(NETLINK..).and_then(|rest| rest.first_chunk());
            let code = code.map_or(libc::EPROTO, |code| {
                i32::from_ne_bytes(*code).saturating_neg()
            });
            Err(io::Error::from_raw_os_error(code))
        }
        _ => {
            let attributes = message.get(NETLINK.saturating_add(GENERIC)..);
            Ok(Message::Attributes(attributes.unwrap_or_default()))
        }
    }
}

fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(bytes).map_while(Result::ok);
    let found = all.find(|nla| nla.kind() == kind)?;
    found.into_inner().get(4..usize::from(found.length()))
}

fn device(bytes: &[u8]) -> Option<(u32, bool)> {
    let index = attribute(bytes, DEV_IFINDEX)?.try_into().ok()?;
    let features = attribute(bytes, DEV_XDP_FEATURES)?.try_into().ok()?;
    let takes = u64::from_ne_bytes(features) & NDO_XMIT != 0;
    Some((u32::from_ne_bytes(index), takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_takes_none() {
        match targets() {
            Ok(found) => assert_eq!(found.get(&1), Some(&false), "{found:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }

    #[test]
    fn broken_datagrams_are_no_messages() {
        for length in [0_u32, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(16, 0);
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
        let mut error = [0; 20];
        error[0] = 20;
        error[4] = 2;
        error[16..].copy_from_slice(&(-2_i32).to_ne_bytes());
        let told = messages(&error).next().unwrap().unwrap_err();
        assert_eq!(told.raw_os_error(), Some(libc::ENOENT));
    }
}

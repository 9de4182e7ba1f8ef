//! Neighbours: who has which MAC address, and asking the kernel to find out and to keep it fresh.

use std::collections::HashMap;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};

use super::NetError;
use super::connection::{Requests, within_patience};

/// A neighbour's address on an interface.
pub(super) type Key = (u32, IpAddr);
/// Neighbours by address.
pub(super) type Neighbours = HashMap<Key, Neighbour>;

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// What is known of its MAC address.
    pub answer: Answer,
    /// Set by hand or needing no resolution: it must not be touched.
    pub fixed: bool,
    /// The kernel keeps it fresh.
    pub managed: bool,
}

/// What is known of a neighbour's MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is this one (perhaps not confirmed lately: the kernel sees to that).
    Mac([u8; 6]),
    /// The kernel is asking.
    Asking,
    /// It did not answer.
    Silent,
}

/// The whole table.
pub(super) async fn dump(requests: &Requests) -> Result<Neighbours, NetError> {
    const WHAT: &str = "list the neighbours";
    let messages = requests.handle().neighbours().get().execute();
    let messages = within_patience(WHAT, async {
        messages
            .try_collect::<Vec<_>>()
            .await
            .map_err(|e| NetError::request(WHAT, &e))
    });
    Ok(messages.await?.iter().filter_map(parse).collect())
}

/// `None` for entries of other protocols (a bridge's forwarding table comes as neighbours, too).
pub(super) fn parse(message: &NeighbourMessage) -> Option<(Key, Neighbour)> {
    let (mut address, mut mac, mut managed) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok();
            }
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let state = message.header.state;
    let neighbour = Neighbour {
        answer: answer(state, mac),
        fixed: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp),
        managed,
    };
    Some(((message.header.ifindex, address?), neighbour))
}

fn answer(state: NeighbourState, mac: Option<[u8; 6]>) -> Answer {
    match (state, mac) {
        (NeighbourState::Failed, _) => Answer::Silent,
        (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Answer::Asking,
        (_, Some(mac)) => Answer::Mac(mac),
    }
}

/// How the kernel is to treat a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Resolve it now and keep it fresh (`ip neigh replace .. managed`).
    Managed,
    /// Resolve it now, once (`.. use`); takes `managed` away.
    Use,
}

/// Makes the kernel resolve a neighbour. A fixed entry would lose its address by this: never call
/// it for one.
pub(super) async fn ask(requests: &Requests, key: Key, care: Care) -> Result<(), NetError> {
    let (interface, address) = key;
    let what = format!("have the kernel resolve {address}");
    let mut request = requests
        .handle()
        .neighbours()
        .add(interface, address)
        .replace()
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use);
    if care == Care::Managed {
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        request.message_mut().header.flags = NeighbourFlags::empty();
        request.message_mut().attributes.push(managed);
    }
    within_patience(what.clone(), async {
        request
            .execute()
            .await
            .map_err(|e| NetError::request(what, &e))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confirmed_answer_is_an_address() {
        let mac = [2, 0, 0, 0, 0, 1];
        for (state, expected) in [
            (NeighbourState::Reachable, Answer::Mac(mac)),
            (NeighbourState::Stale, Answer::Mac(mac)),
            (NeighbourState::Probe, Answer::Mac(mac)),
            (NeighbourState::Permanent, Answer::Mac(mac)),
            (NeighbourState::Incomplete, Answer::Asking),
            (NeighbourState::None, Answer::Asking),
            // The kernel still tells the last address of a neighbour that is gone.
            (NeighbourState::Failed, Answer::Silent),
        ] {
            assert_eq!(answer(state, Some(mac)), expected, "{state}");
        }
        assert_eq!(answer(NeighbourState::Reachable, None), Answer::Asking);
    }
}

//! Whether a program has made of a packet what it should: compared byte by byte with what etherparse
//! builds. A wrong one has no figure.

use std::fmt;
use std::net::IpAddr;

use lb_common::slot::Node;
use lb_userspace::kernel::probe::Action;

use crate::expect;
use crate::measure::programs::Ran;
use crate::measure::workload::{Kind, Workload};

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a program should do.
pub enum Expected<'a> {
    /// Send the packet back as it is.
    Returned,
    /// Send it on in a tunnel as this node does, to one of these backends.
    Tunnelled(&'a Node, &'a dyn Fn(IpAddr) -> bool),
}

/// Compares the packet of `flow`.
pub fn packet(workload: &Workload, flow: u32, expected: &Expected, ran: &Ran) -> Result<(), Wrong> {
    let frame = workload.frame(flow);
    let (action, wanted) = match expected {
        Expected::Returned => (Action::Tx, frame),
        Expected::Tunnelled(..) if !workload.for_vip => (Action::Pass, frame),
        Expected::Tunnelled(node, is_backend) => {
            let backend = destination(&ran.packet)
                .filter(|address| is_backend(*address))
                .ok_or_else(|| wrong(workload, flow, ran, "to none of the backends"))?;
            let protocol = if workload.kind == Kind::Udp { 17 } else { 6 };
            let key = expect::key(workload.talk(flow), protocol);
            (Action::Tx, expect::ipip(node, &frame, &key, backend))
        }
    };
    if ran.action != action {
        let why = format!("{} instead of {}", ran.action.as_str(), action.as_str());
        return Err(wrong(workload, flow, ran, &why));
    }
    match ran
        .packet
        .iter()
        .zip(&wanted)
        .position(|(got, want)| got != want)
    {
        None if ran.packet.len() == wanted.len() => Ok(()),
        None => Err(wrong(
            workload,
            flow,
            ran,
            &format!("{} bytes long", ran.packet.len()),
        )),
        Some(at) => Err(wrong(
            workload,
            flow,
            ran,
            &format!("byte {at} is not as it should be"),
        )),
    }
}

fn wrong(workload: &Workload, flow: u32, ran: &Ran, why: &str) -> Wrong {
    let bytes: Vec<String> = ran
        .packet
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Wrong(format!(
        "{}, flow {flow}: {why}: {} {}",
        workload.name,
        ran.action.as_str(),
        bytes.join("")
    ))
}

/// The destination of an IP packet in a frame.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match *frame.get(14)? >> 4 {
        4 => <[u8; 4]>::try_from(frame.get(30..34)?)
            .ok()
            .map(IpAddr::from),
        6 => <[u8; 16]>::try_from(frame.get(38..54)?)
            .ok()
            .map(IpAddr::from),
        _ => None,
    }
}

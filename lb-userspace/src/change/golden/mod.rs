//! Golden packets: what a sealed slot does with packets to its VIPs, compared byte by byte with
//! what it should do.
//!
//! The packets go through the program that forwards, as test runs that name the slot: no flow is
//! remembered, and they count in a set of their own. What should become of them is computed here
//! from the [`Image`] that was meant, with no code of the program's but the hash. So a table, a
//! backend, a next hop or a program that differs from what was meant is found before it has had a
//! packet of a client.

mod model;
pub(crate) mod packet;
#[cfg(test)]
mod packet_tests;

use std::fmt;
use std::net::IpAddr;

use crate::kernel::KernelError;
use crate::kernel::image::{Image, VipImage};
use crate::kernel::object::Kernel;
use crate::kernel::probe::{Ask, Decision};
use model::{Expected, Model};
use packet::{Flow, Kind};

/// Packets of one round over all VIPs, as far as [`FLOWS_LEAST`] allows.
const FLOWS: usize = 16_384;
/// Flows per VIP at least.
const FLOWS_LEAST: usize = 4;
/// Flows per VIP at most.
const FLOWS_MOST: usize = 64;
/// Failures that are kept word for word.
const KEPT: usize = 50;

/// What came of the golden packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets that were run.
    pub run: usize,
    /// Of these, packets that are rightly dropped because no backend or next hop is up.
    pub unserved: usize,
    /// Packets of which something else came than should have.
    pub failures: usize,
    /// The first of these, at most 50.
    pub failed: Vec<Failure>,
}

impl Report {
    /// Whether packets were run and all came out as they should.
    pub fn passed(&self) -> bool {
        self.run > 0 && self.failures == 0
    }

    fn fail(&mut self, failure: Failure) {
        self.failures = self.failures.saturating_add(1);
        if self.failed.len() < KEPT {
            self.failed.push(failure);
        }
    }
}

/// A packet of which something else came than should have. `Display` is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the VIP.
    pub vip: String,
    /// The packet: kind, source, destination.
    pub packet: String,
    /// What differs.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VIP {}: {} {}", self.vip, self.packet, self.problem)
    }
}

/// Runs golden packets for every VIP of `image`, which is sealed in `slot`.
///
/// # Errors
/// If a packet cannot be run at all; a wrong outcome is a [`Failure`].
pub fn run(kernel: &Kernel, image: &Image, slot: u8) -> Result<Report, KernelError> {
    let model = Model::new(image);
    let flows = (FLOWS / image.vips.len().max(1)).clamp(FLOWS_LEAST, FLOWS_MOST);
    let mut report = Report::default();
    for vip in &image.vips {
        for number in 0..flows {
            let flow = flow(image, vip, number);
            for kind in Kind::of(&flow) {
                one(kernel, &model, slot, (vip, &flow, *kind), &mut report)?;
            }
        }
    }
    Ok(report)
}

/// A client's flow to a VIP, one of many.
fn flow(image: &Image, vip: &VipImage, number: usize) -> Flow {
    let number = u16::try_from(number).unwrap_or(0);
    let [high, low] = number.wrapping_mul(251).to_be_bytes();
    // Addresses for tests of network devices: RFC 2544 and RFC 5180.
    let client = match IpAddr::from(vip.entry.address) {
        IpAddr::V4(_) => IpAddr::from([198, 18, high, low]),
        IpAddr::V6(_) => IpAddr::from([0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low]),
    };
    Flow {
        client,
        client_port: 1024u16.saturating_add(number.wrapping_mul(997) % 60_000),
        vip: IpAddr::from(vip.entry.address),
        vip_port: port(image, vip, number),
        protocol: vip.entry.protocol,
    }
}

/// The VIP's port; for "any" one that no other VIP of its address has.
fn port(image: &Image, vip: &VipImage, number: u16) -> u16 {
    let own = u16::from_be(vip.entry.port);
    if own != 0 {
        return own;
    }
    let taken = |port: u16| {
        image.vips.iter().any(|other| {
            other.entry.address == vip.entry.address
                && other.entry.protocol == vip.entry.protocol
                && u16::from_be(other.entry.port) == port
        })
    };
    let first = 1u16.saturating_add(number.wrapping_mul(911) % 60_000);
    (first..=u16::MAX)
        .find(|port| !taken(*port))
        .unwrap_or(first)
}

fn one(
    kernel: &Kernel,
    model: &Model<'_>,
    slot: u8,
    (vip, flow, kind): (&VipImage, &Flow, Kind),
    report: &mut Report,
) -> Result<(), KernelError> {
    let ask = Ask {
        slot: Some(slot),
        no_flows: true,
    };
    let mut problem = None;
    // Health and next hops may change between reading and running: only what differs twice does.
    for _ in 0..2 {
        let (frame, expected) = model.expect(kernel, vip, flow, kind)?;
        let decision = kernel.prober.run(&frame, ask)?;
        problem = difference(kernel, model, slot, &decision, &expected);
        if problem.is_none() {
            let lost = expected.member.is_none() && kind != Kind::Fragment;
            report.unserved = report.unserved.saturating_add(usize::from(lost));
            break;
        }
    }
    report.run = report.run.saturating_add(1);
    if let Some(problem) = problem {
        let packet = format!("{} {flow}", kind.name());
        report.fail(Failure {
            vip: vip.name.clone(),
            packet,
            problem,
        });
    }
    Ok(())
}

/// What differs, as the end of a sentence that begins with the packet.
fn difference(
    kernel: &Kernel,
    model: &Model<'_>,
    slot: u8,
    got: &Decision,
    wanted: &Expected,
) -> Option<String> {
    if got.slot != slot {
        return Some(format!("was decided by slot {}, not {slot}", got.slot));
    }
    let reason = got.reason.map_or("unknown", |reason| reason.label());
    if got.action != wanted.action || got.reason != Some(wanted.reason) {
        return Some(format!(
            "ended as {} ({reason}), should as {} ({})",
            got.action.as_str(),
            wanted.action.as_str(),
            wanted.reason.label()
        ));
    }
    if got.vip != wanted.vip {
        return Some(format!(
            "counted for VIP {}, should for {}",
            shown(got.vip),
            shown(wanted.vip)
        ));
    }
    if got.member != wanted.member {
        return Some(format!(
            "went to backend {}, should to {}",
            model.backend(kernel, got.member),
            model.backend(kernel, wanted.member)
        ));
    }
    if got.followed {
        return Some("followed the flow table, should not".to_owned());
    }
    bytes(&got.packet, &wanted.packet)
}

fn shown(number: Option<u16>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| format!("#{number}"))
}

/// The first byte that differs.
fn bytes(got: &[u8], wanted: &[u8]) -> Option<String> {
    if got.len() != wanted.len() {
        return Some(format!(
            "came out with {} bytes, should with {}",
            got.len(),
            wanted.len()
        ));
    }
    let (place, (got, wanted)) = got
        .iter()
        .zip(wanted)
        .enumerate()
        .find(|(_, (got, wanted))| got != wanted)?;
    Some(format!(
        "came out with {got:#04x} at byte {place}, should with {wanted:#04x}"
    ))
}

//! `lbguard capture`: the last packets that did not get through. Works on the pins alone.

use std::fs::File;
use std::io::BufWriter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lb_common::counter::Reason;
use lb_common::packet::{FlowKey, Kind, Packet};
use lb_common::parse::parse;
use lb_common::sample::Sample;
use lb_common::wire::ip_proto;
use serde::Serialize;

use super::args::CaptureArgs;
use super::{CliError, Context, node, out};
use crate::exit::ExitCode;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::kernel::samples::Cursor;
use crate::simulate::pcap::{Record, Unit, Writer};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// A packet, for people and scripts.
#[derive(Debug, Serialize)]
struct Told {
    at: Timestamp,
    reason: &'static str,
    generation: u64,
    length: u32,
    /// `tcp 198.51.100.7:40000 > 203.0.113.10:80`; none if it is no IP packet.
    flow: Option<String>,
}

/// Where they go.
enum Sink {
    Lines { json: bool },
    Pcap(Writer<BufWriter<File>>),
}

/// Tells those that the kernel keeps, then those to come if asked to.
pub fn run(context: &Context, args: &CaptureArgs) -> Result<ExitCode, CliError> {
    let pins = Pins::new(node::paths(context)?.pin_dir());
    let maps = Maps::open(&pins).map_err(|error| {
        CliError::internal(error).way_out("`lbguard doctor` says what is missing on this host")
    })?;
    let mut sink = Sink::open(context, args)?;
    let mut left = args.count.unwrap_or(usize::MAX);
    let mut cursor = Cursor::default();
    let mut none = true;
    loop {
        let samples = maps.samples(&mut cursor).map_err(CliError::internal)?;
        let wanted = samples.iter().filter(|sample| wants(args, sample));
        for sample in wanted.take(left) {
            sink.put(&maps, sample)?;
            left = left.saturating_sub(1);
            none = false;
        }
        sink.flush()?;
        if !args.follow || left == 0 {
            break;
        }
        std::thread::sleep(LOOK);
    }
    if none {
        out::note("no such packet is kept");
    }
    Ok(ExitCode::Done)
}

fn wants(args: &CaptureArgs, sample: &Sample) -> bool {
    let of = |reason: &Reason| *reason as u16 == sample.reason;
    args.reasons.is_empty() || args.reasons.iter().any(of)
}

impl Sink {
    fn open(context: &Context, args: &CaptureArgs) -> Result<Self, CliError> {
        let Some(path) = &args.write else {
            return Ok(Self::Lines { json: context.json });
        };
        let failed = |error| CliError::internal(format!("{}: {error}", path.display()));
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        let writer = Writer::new(file, Unit::Nanoseconds).map_err(failed)?;
        Ok(Self::Pcap(writer))
    }

    fn put(&mut self, maps: &Maps, sample: &Sample) -> Result<(), CliError> {
        match self {
            Self::Pcap(writer) => writer.write(&record(sample)).map_err(CliError::internal),
            Self::Lines { json } => {
                let told = told(maps, sample)?;
                if *json {
                    out::json_line(&told)
                } else {
                    out::print(&line(&told))
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), CliError> {
        match self {
            Self::Pcap(writer) => writer.flush().map_err(CliError::internal),
            Self::Lines { .. } => Ok(()),
        }
    }
}

/// When it came, by the wall clock of now.
fn at(sample: &Sample) -> Timestamp {
    let ago = crate::sys::boot_ns().saturating_sub(sample.at_ns);
    let ago = SignedDuration::from_nanos(i64::try_from(ago).unwrap_or(i64::MAX));
    Timestamp::now().checked_sub(ago).unwrap_or_default()
}

fn record(sample: &Sample) -> Record {
    let at = at(sample);
    Record {
        seconds: u32::try_from(at.as_second()).unwrap_or(0),
        fraction: u32::try_from(at.subsec_nanosecond()).unwrap_or(0),
        wire_length: sample.length,
        data: sample.kept().to_vec(),
    }
}

fn told(maps: &Maps, sample: &Sample) -> Result<Told, CliError> {
    let reason = Reason::from_code(sample.reason);
    let header = maps
        .header(sample.slot.min(2))
        .map_err(CliError::internal)?;
    Ok(Told {
        at: at(sample),
        reason: reason.map_or("unknown", Reason::label),
        generation: header.generation,
        length: sample.length,
        flow: flow(sample, reason),
    })
}

fn line(told: &Told) -> String {
    let zone = jiff::tz::TimeZone::system();
    let at = told.at.to_zoned(zone).strftime("%H:%M:%S%.3f");
    format!(
        "{at} {:<13} gen {} {:>4} B {}\n",
        told.reason,
        told.generation,
        told.length,
        told.flow.as_deref().unwrap_or("no IP packet")
    )
}

/// From whom to whom. What was too big is by now our answer, which quotes it.
fn flow(sample: &Sample, reason: Option<Reason>) -> Option<String> {
    let mut packet = Packet::EMPTY;
    let whole = Whole(sample);
    let kind = parse(&whole, &mut packet).ok()?;
    let (from, to) = ends(&packet.flow);
    if kind == Kind::Fragment {
        return Some(format!("ip {} > {}", from.ip(), to.ip()));
    }
    let (from, to) = if reason == Some(Reason::TooBig) {
        (to, from)
    } else {
        (from, to)
    };
    let protocol = match packet.flow.protocol {
        ip_proto::TCP => "tcp",
        ip_proto::UDP => "udp",
        _ => "ip",
    };
    Some(format!("{protocol} {from} > {to}"))
}

fn ends(flow: &FlowKey) -> (SocketAddr, SocketAddr) {
    let end = |address, port| SocketAddr::new(IpAddr::from(address), u16::from_be(port));
    (
        end(flow.source, flow.source_port),
        end(flow.destination, flow.destination_port),
    )
}

/// A frame of which the start is known: as long as it was.
struct Whole<'a>(&'a Sample);

impl lb_common::wire::Frame for Whole<'_> {
    fn read<T: zerocopy::FromBytes + zerocopy::Unaligned + Copy>(
        &self,
        offset: usize,
    ) -> Option<T> {
        self.0.kept().read(offset)
    }

    fn length(&self) -> usize {
        self.0.length as usize
    }
}

//! `lbguard simulate`: a capture through the real program, told line by line.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::args::SimulateArgs;
use super::{CliError, Context, node, out};
use crate::check;
use crate::config::{Config, NodeConfig};
use crate::exit::ExitCode;
use crate::kernel::KernelError;
use crate::simulate::pcap::{PcapError, Reader, Record, Writer};
use crate::simulate::{Outcome, Simulation};

/// Bytes of output that are written at once.
const BATCH: usize = 64 * 1024;
/// The least that a packet takes in a capture: its head. So a file has no more packets than this.
const LEAST_PACKET: u64 = 16;

/// Runs every packet of the capture and writes what became of it.
pub fn run(context: &Context, args: &SimulateArgs) -> Result<ExitCode, CliError> {
    let node = node::to_check_for(context)?;
    let config = accepted(&args.config, &node)?;
    let named = |error: &PcapError| pcap_error(&args.pcap, error);
    let input = open(&args.pcap)?;
    let most = most_packets(&input);
    refuse_same_file(&input, args)?;
    let mut reader = Reader::new(BufReader::new(input)).map_err(|error| named(&error))?;
    let mut simulation =
        Simulation::new(&config, &node, args.gateway_mac, most).map_err(kernel_error)?;
    let mut sink = match &args.out {
        Some(path) => Some((path.as_path(), create(path, &reader)?)),
        None => None,
    };
    let mut lines = Lines::new(context.json);
    let result = loop {
        let record = match reader.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break Ok(ExitCode::Done),
            Err(error) => break Err(named(&error)),
        };
        let outcome = simulation.run(&record).map_err(kernel_error)?;
        lines.put(&outcome)?;
        if let Some((path, writer)) = &mut sink {
            write(path, writer, &record, outcome)?;
        }
    };
    // What was found before a damaged place is told all the same.
    lines.finish()?;
    if let Some((path, writer)) = sink {
        writer.finish().map_err(|error| unwritable(path, &error))?;
    }
    result
}

/// The configuration, or all that is wrong with it.
fn accepted(path: &Path, node: &NodeConfig) -> Result<Config, CliError> {
    let report = check::check_file(path, node);
    report.accepted().cloned().ok_or_else(|| {
        let findings = check::render_findings(&report.findings, report.omitted);
        CliError::refused(format!("{} has errors\n{findings}", path.display()))
    })
}

fn open(path: &Path) -> Result<File, CliError> {
    File::open(path)
        .map_err(|error| CliError::internal(format!("cannot read {}: {error}", path.display())))
}

/// As many packets as the file can hold; of a pipe nobody knows.
fn most_packets(input: &File) -> u64 {
    match input.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len() / LEAST_PACKET,
        _ => u64::MAX,
    }
}

/// Writing over the file that is being read would lose it.
fn refuse_same_file(input: &File, args: &SimulateArgs) -> Result<(), CliError> {
    let Some(out) = &args.out else { return Ok(()) };
    let (Ok(a), Ok(b)) = (input.metadata(), std::fs::metadata(out)) else {
        return Ok(());
    };
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        let text = format!("{} is both --pcap and --out", out.display());
        return Err(CliError::usage(text).way_out("name another file for --out"));
    }
    Ok(())
}

fn create(
    path: &Path,
    like: &Reader<BufReader<File>>,
) -> Result<Writer<BufWriter<File>>, CliError> {
    File::create(path)
        .and_then(|file| Writer::new(BufWriter::new(file), like.unit()))
        .map_err(|error| unwritable(path, &error))
}

fn write(
    path: &Path,
    writer: &mut Writer<BufWriter<File>>,
    record: &Record,
    outcome: Outcome,
) -> Result<(), CliError> {
    let Some(data) = outcome.packet else {
        return Ok(());
    };
    let sent = Record {
        seconds: record.seconds,
        fraction: record.fraction,
        wire_length: 0,
        data,
    };
    writer
        .write(&sent)
        .map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::internal(format!("cannot write {}: {error}", path.display()))
}

fn pcap_error(path: &Path, error: &PcapError) -> CliError {
    let text = format!("{}: {error}", path.display());
    let failed = if error.is_refusal() {
        CliError::refused(text)
    } else {
        CliError::internal(text)
    };
    match error.remedy() {
        Some(remedy) => failed.way_out(remedy),
        None => failed,
    }
}

/// What the kernel said, with the usual way out.
fn kernel_error(error: KernelError) -> CliError {
    match error {
        refused @ KernelError::Refused(_) => CliError::refused(refused),
        other => CliError::internal(other)
            .way_out("loading BPF programs takes root: run it as root, or with CAP_BPF"),
    }
}

/// Standard output, some lines at a time.
struct Lines {
    json: bool,
    buffer: String,
}

impl Lines {
    fn new(json: bool) -> Self {
        let mut lines = Self {
            json,
            buffer: String::new(),
        };
        if !json {
            lines.row("n", "verdict", "reason", "vip", "backend", "out");
        }
        lines
    }

    fn put(&mut self, outcome: &Outcome) -> Result<(), CliError> {
        if self.json {
            let line = serde_json::to_string(outcome)
                .map_err(|error| CliError::internal(format!("cannot write JSON: {error}")))?;
            self.buffer.push_str(&line);
            self.buffer.push('\n');
        } else {
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
            let (vip, backend) = (name(&outcome.vip), name(&outcome.backend));
            let number = outcome.n.to_string();
            let length = outcome.out_len.to_string();
            self.row(
                &number,
                outcome.verdict,
                outcome.reason,
                &vip,
                &backend,
                &length,
            );
        }
        if self.buffer.len() >= BATCH {
            self.finish()?;
        }
        Ok(())
    }

    fn row(&mut self, n: &str, verdict: &str, reason: &str, vip: &str, backend: &str, out: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(
            self.buffer,
            "{n:>7}  {verdict:<8}  {reason:<15}  {vip:<20}  {backend:<20}  {out:>5}"
        );
    }

    fn finish(&mut self) -> Result<(), CliError> {
        out::print(&std::mem::take(&mut self.buffer))
    }
}

//! `lbguard status`: what is in force, on trial and attached. Works on the pins alone.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use serde::Serialize;
use serde_json::json;

use super::args::StatusArgs;
use super::render::{fitted, time};
use super::{CliError, Context, client, evidence_view, node, out};
use crate::agent::wire::{AgentStatus, DrainLine, HealthLine};
use crate::doctor;
use crate::exit::ExitCode;
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::kernel::readout::{self, KernelOut, SlotOut};
use crate::paths::Paths;

/// How the line of a warning begins.
const WARNING: &str = "warning     ";
const TRAFFIC: &str = "traffic     ";
/// How the line of an alert begins.
const ALERT: &str = "alert       ";
/// How the line of a drained backend begins.
const DRAINED: &str = "drained     ";
/// How a line about health begins.
const HEALTH: &str = "health      ";

/// Reads the kernel, then asks the agent, if there is one.
pub fn run(context: &Context, _args: &StatusArgs) -> Result<ExitCode, CliError> {
    let paths = node::paths(context)?;
    let pins = Pins::new(paths.pin_dir());
    let maps = Maps::open(&pins).map_err(|error| {
        CliError::internal(error).way_out("`lbguard doctor` says what is missing on this host")
    })?;
    let kernel = readout::read(&maps).map_err(CliError::internal)?;
    let agent = client::runtime()?
        .block_on(client::status(&paths.socket()))
        .ok();
    let state = AgentState::of(agent.as_ref(), &paths);
    let interfaces = pins.linked();
    if context.json {
        out::json_line(&json!({
            "kernel": kernel, "agent": agent, "agent_state": state, "interfaces": interfaces,
            "pins": pins.directory(),
        }))?;
    } else {
        let text = text(&kernel, (state, agent.as_ref()), &interfaces);
        let terminal = std::io::stdout().is_terminal();
        let shown: String = text.lines().map(|line| row(line, terminal)).collect();
        out::print(&shown)?;
    }
    if !pins.exist() && !interfaces.is_empty() {
        out::note(
            "warning: the guard is gone: what is attached forwards on and nothing can be changed; withdraw the \
             route, run `lbguard unload` and start the agent again",
        );
    }
    Ok(ExitCode::Done)
}

/// Whether there is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum AgentState {
    /// It answers.
    Running,
    /// There is one, and it does not answer in time.
    Silent,
    /// There is none.
    None,
}

impl AgentState {
    fn of(agent: Option<&AgentStatus>, paths: &Paths) -> Self {
        if agent.is_some() {
            Self::Running
        } else if doctor::agent_running(paths).is_some() {
            Self::Silent
        } else {
            Self::None
        }
    }
}

/// Tables stay as they are; a warning is broken like a sentence.
fn row(line: &str, terminal: bool) -> String {
    let marks = [WARNING, ALERT, DRAINED, HEALTH];
    let terminal = terminal && marks.iter().any(|mark| line.starts_with(mark));
    format!("{}\n", fitted(line, &marks, terminal))
}

// Writing to a String can't fail, here and below.

/// What the agent says of itself.
fn said(text: &mut String, agent: &AgentStatus) {
    let _ = writeln!(text, "agent       running, process {}", agent.pid);
    if let Some(line) = &agent.evidence {
        let _ = writeln!(text, "{TRAFFIC}{}", evidence_view::sentence(line));
    }
    for warning in &agent.warnings {
        let _ = writeln!(text, "{WARNING}{warning}");
    }
    for drain in &agent.drains {
        let _ = writeln!(text, "{DRAINED}{}", drained(drain));
    }
    health(text, &agent.health);
    for alert in &agent.alerts {
        let since = time(alert.since);
        let _ = writeln!(text, "{ALERT}{} (since {since})", alert.text);
    }
}

fn text(
    kernel: &KernelOut,
    (state, agent): (AgentState, Option<&AgentStatus>),
    interfaces: &[String],
) -> String {
    let mut text = String::new();
    let digest = kernel.active.digest.get(..12).unwrap_or_default();
    let _ = writeln!(
        text,
        "active      generation {}  {digest}",
        kernel.active.generation
    );
    match &kernel.lkg {
        Some(lkg) => {
            let _ = writeln!(text, "last good   generation {}", lkg.generation);
        }
        None => text.push_str("last good   none: `revert` has nowhere to go\n"),
    }
    if let (Some(trial), Some(shadow)) = (&kernel.trial, &kernel.shadow) {
        let percent = trial.share_ppm / 10_000;
        let _ = writeln!(
            text,
            "on trial    generation {}  R{}  {percent} % of new flows, {} s left to confirm",
            shadow.generation,
            trial.class,
            trial.deadline_in_ms / 1000
        );
    } else if let Some(end) = &kernel.last_end {
        let by = end
            .by_uid
            .map_or("the kernel".to_owned(), |uid| format!("uid {uid}"));
        let _ = writeln!(
            text,
            "last end    generation {}  {} by {by}, {} s ago",
            end.generation, end.cause, end.seconds_ago
        );
    }
    if kernel.frozen {
        text.push_str(
            "frozen      forward changes are refused; `lbguard freeze off` allows them\n",
        );
    }
    if kernel.latched {
        text.push_str("latched     the breaker has ended a trial; `lbguard ack` after a look\n");
    }
    match agent {
        Some(agent) => said(&mut text, agent),
        None if state == AgentState::Silent => text.push_str(
            "agent       does not answer within a second: it starts, is busy, or hangs\n",
        ),
        None if interfaces.is_empty() => text.push_str("agent       not running\n"),
        None => text.push_str("agent       not running; forwarding goes on without it\n"),
    }
    let _ = writeln!(
        text,
        "interfaces  {}",
        if interfaces.is_empty() {
            "none attached: nothing is forwarded".to_owned()
        } else {
            interfaces.join(", ")
        }
    );
    if kernel.flows.purged > 0 {
        let (remembered, purged) = (kernel.flows.remembered, kernel.flows.purged);
        let _ = writeln!(
            text,
            "flows       about {remembered} remembered; {purged} of dead backends forgotten since load"
        );
    }
    if kernel.timer_ms_ago > 1_000 {
        let _ = writeln!(
            text,
            "warning     the deadman's timer is silent ({} ms)",
            kernel.timer_ms_ago
        );
    }
    slot(&mut text, "active", &kernel.active);
    if let Some(shadow) = &kernel.shadow {
        slot(&mut text, "on trial", shadow);
    }
    reasons(&mut text, kernel);
    text
}

/// How many are well, and who is not.
fn health(text: &mut String, lines: &[HealthLine]) {
    if lines.is_empty() {
        return;
    }
    let up = lines.iter().filter(|line| line.state != "down").count();
    let _ = writeln!(
        text,
        "{HEALTH}{up} of {} checked backends are up",
        lines.len()
    );
    for line in lines {
        let (pool, backend, seconds) = (&line.pool, &line.backend, line.seconds);
        let why = line
            .trouble
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        if line.state == "down" {
            let open = if line.held {
                ""
            } else {
                ", and gets flows (fail open)"
            };
            let _ = writeln!(
                text,
                "{HEALTH}{pool}/{backend} down for {seconds} s{open}{why}"
            );
        } else if line.admitted < 100 {
            let share = line.admitted;
            let _ = writeln!(
                text,
                "{HEALTH}{pool}/{backend} is back, {share} % of its share so far"
            );
        } else if line.trouble.is_some() {
            let _ = writeln!(text, "{HEALTH}{pool}/{backend} {}{why}", line.state);
        }
    }
}

fn drained(drain: &DrainLine) -> String {
    let why = drain
        .why
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    let flows = match drain.flows {
        None => "in no slot".to_owned(),
        Some(1) => "1 flow left".to_owned(),
        Some(flows) => format!("{flows} flows left"),
    };
    let (pool, backend, by) = (&drain.pool, &drain.backend, &drain.by);
    format!(
        "{pool}/{backend} by {by} since {}{why}; {flows}",
        time(drain.since)
    )
}

fn slot(text: &mut String, what: &str, slot: &SlotOut) {
    if slot.vips.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{what}: generation {}", slot.generation);
    for vip in &slot.vips {
        let port = if vip.port == 0 {
            "*".to_owned()
        } else {
            vip.port.to_string()
        };
        let address = match vip.address {
            std::net::IpAddr::V4(v4) => format!("{v4}:{port}"),
            std::net::IpAddr::V6(v6) => format!("[{v6}]:{port}"),
        };
        let _ = writeln!(
            text,
            "  {:<20} {} {address} -> {}  {} packets{}",
            vip.name,
            vip.protocol,
            vip.pool,
            vip.packets,
            if vip.dropped > 0 {
                format!(", {} dropped", vip.dropped)
            } else {
                String::new()
            }
        );
    }
    for pool in &slot.pools {
        let _ = writeln!(text, "  pool {} ({})", pool.name, pool.forward);
        for backend in &pool.backends {
            let hop = if backend.next_hop {
                ""
            } else {
                "  NO NEXT HOP"
            };
            let _ = writeln!(
                text,
                "    {:<18} {:<15} weight {:<5} {:<5} {} packets{hop}",
                backend.name,
                backend.address.to_string(),
                backend.weight,
                backend.state,
                backend.packets
            );
        }
    }
}

fn reasons(text: &mut String, kernel: &KernelOut) {
    if kernel.reasons.is_empty() {
        return;
    }
    text.push_str("\npackets since load\n");
    for reason in &kernel.reasons {
        let _ = writeln!(
            text,
            "  {:<8} {:<16} {}",
            reason.verdict, reason.reason, reason.packets
        );
    }
}

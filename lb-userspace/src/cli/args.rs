//! The command line as typed: every command, flag and help text.
//!
//! Nothing here does anything; [`super::dispatch`] hands each command its own
//! arguments. Man pages and completions are made from these types, so a flag
//! has one place only.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use lb_common::counter::Reason;

use super::help;
use super::values::{self, CanaryShare};
use crate::change::reason::reason;
use crate::config::Mac;
use crate::decap::Prefix;

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "lbguard",
    version,
    about = "An XDP layer-4 load balancer in which a wrong configuration can't cause an outage",
    after_help = help::TOP,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 80,
    propagate_version = true
)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Puts DIR before /etc/lbguard, /var/lib/lbguard, /run/lbguard and
    /// /sys/fs/bpf/lbguard, so that instances run side by side
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Global")]
    pub root: Option<PathBuf>,
    /// Where agent.toml and policy.toml are, instead of /etc/lbguard
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Global", hide_short_help = true)]
    pub config_dir: Option<PathBuf>,
    /// Where the journal and the generations are, instead of /var/lib/lbguard
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Global", hide_short_help = true)]
    pub state_dir: Option<PathBuf>,
    /// Where the socket and the lock are, instead of /run/lbguard
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Global", hide_short_help = true)]
    pub run_dir: Option<PathBuf>,
    /// Where the kernel's maps are pinned, instead of /sys/fs/bpf/lbguard
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Global", hide_short_help = true)]
    pub pin_dir: Option<PathBuf>,
    /// One JSON object a line instead of text
    #[arg(long, global = true, help_heading = "Global")]
    pub json: bool,
    /// Plain text even on a terminal (as does a non-empty `NO_COLOR`)
    #[arg(long, global = true, help_heading = "Global")]
    pub no_color: bool,
}

/// Every command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the daemon that loads, adopts and watches the data path
    #[command(after_help = help::AGENT)]
    Agent(AgentArgs),
    /// Check a services.toml without touching anything
    #[command(after_help = help::CHECK)]
    Check(CheckArgs),
    /// What a services.toml would change, and how much of it moves
    #[command(after_help = help::PLAN)]
    Plan(PlanArgs),
    /// Put a configuration on trial and follow it to its end
    #[command(after_help = help::APPLY)]
    Apply(ApplyArgs),
    /// Keep the configuration that is on trial
    #[command(after_help = help::CONFIRM)]
    Confirm(ConfirmArgs),
    /// Go back: end the trial, or return to an older generation
    #[command(after_help = help::REVERT)]
    Revert(RevertArgs),
    /// Refuse changes, or allow them again; going back is always allowed
    #[command(after_help = help::FREEZE)]
    Freeze(FreezeArgs),
    /// Acknowledge that the breaker has ended a trial, so that the next may begin
    #[command(after_help = help::ACK)]
    Ack(AckArgs),
    /// Give a backend no new flows; those that it has stay
    #[command(after_help = help::DRAIN)]
    Drain(DrainArgs),
    /// Give a drained backend new flows again
    #[command(after_help = help::UNDRAIN)]
    Undrain(UndrainArgs),
    /// What is in force, on trial, and attached
    #[command(after_help = help::STATUS)]
    Status(StatusArgs),
    /// The changes of this host: who, when, why, and how each ended
    #[command(after_help = help::HISTORY)]
    History(HistoryArgs),
    /// One generation: what it holds and what became of it
    #[command(after_help = help::SHOW)]
    Show(ShowArgs),
    /// What differs between two generations
    #[command(after_help = help::DIFF)]
    Diff(DiffArgs),
    /// Run captured packets through the real program, off the network
    #[command(after_help = help::SIMULATE)]
    Simulate(SimulateArgs),
    /// On a backend: remove the encapsulation in XDP
    #[command(after_help = help::DECAP)]
    Decap(DecapArgs),
    /// Forward on one more interface
    #[command(after_help = help::ATTACH)]
    Attach(AttachArgs),
    /// Stop forwarding on an interface
    #[command(after_help = help::DETACH)]
    Detach(DetachArgs),
    /// Take lbguard off this host
    #[command(after_help = help::UNLOAD)]
    Unload(UnloadArgs),
    /// The last packets that did not get through, and why
    #[command(after_help = help::CAPTURE)]
    Capture(CaptureArgs),
    /// Where a flow goes, by each generation, and why
    #[command(after_help = help::EXPLAIN)]
    Explain(ExplainArgs),
    /// Find out why nothing is forwarded
    #[command(after_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
    /// Write the completions of a shell to standard output
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

/// `lbguard agent`
#[derive(Clone, Debug, Default, Args)]
pub struct AgentArgs {}

/// `lbguard check`
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The services.toml to check
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `lbguard plan`
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The services.toml to compare with what forwards now
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// `lbguard freeze`
#[derive(Clone, Debug, Args)]
pub struct FreezeArgs {
    /// Whether changes are refused
    #[arg(value_enum)]
    pub to: OnOff,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Changes are refused.
    On,
    /// Changes are allowed.
    Off,
}

/// `lbguard ack`
#[derive(Clone, Debug, Default, Args)]
pub struct AckArgs {}

/// `lbguard drain`
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// The backend's name
    #[arg(value_name = "NAME")]
    pub backend: String,
    /// Its pool, if more than one has a backend of that name
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// Why: one line for the history
    #[arg(short = 'm', long = "message", value_name = "WHY", value_parser = reason)]
    pub why: String,
    /// Wait until no flow goes to it any more
    #[arg(long)]
    pub wait: bool,
    /// Silence after which a flow counts as gone [default: the pool's
    /// `idle_timeout`, else 2m]
    #[arg(long, value_name = "TIME", value_parser = values::span, requires = "wait")]
    pub idle: Option<Duration>,
    /// Wait no longer than this
    #[arg(long, value_name = "TIME", value_parser = values::span, requires = "wait")]
    pub within: Option<Duration>,
}

/// `lbguard undrain`
#[derive(Clone, Debug, Args)]
pub struct UndrainArgs {
    /// The backend's name
    #[arg(value_name = "NAME")]
    pub backend: String,
    /// Its pool, if more than one has a backend of that name
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// Why: one line for the history
    #[arg(short = 'm', long = "message", value_name = "WHY", value_parser = reason)]
    pub why: Option<String>,
}

/// `lbguard apply`
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// The services.toml to apply
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Why: one line for the history
    #[arg(short = 'm', long = "message", value_name = "WHY", value_parser = reason)]
    pub why: String,
    /// Only if the change does what this plan says (`lbguard plan` prints the digest)
    #[arg(long, value_name = "DIGEST")]
    pub plan: Option<String>,
    /// Share of new flows that the trial begins with, 1 to 50 percent [default: policy.toml]
    #[arg(long, value_name = "PCT")]
    pub canary: Option<CanaryShare>,
    /// Who confirms: a person, or the evidence when it passes
    #[arg(long, value_enum, default_value_t = ConfirmMode::Manual, value_name = "MODE")]
    pub confirm: ConfirmMode,
    /// Time in which to confirm, once the last step has begun [default: policy.toml]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub confirm_within: Option<Duration>,
    /// Return once the trial runs instead of following it to its end
    #[arg(long)]
    pub detach: bool,
    /// Apply in spite of what the checks found; the guard in the kernel still refuses
    #[arg(long)]
    pub force_unsafe: bool,
}

/// Who confirms a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfirmMode {
    /// The evidence, when it passes.
    Auto,
    /// A person, with `lbguard confirm`.
    Manual,
}

/// `lbguard confirm`
#[derive(Clone, Debug, Default, Args)]
pub struct ConfirmArgs {
    /// Keep it although the evidence did not pass; the history names who did
    #[arg(long)]
    pub accept_unproven: bool,
}

/// `lbguard revert`
#[derive(Clone, Debug, Default, Args)]
pub struct RevertArgs {
    /// The generation to return to [default: end the trial, else the last known good]
    #[arg(value_name = "GEN")]
    pub generation: Option<u64>,
}

/// `lbguard status`
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {}

/// `lbguard history`
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// How many, counted from the newest; 0 for all
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Every record of the journal instead of every change
    #[arg(long)]
    pub records: bool,
}

/// `lbguard show`
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The generation
    #[arg(value_name = "GEN")]
    pub generation: u64,
    /// Print the services.toml of that generation, as it was given, and nothing else
    #[arg(long)]
    pub config: bool,
}

/// `lbguard diff`
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// The older generation
    #[arg(value_name = "A")]
    pub from: u64,
    /// The newer generation
    #[arg(value_name = "B")]
    pub to: u64,
}

/// `lbguard capture`
#[derive(Clone, Debug, Default, Args)]
pub struct CaptureArgs {
    /// Go on with those to come, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Stop after so many
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<usize>,
    /// Only those of this reason; may be repeated [default: all]
    #[arg(long = "reason", value_name = "REASON", value_parser = values::reason)]
    pub reasons: Vec<Reason>,
    /// Write them to a pcap file instead
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub write: Option<PathBuf>,
}

/// `lbguard explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The flow: PROTOCOL CLIENT:PORT VIP:PORT, as one word or three
    #[arg(value_name = "PACKET", required = true, num_args = 1..=4)]
    pub packet: Vec<String>,
}

/// `lbguard simulate`
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The services.toml to run the packets on
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// The capture to read; Ethernet only
    #[arg(long, value_name = "IN", value_hint = ValueHint::FilePath)]
    pub pcap: PathBuf,
    /// Where to write every packet that is sent on
    #[arg(long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// MAC address of the next hop
    #[arg(long, value_name = "MAC", value_parser = values::mac, default_value = "02:00:00:00:00:fe")]
    pub gateway_mac: Mac,
}

/// `lbguard decap`
#[derive(Clone, Debug, Args)]
pub struct DecapArgs {
    /// The interface that the encapsulated packets arrive on
    #[arg(value_name = "IFACE")]
    pub interface: String,
    /// Take the program off again
    #[arg(long, conflicts_with = "sources")]
    pub detach: bool,
    /// Outer source addresses to accept, once for each prefix [default: all]
    #[arg(long = "source", value_name = "PREFIX")]
    pub sources: Vec<Prefix>,
}

/// `lbguard attach`
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// The interface
    #[arg(value_name = "IFACE")]
    pub interface: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `lbguard detach`
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The interface
    #[arg(value_name = "IFACE")]
    pub interface: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `lbguard unload`
#[derive(Clone, Debug, Default, Args)]
pub struct UnloadArgs {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `lbguard doctor`
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {}

/// `lbguard man`
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Where to write them; made if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// `lbguard completions`
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

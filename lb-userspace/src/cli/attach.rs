//! `lbguard attach IFACE`, `detach IFACE` and `unload`: on the pins alone.

use serde_json::json;

use super::args::{AttachArgs, DetachArgs, UnloadArgs};
use super::{CliError, Context, confirm_typed, node, out};
use crate::config::{NodeConfig, XdpMode};
use crate::doctor;
use crate::exit::ExitCode;
use crate::kernel::KernelError;
use crate::kernel::attach::{self, AttachError, Attachment, Done};
use crate::kernel::pins::Pins;

impl From<AttachError> for CliError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Foreign { .. }
            | AttachError::Elsewhere { .. }
            | AttachError::NotAttached { .. }
            | AttachError::NoInterface(_) => Self::refused(error),
            AttachError::Refused { .. } | AttachError::Kernel(_) | AttachError::Net(_) => {
                Self::internal(error)
            }
        }
    }
}

/// Attaches the loaded program to one more interface.
pub fn attach(context: &Context, args: &AttachArgs) -> Result<ExitCode, CliError> {
    let interface = &args.interface;
    let pins = pins(context)?;
    // Before asking for a confirmation that would be of no use.
    if !pins.exist() {
        return Err(
            AttachError::Kernel(KernelError::NotLoaded(pins.directory().to_owned())).into(),
        );
    }
    let config = NodeConfig::load(&context.paths.agent_toml()).ok();
    let mode = config
        .as_ref()
        .map_or(XdpMode::Auto, |config| config.xdp_mode);
    let what = format!("lbguard will handle everything that arrives on {interface}");
    confirm_typed::ask(interface, &what, args.yes)?;
    let attachment = attach::attach(&pins, interface, mode)?;
    if context.json {
        out::json_line(&as_json(&attachment))?;
    } else {
        out::print(&as_text(&attachment))?;
    }
    if !is_listed(config.as_ref(), interface) {
        out::note(&format!(
            "note: lasts until the next boot, unless {interface} is added to interfaces in {}",
            context.paths.agent_toml().display()
        ));
    }
    Ok(ExitCode::Done)
}

/// Takes the program off an interface.
pub fn detach(context: &Context, args: &DetachArgs) -> Result<ExitCode, CliError> {
    let interface = &args.interface;
    let pins = pins(context)?;
    if !pins.link(interface).exists() {
        let (interface, attached) = (interface.clone(), pins.linked());
        return Err(AttachError::NotAttached {
            interface,
            attached,
        }
        .into());
    }
    let what = format!("lbguard will forward nothing that arrives on {interface} any more");
    confirm_typed::ask(interface, &what, args.yes)?;
    attach::detach(&pins, interface)?;
    if context.json {
        out::json_line(&json!({ "interface": interface, "done": "detached" }))?;
    } else {
        out::print(&format!("{interface}: detached\n"))?;
    }
    let config = NodeConfig::load(&context.paths.agent_toml()).ok();
    if is_listed(config.as_ref(), interface) {
        out::note(&format!(
            "note: the agent attaches it again when it starts, unless {interface} is taken out of \
             interfaces in {}",
            context.paths.agent_toml().display()
        ));
    }
    Ok(ExitCode::Done)
}

/// Takes everything off this host.
pub fn unload(context: &Context, args: &UnloadArgs) -> Result<ExitCode, CliError> {
    let pins = pins(context)?;
    if !pins.directory().exists() {
        return nothing_loaded(context, &pins);
    }
    let interfaces = pins.linked();
    let from = if interfaces.is_empty() {
        "no interface".to_owned()
    } else {
        interfaces.join(", ")
    };
    let what = format!(
        "lbguard will be taken off this host (attached to: {from}): nothing is forwarded \
         afterwards, and the flow table is lost"
    );
    confirm_typed::ask("unload", &what, args.yes)?;
    let detached = attach::unload(&pins)?;
    // Without the program nothing is to leave by the way of health checks.
    if let Err(error) = crate::net::checks::remove() {
        out::note(&format!(
            "warning: routes of health checks may be left: {error}"
        ));
    }
    if context.json {
        out::json_line(&json!({ "done": "unloaded", "interfaces": detached }))?;
    } else {
        out::print(&format!("unloaded (was attached to: {from})\n"))?;
    }
    if let Some(by) = doctor::agent_running(&node::paths(context)?) {
        out::note(&format!(
            "warning: an agent is still running ({by}) and has lost its pins: stop it"
        ));
    }
    Ok(ExitCode::Done)
}

fn nothing_loaded(context: &Context, pins: &Pins) -> Result<ExitCode, CliError> {
    if let Some((path, abi)) = pins.other_abi() {
        return Err(CliError::refused(format!(
            "{} was made by another version of lbguard (ABI {abi})",
            path.display()
        ))
        .way_out("use that version's `lbguard unload`"));
    }
    if context.json {
        out::json_line(&json!({ "done": "nothing", "interfaces": [] }))?;
    } else {
        out::print("nothing is loaded\n")?;
    }
    Ok(ExitCode::Done)
}

fn pins(context: &Context) -> Result<Pins, CliError> {
    Ok(Pins::new(node::paths(context)?.pin_dir()))
}

fn is_listed(config: Option<&NodeConfig>, interface: &str) -> bool {
    config.is_some_and(|config| config.interfaces.iter().any(|name| name == interface))
}

fn as_json(attachment: &Attachment) -> serde_json::Value {
    json!({
        "done": attachment.done,
        "attached": attachment.at,
        "not_native": attachment.not_native.as_ref().map(ToString::to_string),
    })
}

fn as_text(attachment: &Attachment) -> String {
    let at = &attachment.at;
    let done = match attachment.done {
        Done::New => "attached",
        Done::Already => "was attached already",
        Done::Replaced => "attached in the place of an older program",
    };
    let mode = at.mode.unwrap_or("unknown");
    let why = match &attachment.not_native {
        Some(error) => format!("\n  not native: the driver does not take it ({error})"),
        None => String::new(),
    };
    format!(
        "{}: {done}, {mode} mode (program {}, link {}){why}\n",
        at.interface, at.program, at.link
    )
}

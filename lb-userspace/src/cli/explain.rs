//! `lbguard explain`: where a flow goes, by each generation, and why. Works on the pins alone.

use super::args::ExplainArgs;
use super::render::{Page, Tone};
use super::{CliError, Context, node, out};
use crate::exit::ExitCode;
use crate::explain::{Explained, Way, explain, question};
use crate::kernel::maps::Maps;
use crate::kernel::pins::Pins;
use crate::kernel::probe::Prober;

/// Asks the pinned program; nothing is changed, remembered or counted as traffic.
pub fn run(context: &Context, args: &ExplainArgs) -> Result<ExitCode, CliError> {
    let flow = question(&args.packet).map_err(CliError::usage)?;
    let pins = Pins::new(node::paths(context)?.pin_dir());
    let opened = Maps::open(&pins).and_then(|maps| {
        let token = maps.node()?.probe_token;
        Ok((maps, Prober::open(&pins.program("lb"), token)?))
    });
    let (maps, prober) = opened.map_err(|error| {
        CliError::internal(error).way_out("`lbguard doctor` says what is missing on this host")
    })?;
    let explained = explain(&maps, &prober, &flow).map_err(CliError::internal)?;
    if context.json {
        out::json_line(&explained)?;
    } else {
        out::print(&text(&explained, context.colour))?;
    }
    Ok(ExitCode::Done)
}

fn text(explained: &Explained, colour: bool) -> String {
    let mut page = Page::new(colour);
    page.line(Some(Tone::Strong), &format!("flow {}", explained.flow));
    let remembered = if explained.remembered {
        "remembered"
    } else {
        "not remembered: decided as if it came from nowhere"
    };
    page.field("  if open    ", remembered);
    way(&mut page, "             ", &explained.next_packet);
    page.line(None, "  if new");
    for by in &explained.new_flow {
        way(&mut page, "    ", by);
    }
    page.finish()
}

/// One generation's answer.
fn way(page: &mut Page, indent: &str, way: &Way) {
    let label = format!("{indent}generation {} ({}): ", way.generation, way.role);
    let goes = match (&way.vip, &way.backend) {
        (Some(vip), Some(backend)) if way.is_forwarded() => format!(
            "VIP {vip} -> {} {} of {}, {}, by {}",
            backend.name,
            backend.address,
            backend.pool,
            backend.state,
            backend.next_hop.as_deref().unwrap_or("no next hop"),
        ),
        (Some(vip), _) => format!("VIP {vip}: {}, {}", way.verdict, way.reason),
        (None, _) => format!("{}, {}", way.verdict, way.reason),
    };
    page.field(&label, &goes);
}

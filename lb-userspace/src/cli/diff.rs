//! `lbguard diff A B`: what differs between two generations.

use super::args::DiffArgs;
use super::past::Past;
use super::render::{Page, Tone};
use super::{CliError, Context, out};
use crate::change::diff::{Difference, diff};
use crate::exit::ExitCode;

/// Compares two generations of this host; 0 is the empty one.
pub fn run(context: &Context, args: &DiffArgs) -> Result<ExitCode, CliError> {
    let past = Past::read(context)?;
    let found = diff(&past.config(args.from)?, &past.config(args.to)?);
    if context.json {
        for difference in &found {
            out::json_line(difference)?;
        }
    } else {
        let mut page = Page::new(context.colour);
        let heading = format!("generation {} -> {}", args.from, args.to);
        page.line(Some(Tone::Strong), &heading);
        differences(&mut page, &found);
        out::print(&page.finish())?;
    }
    past.check_intact()?;
    Ok(ExitCode::Done)
}

/// Adds one line for each difference, `+` in, `-` out, `~` changed.
pub fn differences(page: &mut Page, found: &[Difference]) {
    if found.is_empty() {
        page.line(None, "no differences");
    }
    for difference in found {
        let (tone, line) = line_of(difference);
        page.line(Some(tone), &line);
    }
}

fn line_of(difference: &Difference) -> (Tone, String) {
    use Difference::{
        BackendIn, BackendKey, BackendOut, PoolIn, PoolKey, PoolOut, VipIn, VipKey, VipOut,
    };
    match difference {
        VipIn { vip, to } => (Tone::Good, format!("+ VIP {vip}: {to}")),
        VipOut { vip, from } => (Tone::Bad, format!("- VIP {vip}: {from}")),
        VipKey { vip, key, from, to } => (Tone::Mind, format!("~ VIP {vip}: {key} {from} -> {to}")),
        PoolIn { pool, to } => (Tone::Good, format!("+ pool {pool}: {to}")),
        PoolOut { pool, from } => (Tone::Bad, format!("- pool {pool}: {from}")),
        PoolKey {
            pool,
            key,
            from,
            to,
        } => (Tone::Mind, format!("~ pool {pool}: {key} {from} -> {to}")),
        BackendIn { pool, backend, to } => {
            (Tone::Good, format!("+ backend {backend} of {pool}: {to}"))
        }
        BackendOut {
            pool,
            backend,
            from,
        } => (Tone::Bad, format!("- backend {backend} of {pool}: {from}")),
        BackendKey {
            pool,
            backend,
            key,
            from,
            to,
        } => (
            Tone::Mind,
            format!("~ backend {backend} of {pool}: {key} {from} -> {to}"),
        ),
    }
}

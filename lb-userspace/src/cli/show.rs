//! `lbguard show GEN`: one generation, what it holds and what became of it.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::args::ShowArgs;
use super::history::{proof, summary_json};
use super::past::{Past, outcome, parse};
use super::render::{Page, Tone, time};
use super::{CliError, Context, evidence_view, out};
use crate::agent::wire::EvidenceLine;
use crate::change::diff::endpoint;
use crate::change::store::Generation;
use crate::config::{Config, Pool};
use crate::exit::ExitCode;

/// Shows a generation, or with `--config` its file and nothing else.
pub fn run(context: &Context, args: &ShowArgs) -> Result<ExitCode, CliError> {
    let past = Past::read(context)?;
    let generation = past.generation(args.generation)?;
    if args.config {
        out::print(&generation.services)?;
        return Ok(ExitCode::Done);
    }
    let config = parse(&generation)?;
    if context.json {
        out::json_line(&as_json(&past, &generation, &config))?;
    } else {
        out::print(&as_text(context, &past, &generation, &config))?;
    }
    past.check_intact()?;
    Ok(ExitCode::Done)
}

fn as_json(past: &Past, generation: &Generation, config: &Config) -> Value {
    let number = generation.meta.generation;
    json!({
        "generation": number,
        "digest": generation.meta.digest,
        "in_force": past.in_force(number),
        "change": past.ledger.change_of(number).map(|change| summary_json(past, change)),
        "evidence": evidence(past, number),
        "config": config,
    })
}

fn as_text(context: &Context, past: &Past, generation: &Generation, config: &Config) -> String {
    let meta = &generation.meta;
    let mut page = Page::new(context.colour);
    let mark = if past.in_force(meta.generation) {
        " (in force)"
    } else {
        ""
    };
    page.line(
        Some(Tone::Strong),
        &format!("generation {}{mark}", meta.generation),
    );
    if let Some(change) = past.ledger.change_of(meta.generation) {
        page.field("  state   ", &outcome(change).0);
        if let Some(cause) = &change.cause {
            page.field("  cause   ", &cause.to_string());
        }
        if let Some(said) = proof(change) {
            page.field("  proven  ", &said);
        }
        if let Some(line) = judged(past, meta.generation) {
            page.field("  traffic ", &evidence_view::sentence(&line));
        }
    }
    if meta.generation > 0 {
        let asked = format!("{} by {}", time(meta.time), meta.author.user);
        page.field("  asked   ", &asked);
        page.field("  from    ", &format!("generation {}", meta.base));
    }
    page.field("  why     ", &meta.why);
    page.field("  digest  ", &meta.digest.to_string());
    for vip in &config.vips {
        page.field(
            "  VIP ",
            &format!("{} {} -> pool {}", vip.name, endpoint(vip), vip.pool),
        );
    }
    for pool in &config.pools {
        pool_text(&mut page, pool);
    }
    page.finish()
}

/// What the last judgement of a change's traffic said, as the journal has it.
fn judged(past: &Past, generation: u64) -> Option<EvidenceLine> {
    let body = evidence(past, generation)?;
    EvidenceLine::deserialize(body).ok()
}

fn evidence(past: &Past, generation: u64) -> Option<&Value> {
    past.records
        .iter()
        .rev()
        .filter(|record| record.generation == Some(generation))
        .find_map(|record| record.body.get("evidence"))
        .filter(|evidence| !evidence.is_null())
}

fn pool_text(page: &mut Page, pool: &Pool) {
    let head = format!(
        "{}: {}, {} entries, {} backends",
        pool.name,
        pool.forward,
        pool.table_size,
        pool.backends.len()
    );
    page.field("  pool ", &head);
    for backend in &pool.backends {
        let words = format!(
            "{} {} weight {} {}",
            backend.name, backend.address, backend.weight, backend.state
        );
        page.field("    ", &words);
    }
}

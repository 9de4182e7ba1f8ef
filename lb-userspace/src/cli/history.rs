//! `lbguard history`: the changes and drains of this host, newest first.

use serde_json::{Value, json};

use super::args::HistoryArgs;
use super::past::{Past, outcome};
use super::render::{Page, Tone, time};
use super::{CliError, Context, out};
use crate::change::journal::{Kind, Record};
use crate::change::ledger::{Drain, Ledger, Summary};
use crate::exit::ExitCode;

/// Shows what can be shown, then says if the journal was tampered with.
pub fn run(context: &Context, args: &HistoryArgs) -> Result<ExitCode, CliError> {
    let past = Past::read(context)?;
    if args.records {
        records(context, newest(&past.records, args.last))?;
    } else {
        events(context, &past, args.last)?;
    }
    past.check_intact()?;
    Ok(ExitCode::Done)
}

/// The last `count`, newest first; 0 for all.
fn newest<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    items
        .iter()
        .rev()
        .take(if count == 0 { usize::MAX } else { count })
}

/// What the history tells of.
enum Told<'a> {
    Change(&'a Summary),
    Drain(&'a Drain),
}

/// Changes and drains in the order in which they were asked for.
fn timeline(ledger: &Ledger) -> Vec<Told<'_>> {
    let changes = ledger.changes.iter().map(|c| (c.started, Told::Change(c)));
    let drains = ledger.drained.iter().map(|d| (d.time, Told::Drain(d)));
    let mut all: Vec<_> = changes.chain(drains).collect();
    all.sort_by_key(|(time, _)| *time);
    all.into_iter().map(|(_, told)| told).collect()
}

fn events(context: &Context, past: &Past, last: usize) -> Result<(), CliError> {
    let all = timeline(&past.ledger);
    let mut shown = newest(&all, last);
    if context.json {
        return shown.try_for_each(|told| match told {
            Told::Change(change) => out::json_line(&summary_json(past, change)),
            Told::Drain(drain) => out::json_line(&drain_json(drain)),
        });
    }
    let mut page = Page::new(context.colour);
    for told in shown {
        match told {
            Told::Change(change) => summary_text(&mut page, past, change),
            Told::Drain(drain) => drain_text(&mut page, drain),
        }
    }
    let text = page.finish();
    out::print(if text.is_empty() {
        "no changes yet\n"
    } else {
        &text
    })
}

fn drain_text(page: &mut Page, drain: &Drain) {
    let what = if drain.on { "drained" } else { "undrained" };
    let line = format!("backend {}/{} was {what}", drain.pool, drain.backend);
    page.line(Some(Tone::Mind), &line);
    let why = drain
        .why
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    let asked = format!("{} by {}{why}", time(drain.time), drain.by.user);
    page.field("  asked  ", &asked);
}

/// One drain, or its end, as a JSON object.
fn drain_json(drain: &Drain) -> Value {
    json!({
        "drain": {"pool": drain.pool, "backend": drain.backend, "on": drain.on},
        "author": drain.by, "why": drain.why, "time": drain.time,
    })
}

fn summary_text(page: &mut Page, past: &Past, change: &Summary) {
    let spec = &change.spec;
    let (ended, tone) = outcome(change);
    let mark = if past.in_force(spec.generation) {
        " (in force)"
    } else {
        ""
    };
    page.line(
        Some(tone),
        &format!("generation {}{mark} {ended}", spec.generation),
    );
    let asked = format!(
        "{} by {}: {}",
        time(change.started),
        spec.author.user,
        spec.why
    );
    page.field("  asked  ", &asked);
    if let Some(cause) = &change.cause {
        page.field("  cause  ", &cause.to_string());
    }
    if let Some(said) = proof(change) {
        page.field("  proven ", &said);
    }
}

/// Whether its traffic has proven a committed change good; nothing for one without evidence.
pub fn proof(change: &Summary) -> Option<String> {
    let proven = change.proven?;
    if change.kind != Kind::Committed {
        return None;
    }
    let names = change.probe_verified.join(", ");
    Some(match (proven, names.is_empty()) {
        (false, _) => "not proven by traffic: accepted by a person".to_owned(),
        (true, true) => "by traffic".to_owned(),
        (true, false) if change.probes_only => {
            format!("by probes only: traffic says nothing of {names}")
        }
        (true, false) => format!("by traffic, which says nothing of {names}"),
    })
}

/// One change as a JSON object.
pub fn summary_json(past: &Past, change: &Summary) -> Value {
    let spec = &change.spec;
    json!({
        "change": spec.change,
        "generation": spec.generation,
        "base": spec.base,
        "digest": spec.digest,
        "state": change.kind,
        "in_force": past.in_force(spec.generation),
        "rolled_back": change.rolled_back,
        "proven": change.proven,
        "probe_verified": change.probe_verified,
        "author": spec.author,
        "why": spec.why,
        "forced": spec.forced,
        "started": change.started,
        "time": change.time,
        "cause": change.cause.as_ref().map(|cause| cause.kind),
        "detail": change.cause.as_ref().map(|cause| &cause.detail),
        "confirmed_by": change.confirmed_by,
        "ended_by": change.ended_by,
    })
}

fn records<'a>(
    context: &Context,
    mut records: impl Iterator<Item = &'a Record>,
) -> Result<(), CliError> {
    if context.json {
        return records.try_for_each(out::json_line);
    }
    let mut page = Page::new(context.colour);
    for record in records {
        record_text(&mut page, record);
    }
    out::print(&page.finish())
}

fn record_text(page: &mut Page, record: &Record) {
    let number =
        |label, value: Option<u64>| value.map(|n| format!(" {label} {n}")).unwrap_or_default();
    let head = format!(
        "{:>6}  {}  {}{}{} by {}",
        record.seq,
        time(record.time),
        record.kind,
        number("change", record.change),
        number("generation", record.generation),
        record.actor.user,
    );
    page.line(record.kind.is_final().then_some(Tone::Strong), &head);
    let said = matches!(record.kind, Kind::Draft | Kind::Drain);
    if let Some(why) = record.why.as_deref().filter(|_| said) {
        page.field("        ", why);
    }
    page.field("        ", &words_of(&record.body));
}

/// The body as `key=value` words, without what the head line says already.
fn words_of(body: &Value) -> String {
    let said = ["author", "why", "change", "generation"];
    let pairs = body.as_object().into_iter().flatten();
    let words: Vec<String> = pairs
        .filter(|(key, _)| !said.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_words_that_fit_a_line() {
        let body = json!({"cause": "guard", "detail": "K3 hole", "author": {"uid": 0}, "n": 3});
        assert_eq!(words_of(&body), "cause=\"guard\" detail=\"K3 hole\" n=3");
        assert_eq!(words_of(&Value::Null), "");
    }

    #[test]
    fn newest_come_first_and_0_means_all() {
        let of = |count| newest(&[1, 2, 3], count).copied().collect::<Vec<_>>();
        assert_eq!(
            (of(2), of(0), of(9)),
            (vec![3, 2], vec![3, 2, 1], vec![3, 2, 1])
        );
    }
}

//! Reads `policy.toml` into a [`Policy`].

use std::path::Path;
use std::time::Duration;

use lb_common::pace;

use super::finding::TextLog;
use super::load::{LoadError, load, parse};
use super::policy::{EvidencePolicy, Policy};
use super::section::{Section, parse_toml};
use super::services::read_version;

/// Between changes one of so many new flows is followed at least, if any is.
const MOST_SAMPLED: u32 = 1 << lb_common::control::MOST_SAMPLING;
/// The guard takes 8 steps in all; `--canary` and baking may each add one.
const MOST_CANARY_STEPS: usize = 6;

impl Policy {
    /// Reads and checks the file; the defaults when there is none.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        match load(path, "", read_policy) {
            Err(LoadError::Missing { .. }) => Ok(Self::default()),
            result => result,
        }
    }

    /// Checks bytes at hand; `file` is the name for messages.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, LoadError> {
        parse(bytes, file, read_policy)
    }
}

fn read_policy(log: &mut TextLog<'_>) -> Option<Policy> {
    let document = parse_toml(log)?;
    let mut top = Section::top(&document);
    read_version(&mut top, log);
    let limits = top.take(log, "limits", "[limits]");
    let evidence = top.take(log, "evidence", "[evidence]");
    top.finish(log);
    let mut policy = match limits {
        Some(limits) => read_limits(limits.section(log)?, log)?,
        None => Policy::default(),
    };
    if let Some(evidence) = evidence {
        policy.evidence = read_evidence(evidence.section(log)?, log)?;
    }
    Some(policy)
}

fn read_evidence(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<EvidencePolicy> {
    let default = EvidencePolicy::default();
    let s = &mut section;
    let enabled = s.take(log, "enabled", "enabled = true");
    let enabled = enabled.and_then(|e| e.boolean(log));
    let baking = s.take(log, "baking", "baking = 90");
    let baking = baking.and_then(|e| e.integer(log, 50, 99));
    let baking = baking.unwrap_or(default.baking);
    let canary = s.take(log, "canary", "canary = [10, 25, 50]");
    let canary = canary.and_then(|e| e.percentages(log, 50));
    let millis = Duration::from_millis;
    let step = s.take(log, "step_within", "step_within = \"10m\"");
    let step = step.and_then(|e| e.duration(log, millis(1_000), Duration::from_hours(24)));
    let handshake = s.take(log, "handshake_within", "handshake_within = \"300ms\"");
    let handshake = handshake.and_then(|e| e.duration(log, millis(100), millis(900)));
    let dwell = s.take(log, "dwell", "dwell = \"5s\"");
    let dwell = dwell.and_then(|e| e.duration(log, millis(0), Duration::from_hours(1)));
    let follow = s.take(log, "follow", "follow = 2500");
    let follow = follow.and_then(|e| e.integer(log, 10, pace::MOST));
    let watch = s.take(log, "watch", "watch = 16");
    let watch = watch.and_then(|e| e.integer(log, 0, MOST_SAMPLED));
    let watch = watch.unwrap_or(default.watch);
    let at = section.offset();
    section.finish(log);
    if watch != 0 && !watch.is_power_of_two() {
        log.add(
            &super::rules::BAD_VALUE,
            at,
            format_args!("`watch` is {watch}, not a power of two"),
            format_args!("Write, for example, watch = 16: one of 16 new flows; 0 is none."),
        );
        return None;
    }
    let canary = canary.unwrap_or(default.canary);
    let rising = canary.is_sorted_by(|a, b| a < b) && canary.len() <= MOST_CANARY_STEPS;
    if !rising || canary.is_empty() {
        log.add(
            &super::rules::BAD_VALUE,
            at,
            format_args!("`canary` has to be 1 to {MOST_CANARY_STEPS} rising shares"),
            format_args!("Write, for example, canary = [10, 25, 50]."),
        );
        return None;
    }
    Some(EvidencePolicy {
        enabled: enabled.unwrap_or(default.enabled),
        canary,
        baking,
        step_within: step.unwrap_or(default.step_within),
        follow: follow.unwrap_or(default.follow),
        dwell: dwell.unwrap_or(default.dwell),
        watch,
        handshake_within: handshake.unwrap_or(default.handshake_within),
    })
}

fn read_limits(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<Policy> {
    let default = Policy::default();
    let seconds = Duration::from_secs;
    let s = &mut section;
    let lease = s.take(log, "lease", "lease = \"3s\"");
    let lease = lease.and_then(|e| e.duration(log, Duration::from_millis(500), seconds(60)));
    let max_entry = s.take(log, "confirm_within_max", "confirm_within_max = \"1h\"");
    let longest = Duration::from_hours(24);
    let max = max_entry.and_then(|e| e.duration(log, seconds(1), longest));
    let max = max.unwrap_or(default.confirm_within_max);
    // The default gives way to a smaller maximum; what the file says does not.
    let within = s.take(log, "confirm_within", "confirm_within = \"120s\"");
    let within = within.and_then(|e| e.duration(log, seconds(1), max));
    let r1 = s.take(log, "r1_moved", "r1_moved = 10");
    let r1 = r1
        .and_then(|e| e.integer(log, 0, 100))
        .unwrap_or(default.r1_moved);
    let r2_entry = s.take(log, "r2_moved", "r2_moved = 34");
    let r2 = r2_entry
        .as_ref()
        .and_then(|e| e.integer(log, 0, 100))
        .unwrap_or(default.r2_moved);
    let changes = s.take(log, "changes", "changes = 10");
    let changes = changes.and_then(|e| e.integer(log, 1, 1000));
    let every = s.take(log, "change_every", "change_every = \"30s\"");
    let every = every.and_then(|e| e.duration(log, Duration::from_millis(1), longest));
    let ejected = s.take(log, "ejected_max", "ejected_max = 50");
    let ejected = ejected.and_then(|e| e.integer(log, 0, 100));
    let hard = s.take(log, "hard_events", "hard_events = 3");
    let hard = hard.and_then(|e| e.integer(log, 0, 64));
    let at = section.offset();
    section.finish(log);
    if r2 < r1 {
        log.add(
            &super::rules::BAD_VALUE,
            at,
            format_args!("`r2_moved` ({r2}) is below `r1_moved` ({r1})"),
            format_args!("Class R2 allows more than R1: raise r2_moved or lower r1_moved."),
        );
        return None;
    }
    Some(Policy {
        lease: lease.unwrap_or(default.lease),
        confirm_within: within.unwrap_or(default.confirm_within.min(max)),
        confirm_within_max: max,
        r1_moved: r1,
        r2_moved: r2,
        changes: changes.unwrap_or(default.changes),
        change_every: every.unwrap_or(default.change_every),
        ejected_max: ejected.unwrap_or(default.ejected_max),
        hard_events: hard.unwrap_or(default.hard_events),
        evidence: default.evidence,
    })
}

//! Features that the file format has and this version's data path has not. Each is reported under
//! a rule of its own, never ignored; when one is built, its line here and its rule's use go.

use super::rules::{NO_IDENTITY, NO_SLOW_START};
use crate::config::{DraftPool, Health, HealthKind, Log, Pool, Rule};

type Uses = fn(&Pool) -> bool;

/// Key, its rule, and whether a pool uses it.
const POOL_FEATURES: &[(&str, &Rule, Uses)] = &[
    ("identity", &NO_IDENTITY, |pool| {
        pool.identity.is_some() && !pool.health.as_ref().is_some_and(speaks_http)
    }),
    ("slow_start", &NO_SLOW_START, |pool| {
        pool.slow_start.is_some() && pool.health.is_none()
    }),
];

fn speaks_http(health: &Health) -> bool {
    matches!(health.kind, HealthKind::Http | HealthKind::Https)
}

/// What a pool and its backends ask for in vain.
pub fn pool(draft: &DraftPool, log: &mut Log) {
    for (key, rule, uses) in POOL_FEATURES {
        if uses(&draft.pool) {
            log.add(
                rule,
                draft.lines.of(key),
                format_args!("pool `{}`: {}", draft.pool.name, rule.title),
                format_args!("{}", rule.fix),
            );
        }
    }
}

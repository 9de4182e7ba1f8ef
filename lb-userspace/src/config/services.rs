//! `services.toml`, from text to a [`Draft`]: everything the right type and within its range, but
//! not yet known to fit together.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_common::quic::MAX_ID_BYTES;

use super::finding::TextLog;
use super::model::{
    Backend, BackendState, Forward, Health, HealthKind, Identity, OnDead, Pool, Protocol, Vip,
    VipFlag,
};
use super::rules::{MISSING_KEY, VERSION};
use super::section::{Entry, Lines, Section, parse_toml};

/// Table size of a pool that names none: the smaller one of the Maglev paper.
pub const DEFAULT_TABLE_SIZE: u32 = 65_537;
/// Weight of a backend that names none.
const DEFAULT_WEIGHT: u32 = 100;
const DAY: Duration = Duration::from_hours(24);

/// A file's sections in its own order, each with its lines.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// VIPs that could be read.
    pub vips: Vec<(Vip, Lines)>,
    /// Pools that could be read.
    pub pools: Vec<DraftPool>,
}

/// A pool with the lines of its backends.
#[derive(Clone, Debug)]
pub struct DraftPool {
    /// The pool, backends in the file's order.
    pub pool: Pool,
    /// Its own lines.
    pub lines: Lines,
    /// Lines of its backends, in the same order.
    pub backends: Vec<Lines>,
}

/// Reads the text; what is wrong goes to the log. Sections with errors are left out.
pub fn read_services(log: &mut TextLog<'_>) -> Draft {
    let Some(document) = parse_toml(log) else {
        return Draft::default();
    };
    let mut top = Section::top(&document);
    read_version(&mut top, log);
    let vips = top.list(log, "vip", "[[vip]]", "VIP");
    let pools = top.list(log, "pool", "[[pool]]", "pool");
    top.finish(log);
    Draft {
        vips: vips
            .into_iter()
            .filter_map(|section| read_vip(section, log))
            .collect(),
        pools: pools
            .into_iter()
            .filter_map(|section| read_pool(section, log))
            .collect(),
    }
}

/// Checks `version = 1` at the top of any of the three files.
pub fn read_version(top: &mut Section<'_>, log: &mut TextLog<'_>) {
    let Some(entry) = top.need(log, "version", "version = 1") else {
        return;
    };
    let version = entry.integer(log, 0, i64::MAX);
    if let Some(version) = version.filter(|version| *version != 1) {
        let line = log.source.line_of(entry.offset());
        log.log.add(
            &VERSION,
            line,
            format_args!("version is {version}, this lbguard reads version 1"),
            format_args!("{}", VERSION.fix),
        );
    }
}

fn read_vip(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<(Vip, Lines)> {
    let s = &mut section;
    let name = s
        .need(log, "name", "name = \"shop-v4\"")
        .and_then(|e| e.name(log));
    let service = s
        .need(log, "service", "service = \"shop\"")
        .and_then(|e| e.name(log));
    let address = s
        .need(log, "address", "address = \"203.0.113.10\"")
        .and_then(|e| e.address(log));
    let port = s
        .need(log, "port", "port = 80")
        .and_then(|e| e.integer(log, 0, u16::MAX));
    let protocol = s
        .need(log, "protocol", "protocol = \"tcp\"")
        .and_then(|e| e.word(log, Protocol::WORDS));
    let pool = s
        .need(log, "pool", "pool = \"shop-web\"")
        .and_then(|e| e.name(log));
    let flags = s.take(log, "flags", "flags = [\"stateless\"]");
    let flags = flags.map_or_else(BTreeSet::new, |e| e.words(log, VipFlag::WORDS));
    let lines = section.finish(log);
    let vip = Vip {
        name: name?,
        service: service?,
        address: address?,
        port: port?,
        protocol: protocol?,
        pool: pool?,
        flags,
    };
    Some((vip, lines))
}

fn read_pool(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<DraftPool> {
    let s = &mut section;
    let name = s
        .need(log, "name", "name = \"shop-web\"")
        .and_then(|e| e.name(log));
    let service = s
        .need(log, "service", "service = \"shop\"")
        .and_then(|e| e.name(log));
    let forward = s
        .need(log, "forward", "forward = \"ipip\"")
        .and_then(|e| e.word(log, Forward::WORDS));
    let behaviour = read_behaviour(s, log);
    let health = s.take(log, "health", HEALTH_EXAMPLE);
    let health = health
        .and_then(|e| e.section(log))
        .and_then(|health| read_health(health, log));
    let identity = s.take(log, "identity", IDENTITY_EXAMPLE);
    let identity = identity
        .and_then(|e| e.section(log))
        .and_then(|id| read_identity(id, log));
    let sections = s.list(log, "backend", "[[pool.backend]]", "backend");
    let in_pool = section.what.clone();
    let lines = section.finish(log);

    let found = sections.len();
    let (mut backends, mut backend_lines) = (Vec::new(), Vec::new());
    for mut section in sections {
        section.what = format!("{} in {in_pool}", section.what);
        if let Some((backend, lines)) = read_backend(section, log) {
            backends.push(backend);
            backend_lines.push(lines);
        }
    }
    // A pool without some of its backends would only raise findings that are not true.
    let complete = backends.len() == found;
    let pool = Pool {
        name: name?,
        service: service?,
        forward: forward?,
        health,
        identity,
        backends,
        ..behaviour
    };
    complete.then_some(DraftPool {
        pool,
        lines,
        backends: backend_lines,
    })
}

/// The optional keys of a pool that are plain values; the rest of the pool is left empty.
fn read_behaviour(s: &mut Section<'_>, log: &mut TextLog<'_>) -> Pool {
    let second = Duration::from_secs(1);
    let table_size = s.take(log, "table_size", "table_size = 65537");
    let on_dead = s.take(log, "on_dead", "on_dead = \"move\"");
    let min_backends = s.take(log, "min_backends", "min_backends = 2");
    let max_share = s.take(log, "max_share", "max_share = \"40%\"");
    let slow_start = s.take(log, "slow_start", "slow_start = \"30s\"");
    let idle_timeout = s.take(log, "idle_timeout", "idle_timeout = \"5m\"");
    let mtu = s.take(log, "mtu", "mtu = 1500");
    let quic_id_bytes = s.take(log, "quic_id_bytes", "quic_id_bytes = 2");
    Pool {
        name: String::new(),
        service: String::new(),
        forward: Forward::Ipip,
        table_size: table_size
            .and_then(|e| e.integer(log, 0, u32::MAX))
            .unwrap_or(DEFAULT_TABLE_SIZE),
        health: None,
        identity: None,
        on_dead: on_dead
            .and_then(|e| e.word(log, OnDead::WORDS))
            .unwrap_or(OnDead::Move),
        min_backends: min_backends
            .and_then(|e| e.integer(log, 1, 65_535))
            .unwrap_or(1),
        max_share_ppm: max_share.and_then(|e| e.percent(log)),
        slow_start: slow_start.and_then(|e| e.duration(log, second, DAY)),
        idle_timeout: idle_timeout.and_then(|e| e.duration(log, second, DAY)),
        mtu: mtu.and_then(|e| e.integer(log, 576, 9216)),
        quic_id_bytes: quic_id_bytes.and_then(|e| e.integer(log, 1, MAX_ID_BYTES)),
        backends: Vec::new(),
    }
}

fn read_backend(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<(Backend, Lines)> {
    let s = &mut section;
    let name = s
        .need(log, "name", "name = \"web-1\"")
        .and_then(|e| e.name(log));
    let address = s
        .need(log, "address", "address = \"10.0.1.11\"")
        .and_then(|e| e.address(log));
    let weight = s.take(log, "weight", "weight = 100");
    let weight = weight
        .and_then(|e| e.integer(log, 0, u32::MAX))
        .unwrap_or(DEFAULT_WEIGHT);
    let state = s.take(log, "state", "state = \"active\"");
    let state = state.and_then(|e| e.word(log, BackendState::WORDS));
    let state = state.unwrap_or(BackendState::Active);
    let quic_id = s.take(log, "quic_id", "quic_id = 1");
    let quic_id = quic_id.and_then(|e| e.integer(log, 0, u32::MAX));
    let lines = section.finish(log);
    Some((
        Backend {
            name: name?,
            address: address?,
            weight,
            state,
            quic_id,
        },
        lines,
    ))
}

const HEALTH_EXAMPLE: &str = "health = { type = \"http\", port = 80, path = \"/healthz\", \
                              interval = \"1s\", timeout = \"500ms\", rise = 2, fall = 3 }";

/// `None` for `type = "none"` too, so that no check has one form only.
fn read_health(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<Health> {
    let s = &mut section;
    let words: Vec<(&str, Option<HealthKind>)> = HealthKind::WORDS
        .iter()
        .map(|(word, kind)| (*word, Some(*kind)))
        .chain([("none", None)])
        .collect();
    let kind = s
        .need(log, "type", "type = \"http\"")
        .and_then(|e| e.word(log, &words));
    let port = s.take(log, "port", "port = 80");
    let path = s.take(log, "path", "path = \"/healthz\"");
    let (shortest, longest) = (Duration::from_millis(100), Duration::from_hours(1));
    let interval = s.take(log, "interval", "interval = \"1s\"");
    let interval = interval.and_then(|e| e.duration(log, shortest, longest));
    let timeout = s.take(log, "timeout", "timeout = \"500ms\"");
    let timeout = timeout.and_then(|e| e.duration(log, Duration::from_millis(10), longest));
    let rise = s
        .take(log, "rise", "rise = 2")
        .and_then(|e| e.integer(log, 1, 100));
    let fall = s
        .take(log, "fall", "fall = 3")
        .and_then(|e| e.integer(log, 1, 100));
    let port = port.and_then(|e| e.integer(log, 1, u16::MAX));
    let is_http = matches!(kind, Some(Some(HealthKind::Http | HealthKind::Https)));
    let path = path.and_then(|e| read_path(&e, is_http, log));
    let more = read_more(s, kind.flatten(), log);
    let (at, what) = (section.offset(), section.what.clone());
    section.finish(log);
    let kind = kind??;
    if port.is_none() {
        log.add(
            &MISSING_KEY,
            at,
            format_args!("{what} has no usable `port`"),
            format_args!("Add the port that the backends answer checks on: port = 80"),
        );
    }
    Some(Health {
        kind,
        port: port?,
        path: path.or_else(|| is_http.then(|| "/".to_owned())),
        host: more.host,
        ca: more.ca,
        full_size: more.full_size,
        name: more.name,
        send: more.send,
        interval: interval.unwrap_or(Duration::from_secs(1)),
        timeout: timeout.unwrap_or(Duration::from_millis(500)),
        rise: rise.unwrap_or(2),
        fall: fall.unwrap_or(3),
    })
}

/// Keys that only some kinds of checks have.
#[derive(Default)]
struct More {
    host: Option<String>,
    ca: Option<String>,
    full_size: Option<bool>,
    name: Option<String>,
    send: Option<String>,
}

fn read_more(s: &mut Section<'_>, kind: Option<HealthKind>, log: &mut TextLog<'_>) -> More {
    use HealthKind::{Dns, Http, Https, Udp};
    // An unknown kind has a finding of its own.
    let fits = |kinds: &[HealthKind]| kind.is_none_or(|kind| kinds.contains(&kind));
    let mut text = |key: &'static str, example, kinds: &[HealthKind], log: &mut TextLog<'_>| {
        let entry = s.take(log, key, example)?;
        let value = entry.printable(log, 255)?;
        if !fits(kinds) {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            let problem = format!("is for {} only", kinds.join(" and "));
            entry.bad(log, &problem, "Remove it, or use another type.");
        }
        Some(value)
    };
    let more = More {
        host: text("host", "host = \"shop.example\"", &[Http, Https], log),
        ca: text("ca", "ca = \"/etc/lbguard/ca.pem\"", &[Https], log),
        name: text("name", "name = \"shop.example.\"", &[Dns], log),
        send: text("send", "send = \"ping\"", &[Udp], log),
        full_size: None,
    };
    let full_size = s.take(log, "full_size", "full_size = false");
    if let Some(entry) = &full_size
        && !fits(&[Http, Https])
    {
        entry.bad(log, "is for http and https only", "Remove it.");
    }
    More {
        full_size: full_size.and_then(|entry| entry.boolean(log)),
        ..more
    }
}

fn read_path(entry: &Entry<'_>, is_http: bool, log: &mut TextLog<'_>) -> Option<String> {
    let path = entry.printable(log, 255)?;
    if !is_http {
        entry.bad(
            log,
            "is for http and https only",
            "Remove it, or make the check http.",
        );
    } else if !path.starts_with('/') || path.contains(' ') {
        entry.bad(
            log,
            "must start with / and hold no blank",
            "Write it like this: /healthz",
        );
    }
    Some(path)
}

const IDENTITY_EXAMPLE: &str = "identity = { header = \"x-service\", value = \"shop\" }";

fn read_identity(mut section: Section<'_>, log: &mut TextLog<'_>) -> Option<Identity> {
    let s = &mut section;
    let header = s
        .need(log, "header", "header = \"x-service\"")
        .and_then(|e| e.name(log));
    let value = s
        .need(log, "value", "value = \"shop\"")
        .and_then(|e| e.printable(log, 255));
    section.finish(log);
    Some(Identity {
        header: header?.to_ascii_lowercase(),
        value: value?,
    })
}

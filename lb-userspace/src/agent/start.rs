//! How an agent starts: it adopts what is pinned, completes the journal from the kernel's state,
//! and after a reboot loads the last committed generation.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Setup;
use super::engine::{Engine, Running};
use super::health::Health;
use super::hops::Hops;
use super::records::{Found, Records};
use super::request::Request;
use super::watching::Watching;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::Kind;
use crate::change::ledger::Ledger;
use crate::change::machine::{KernelView, adopt};
use crate::change::store::Store;
use crate::kernel::attach;
use crate::kernel::object::Kernel;
use crate::kernel::outdated::differences;
use crate::kernel::pins::Pins;
use crate::kernel::size;

/// Everything up to the first round.
pub fn engine(
    setup: Setup,
    runtime: tokio::runtime::Handle,
    requests: &std::sync::mpsc::Sender<Request>,
) -> anyhow::Result<Engine> {
    let (records, found) = Records::open(&setup.paths.journal())?;
    let (store, unclean) = open_store(setup.paths.generations());
    let ledger = Ledger::of(&found.records);
    let pins = Pins::new(setup.paths.pin_dir());
    let kernel = load_or_adopt(&setup, &pins)?;
    let hops = Hops::start(&setup.node, &kernel, &runtime, requests.clone())?;
    let active = kernel
        .maps
        .record()?
        .map_or(0, |record| record.active_generation);
    let mut engine = Engine {
        setup,
        runtime,
        kernel,
        hops,
        health: Health::new(requests.clone()),
        records,
        ledger,
        store,
        running: None,
        committed: None,
        purge: None,
        active,
        swept: None,
        warnings: std::collections::BTreeMap::new(),
        watching: Watching::default(),
        watchers: Vec::new(),
        announced: false,
        tried: std::time::Instant::now(),
    };
    if engine.setup.node.metrics_address.is_some() {
        let text = "agent.toml: metrics_address is not supported by this version";
        engine.warnings.insert("metrics", text.to_owned());
    }
    engine.compare_with_loaded();
    engine.warnings.extend(unclean.map(|text| ("store", text)));
    engine.report(&found);
    engine.announce();
    if engine.kernel.upgraded {
        tracing::info!("the programs of another version have been replaced where they ran");
        engine.write_down(Kind::Upgraded, Actor::me(), json!({}));
    }
    engine.complete_journal()?;
    engine.doubt(&found);
    engine.reconcile_switches()?;
    engine.reconcile_drains()?;
    engine.note_policy();
    engine.restore(&found.unverified)?;
    engine.active = engine
        .kernel
        .maps
        .record()?
        .map_or(0, |record| record.active_generation);
    engine.committed = engine.stored(engine.active);
    engine.attach(&pins)?;
    engine.watch_hops();
    Ok(engine)
}

fn load_or_adopt(setup: &Setup, pins: &Pins) -> anyhow::Result<Kernel> {
    let limits = size::limits(&setup.policy);
    if pins.exist() {
        return Kernel::adopt(pins, limits).context("adopt what is pinned");
    }
    let node = size::node(&setup.node)?;
    Kernel::load_pinned(pins, node, limits).context("load the programs")
}

/// The store; for reading alone, and why, if its disk takes no writing.
fn open_store(directory: std::path::PathBuf) -> (Store, Option<String>) {
    match Store::open(&directory) {
        Ok(store) => (store, None),
        Err(error) => {
            tracing::warn!(%error, "generations cannot be written");
            (Store::at(directory), Some(error.to_string()))
        }
    }
}

impl Engine {
    /// What agent.toml says and the kernel does not do.
    fn compare_with_loaded(&mut self) {
        let Ok(found) = differences(&self.kernel.node, &self.setup.node) else {
            return;
        };
        if found.is_empty() {
            return;
        }
        let text = format!(
            "loaded with other values than agent.toml has: {}. They hold from the next load on: \
             `systemctl stop lbguard`, `lbguard unload`, `systemctl start lbguard`, which interrupts \
             forwarding: withdraw the route first",
            found.join("; ")
        );
        tracing::warn!("{text}");
        self.warnings.insert("outdated", text);
    }

    /// Finishes what the last agent left, by the kernel's word.
    pub(super) fn complete_journal(&mut self) -> anyhow::Result<()> {
        let record = self
            .kernel
            .maps
            .record()?
            .context("the guard has not been started")?;
        let now = Now::read();
        let view = KernelView::of(&record, now.boot_ns);
        // An altered journal is not gone on from: its end says nothing about what runs.
        let adoption = if self.records.altered() {
            adopt(&Ledger::default(), view, Value::Null, now)
        } else {
            adopt(&self.ledger, view, self.told_by_breaker(&record), now)
        };
        if let Some(change) = adoption.change {
            let generation = change.spec().generation;
            let stored = self.store.load(generation).ok();
            self.running = Some(Running {
                services: stored
                    .map(|stored| stored.services.into_bytes())
                    .unwrap_or_default(),
                config: self.stored(generation).map(|known| known.config),
                change,
                findings: Vec::new(),
                image: None,
                events: None,
                last: None,
                cancelled: false,
                lease_renewed_ns: 0,
                evidence: None,
                removes: false,
            });
        }
        self.perform(adoption.effects);
        Ok(())
    }

    /// What an altered journal's end says about freeze and latch is believed if it is on the safe
    /// side.
    fn doubt(&mut self, found: &Found) {
        let mut claims = self.ledger.clone();
        for record in &found.unverified {
            claims.add(record);
        }
        self.ledger.frozen |= claims.frozen;
        self.ledger.latched |= claims.latched;
    }

    /// Attaches the interfaces of agent.toml; those that are attached stay so, and a newer program
    /// takes the place of an older one without a packet lost.
    fn attach(&mut self, pins: &Pins) -> anyhow::Result<()> {
        for interface in self.setup.node.interfaces.clone() {
            let attachment = attach::attach(pins, &interface, self.setup.node.xdp_mode)
                .with_context(|| format!("attach to {interface}"))?;
            let mode = attachment.at.mode.unwrap_or("elsewhere");
            if let Some(error) = &attachment.not_native {
                let text = format!(
                    "{interface} runs the program in generic mode, which is slow: its driver refuses \
                     native XDP ({error})"
                );
                tracing::warn!("{text}");
                self.warnings.insert("generic", text);
            }
            if attachment.done == attach::Done::Already {
                continue;
            }
            tracing::info!(interface, mode, "attached");
            let body = json!({"interface": interface, "mode": mode});
            self.write_down(Kind::Attach, Actor::me(), body);
        }
        Ok(())
    }
}

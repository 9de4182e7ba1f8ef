//! How an agent starts: it adopts what is pinned, completes the journal from the kernel's state,
//! and after a reboot loads the last committed generation.

use std::time::Duration;

use anyhow::{Context as _, bail};
use lb_common::control::SHARE_ALL;
use lb_common::guard::Op;
use serde_json::json;

use super::Setup;
use super::engine::{Engine, Running};
use super::hops::Hops;
use super::request::Request;
use crate::change::Now;
use crate::change::actor::Actor;
use crate::change::journal::{Journal, Kind, Repair};
use crate::change::ledger::Ledger;
use crate::change::machine::{KernelView, adopt};
use crate::change::store::Store;
use crate::kernel::attach;
use crate::kernel::object::Kernel;
use crate::kernel::pins::Pins;
use crate::kernel::size;
use crate::kernel::stage::{stage, verify};

/// Deadline of the trial that restores the committed generation; it is confirmed at once.
const RESTORE_WITHIN: Duration = Duration::from_mins(1);

/// Everything up to the first round.
pub fn engine(
    setup: Setup,
    runtime: tokio::runtime::Handle,
    requests: &std::sync::mpsc::Sender<Request>,
) -> anyhow::Result<Engine> {
    let (journal, opened) = Journal::open(&setup.paths.journal())?;
    let store = Store::open(setup.paths.generations())?;
    let ledger = Ledger::of(&opened.records);
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
        journal,
        ledger,
        store,
        running: None,
        committed: None,
        active,
        warnings: std::collections::BTreeMap::new(),
        watchers: Vec::new(),
    };
    if engine.setup.node.metrics_address.is_some() {
        let text = "agent.toml: metrics_address is not supported by this version";
        engine.warnings.insert("metrics", text.to_owned());
    }
    engine.report_repair(opened.repair.as_ref());
    engine.write_down(
        Kind::AgentStart,
        Actor::me(),
        json!({"version": env!("CARGO_PKG_VERSION")}),
    );
    if engine.kernel.upgraded {
        tracing::info!("the programs of another version have been replaced where they ran");
        engine.write_down(Kind::Upgraded, Actor::me(), json!({}));
    }
    engine.complete_journal()?;
    engine.restore_switches()?;
    engine.note_policy();
    engine.restore()?;
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

impl Engine {
    fn report_repair(&mut self, repair: Option<&Repair>) {
        let text = match repair {
            None => return,
            Some(Repair::Completed) => "the journal's last line lacked its end".to_owned(),
            Some(Repair::MovedTo(path)) => {
                format!(
                    "the journal's last record was torn; its bytes are in {}",
                    path.display()
                )
            }
        };
        tracing::warn!("{text}");
        self.warnings.insert("repair", text);
    }

    /// Finishes what the last agent left, by the kernel's word.
    fn complete_journal(&mut self) -> anyhow::Result<()> {
        let record = self
            .kernel
            .maps
            .record()?
            .context("the guard has not been started")?;
        let now = Now::read();
        let adoption = adopt(&self.ledger, KernelView::of(&record, now.boot_ns), now);
        if let Some(change) = adoption.change {
            let generation = change.spec().generation;
            let stored = self.store.load(generation).ok();
            self.running = Some(Running {
                services: stored
                    .map(|stored| stored.services.into_bytes())
                    .unwrap_or_default(),
                config: self.stored(generation),
                change,
                findings: Vec::new(),
                image: None,
                events: None,
                last: None,
                cancelled: false,
                lease_renewed_ns: 0,
                removes: false,
            });
        }
        self.perform(adoption.effects);
        Ok(())
    }

    /// Freeze and latch hold over a reboot, from before the first flip on.
    fn restore_switches(&mut self) -> anyhow::Result<()> {
        if self.active != 0 {
            return Ok(());
        }
        if self.ledger.frozen {
            let text = "frozen: forward changes are refused (`lbguard freeze off` allows them)";
            self.warnings.insert("frozen", text.to_owned());
        }
        if self.ledger.latched {
            self.kernel.guard.call(Op::Ack, 0, &[1], &[])?;
        }
        Ok(())
    }

    /// Which policy holds from here on.
    fn note_policy(&mut self) {
        let digest = self.setup.policy.digest().to_string();
        if self.ledger.policy.as_ref() != Some(&digest) {
            self.write_down(Kind::Policy, Actor::me(), json!({"digest": digest}));
        }
    }

    /// After a reboot nothing is pinned: the last committed generation is loaded, and no other.
    fn restore(&mut self) -> anyhow::Result<()> {
        let record = self
            .kernel
            .maps
            .record()?
            .context("the guard has not been started")?;
        let Some(generation) = self.ledger.committed else {
            return Ok(());
        };
        if record.active_generation != 0 {
            return Ok(());
        }
        let Some(config) = self.stored(generation) else {
            bail!(
                "generation {generation} is committed, but {} does not hold it; apply a configuration \
                 anew",
                self.setup.paths.generations().display()
            );
        };
        self.hops.resolve(&self.runtime, &self.kernel, &config)?;
        let image = self.image(&config)?;
        let sealed = stage(&self.kernel, &image, generation, 0)?;
        verify(&self.kernel, &image, &sealed)?;
        let longest = self.setup.policy.confirm_within_max.min(RESTORE_WITHIN);
        let within = u64::try_from(longest.as_millis()).unwrap_or(1);
        let args = [u64::from(SHARE_ALL), 0, within, within, 1];
        self.kernel.guard.call(Op::Trial, 0, &args, &[])?;
        self.kernel.guard.call(Op::Confirm, 0, &[0], &[])?;
        if self.ledger.frozen {
            self.kernel.guard.call(Op::Freeze, 0, &[1], &[])?;
        }
        tracing::info!(generation, "restored the committed generation");
        let body = json!({"restored": true});
        self.write_generation(Kind::Restored, generation, Actor::me(), body);
        Ok(())
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

//! The watcher's task: events in, questions to the kernel, news out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::NetError;
use super::connection::{Event, Events, Requests};
use super::links;
use super::neighbour::{self, Care, Key};
use super::next_hop::{Resolution, Settings, Target};
use super::route;
use super::state::State;
use super::watch::Changed;

/// Time for a burst of events to end before it is acted on.
const QUIET: Duration = Duration::from_millis(50);
/// The same while somebody waits for an answer.
const QUIET_WHEN_AWAITED: Duration = Duration::from_millis(5);
/// Least time between two rounds: what flaps is told twice a second at most.
const PACE: Duration = Duration::from_millis(500);
/// How often neighbours are asked where the kernel does not do it by itself.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What the watcher is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Track these, and no others.
    Track(BTreeSet<Target>),
    /// Track these, too, and answer when each is resolved or can't be, or at the deadline.
    Resolve {
        targets: BTreeSet<Target>,
        deadline: Instant,
        reply: oneshot::Sender<BTreeMap<Target, Resolution>>,
    },
}

#[derive(Debug)]
struct Waiting {
    targets: BTreeSet<Target>,
    deadline: Instant,
    reply: oneshot::Sender<BTreeMap<Target, Resolution>>,
}

/// What has to be read again.
#[derive(Clone, Copy, Debug, Default)]
struct Dirty {
    /// Interfaces and neighbours, because events were lost.
    everything: bool,
    /// Routes.
    routes: bool,
}

/// The task's state.
pub(super) struct Engine {
    requests: Requests,
    events: Events,
    commands: mpsc::Receiver<Command>,
    changes: mpsc::Sender<Changed>,
    state: State,
    waiting: Vec<Waiting>,
    dirty: Dirty,
    due: Option<Instant>,
    /// No round before this, unless somebody waits.
    not_before: Instant,
    /// Entries that we made `managed`, and that are to be let go when nobody wants them.
    kept: HashSet<Key>,
    /// Whether this kernel keeps neighbours fresh by itself.
    managed: bool,
    probe: Interval,
}

impl Engine {
    /// Opens the sockets and reads the interfaces.
    pub(super) async fn new(
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        changes: mpsc::Sender<Changed>,
    ) -> Result<Self, NetError> {
        // Listen first, then read: nothing falls between.
        let events = Events::open()?;
        let requests = Requests::open()?;
        let links = links::dump(&requests).await?;
        let mut probe = interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            requests,
            events,
            commands,
            changes,
            state: State::new(settings, links),
            waiting: Vec::new(),
            dirty: Dirty::default(),
            due: None,
            not_before: Instant::now(),
            kept: HashSet::new(),
            managed: true,
            probe,
        })
    }

    /// Until nobody can send commands any more.
    pub(super) async fn run(mut self) {
        let changes = self.changes.clone();
        loop {
            let due = self.due;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                event = self.events.next() => self.note(event),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.round().await;
                }
                place = changes.reserve(), if self.state.has_news() => match place {
                    Ok(place) => if let Some(news) = self.state.take_news() { place.send(news) },
                    Err(_) => return,
                },
                _ = self.probe.tick(), if !self.managed => self.ask(&self.state.wanted()).await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Track(targets) => {
                self.state.retain(&targets);
                let new = self.state.add(&targets);
                self.look_up(&new).await;
            }
            Command::Resolve {
                targets,
                deadline,
                reply,
            } => {
                let new = self.state.add(&targets);
                self.look_up(&new).await;
                self.update_neighbours().await;
                // Perhaps it was silent when it was last asked, and is there now.
                let silent = self.state.wanted().into_iter();
                let silent: Vec<Key> = silent.filter(|key| !self.has_answer(key)).collect();
                self.ask(&silent).await;
                self.waiting.push(Waiting {
                    targets,
                    deadline,
                    reply,
                });
            }
        }
        self.finish_round().await;
    }

    fn has_answer(&self, key: &Key) -> bool {
        let neighbour = self.state.neighbour(key);
        neighbour.is_some_and(|found| matches!(found.answer, neighbour::Answer::Mac(_)))
    }

    /// Notes an event; it is acted on in the next round.
    fn note(&mut self, event: Event) {
        match event {
            Event::Lost => {
                self.dirty = Dirty {
                    everything: true,
                    routes: true,
                }
            }
            Event::Route => self.dirty.routes = true,
            Event::Link(message) => {
                let Some(link) = links::parse(&message) else {
                    return;
                };
                if self.state.links.get(&link.index) == Some(&link) {
                    return;
                }
                self.state.links.insert(link.index, link);
                self.dirty.routes = true;
            }
            Event::LinkGone(message) => {
                // A bridge tells of a port that left it in the same words.
                let family = message.header.interface_family;
                if family != rtnetlink::packet_route::AddressFamily::Unspec {
                    return;
                }
                self.state.links.remove(&message.header.index);
                self.dirty.routes = true;
            }
            Event::Neighbour(message) => match neighbour::parse(&message) {
                Some((key, neighbour)) if self.state.wants(&key) => {
                    if self.state.neighbour(&key) == Some(neighbour) {
                        return;
                    }
                    self.state.set_neighbour(key, neighbour);
                }
                _ => return,
            },
            Event::NeighbourGone(message) => match neighbour::parse(&message) {
                Some((key, _)) if self.state.wants(&key) => {
                    self.state.remove_neighbour(&key);
                    self.kept.remove(&key);
                }
                _ => return,
            },
        }
        let now = Instant::now();
        let at = if self.waiting.is_empty() {
            now.checked_add(QUIET)
                .map_or(now, |quiet| quiet.max(self.not_before))
        } else {
            now.checked_add(QUIET_WHEN_AWAITED).unwrap_or(now)
        };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Reads again what has changed, decides, answers.
    async fn round(&mut self) {
        let started = Instant::now();
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.everything {
            self.read_everything().await;
        }
        if dirty.routes {
            self.look_up(&self.state.targets()).await;
        }
        self.finish_round().await;
        // A routing table in turmoil must not keep us busy: one part work, ten parts rest.
        let rest = started.elapsed().saturating_mul(10).max(PACE);
        self.not_before = started.checked_add(rest).unwrap_or(started);
    }

    async fn finish_round(&mut self) {
        self.update_neighbours().await;
        self.state.evaluate();
        self.answer();
        let earliest = self.waiting.iter().map(|waiting| waiting.deadline).min();
        let redo = (self.dirty.everything || self.dirty.routes).then_some(self.not_before);
        self.due = earliest.into_iter().chain(redo).min();
    }

    async fn read_everything(&mut self) {
        tracing::debug!("netlink events were lost: reading everything again");
        match links::dump(&self.requests).await {
            Ok(links) => self.state.links = links,
            Err(error) => self.try_again(&error),
        }
        match neighbour::dump(&self.requests).await {
            Ok(table) => self.state.replace_neighbours(table),
            Err(error) => self.try_again(&error),
        }
        let lost: Vec<Key> = self
            .state
            .wanted()
            .into_iter()
            .filter(|key| self.state.neighbour(key).is_none())
            .collect();
        self.ask(&lost).await;
    }

    fn try_again(&mut self, error: &NetError) {
        tracing::warn!("{error}; trying again");
        self.dirty.everything = true;
    }

    async fn look_up(&mut self, targets: &[Target]) {
        for target in targets {
            match route::look_up(&self.requests, target.address).await {
                Ok(route) => self.state.routed(*target, route),
                Err(error) => {
                    self.state.not_routed(*target, error.to_string());
                    self.dirty.routes = true;
                }
            }
        }
    }

    /// Has the kernel resolve and keep the neighbours that matter now, and lets go the others.
    async fn update_neighbours(&mut self) {
        let (mut new, gone) = self.state.update_wanted();
        for key in gone {
            if self.kept.remove(&key) {
                let _ = neighbour::ask(&self.requests, key, Care::Use).await;
            }
        }
        // Entries that somebody deleted.
        let vanished = self.state.wanted().into_iter().filter(|key| {
            self.state.neighbour(key).is_none() && !self.kept.contains(key) && !new.contains(key)
        });
        let vanished: Vec<Key> = vanished.collect();
        new.extend(vanished);
        if new.is_empty() {
            return;
        }
        // Before asking: what was set by hand must not be touched.
        match neighbour::dump(&self.requests).await {
            Ok(table) => self.state.replace_neighbours(table),
            Err(error) => {
                self.try_again(&error);
                return;
            }
        }
        self.ask(&new).await;
    }

    /// Has the kernel resolve these neighbours.
    async fn ask(&mut self, keys: &[Key]) {
        for key in keys {
            let before = self.state.neighbour(key);
            if before.is_some_and(|found| found.fixed) {
                continue;
            }
            if self.managed && self.ask_managed(*key).await {
                if !before.is_some_and(|found| found.managed) {
                    self.kept.insert(*key);
                }
                continue;
            }
            if let Err(error) = neighbour::ask(&self.requests, *key, Care::Use).await {
                tracing::debug!("{error}");
            }
        }
    }

    /// Whether the kernel took it.
    async fn ask_managed(&mut self, key: Key) -> bool {
        let Err(refused) = neighbour::ask(&self.requests, key, Care::Managed).await else {
            return true;
        };
        // Is it the flag, or the neighbour?
        if neighbour::ask(&self.requests, key, Care::Use).await.is_ok() {
            self.managed = false;
            tracing::warn!(
                "this kernel does not keep neighbours fresh by itself ({refused}): they are asked \
                 every {} s while the agent runs",
                PROBE_EVERY.as_secs()
            );
        }
        false
    }

    /// Answers those whose targets are settled or whose time is up.
    fn answer(&mut self) {
        let now = Instant::now();
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| {
                waiting.deadline <= now
                    || waiting
                        .targets
                        .iter()
                        .all(|target| self.state.is_settled(target))
            });
        self.waiting = waiting;
        let done: Vec<Waiting> = done;
        for waiting in done {
            let state = &mut self.state;
            let answer = waiting
                .targets
                .iter()
                .map(|target| (*target, state.tell(*target)));
            // Whoever asked may have gone.
            let _ = waiting.reply.send(answer.collect());
        }
    }
}

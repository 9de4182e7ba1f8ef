//! What the watcher knows, and what it has told: no I/O.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::links::Links;
use super::neighbour::{Answer, Key, Neighbour, Neighbours};
use super::next_hop::{Hop, Resolution, Settings, Target, Unresolved, decide, plan};
use super::route::{NoPath, Path};
use super::watch::Changed;

/// Everything known.
#[derive(Debug)]
pub(super) struct State {
    pub settings: Settings,
    pub links: Links,
    /// Those of [`State::wanted`] only: a host may have very many others.
    neighbours: Neighbours,
    wanted: HashSet<Key>,
    tracked: BTreeMap<Target, Tracked>,
    /// Targets whose news the listener has not taken yet: however fast things change, there is
    /// one piece of news a target.
    unsent: BTreeSet<Target>,
}

#[derive(Debug, Default)]
struct Tracked {
    /// What the look-up said; none yet, or it failed for this reason.
    route: Route,
    now: Option<Resolution>,
    told: Option<Resolution>,
}

#[derive(Debug)]
enum Route {
    Known(Result<Path, NoPath>),
    Unknown(String),
}

impl Default for Route {
    fn default() -> Self {
        Self::Unknown("not looked up yet".to_owned())
    }
}

impl State {
    pub(super) fn new(settings: Settings, links: Links) -> Self {
        Self {
            settings,
            links,
            neighbours: Neighbours::new(),
            wanted: HashSet::new(),
            tracked: BTreeMap::new(),
            unsent: BTreeSet::new(),
        }
    }

    /// Adds targets.
    ///
    /// # Returns
    /// Those that are new.
    pub(super) fn add(&mut self, targets: &BTreeSet<Target>) -> Vec<Target> {
        let new: Vec<Target> = targets
            .iter()
            .filter(|target| !self.tracked.contains_key(target))
            .copied()
            .collect();
        self.tracked
            .extend(new.iter().map(|target| (*target, Tracked::default())));
        new
    }

    /// Forgets all targets but these.
    pub(super) fn retain(&mut self, targets: &BTreeSet<Target>) {
        self.tracked.retain(|target, _| targets.contains(target));
        self.unsent.retain(|target| targets.contains(target));
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        self.tracked.keys().copied().collect()
    }

    /// Notes a look-up.
    pub(super) fn routed(&mut self, target: Target, route: Result<Path, NoPath>) {
        if let Some(tracked) = self.tracked.get_mut(&target) {
            tracked.route = Route::Known(route);
        }
    }

    /// Notes a look-up that failed; an earlier answer stands.
    pub(super) fn not_routed(&mut self, target: Target, why: String) {
        if let Some(tracked) = self.tracked.get_mut(&target)
            && let Route::Unknown(reason) = &mut tracked.route
        {
            *reason = why;
        }
    }

    /// Works out anew whose neighbour entries matter.
    ///
    /// # Returns
    /// Those that did not before, and those that do no longer.
    pub(super) fn update_wanted(&mut self) -> (Vec<Key>, Vec<Key>) {
        let wanted: HashSet<Key> = self
            .tracked
            .iter()
            .filter_map(|(target, tracked)| {
                let Route::Known(route) = &tracked.route else {
                    return None;
                };
                match plan(*target, route, &self.links, &self.settings).ok()?.hop {
                    Hop::Neighbour { key, .. } => Some(key),
                    Hop::Static(_) => None,
                }
            })
            .collect();
        let new = wanted.difference(&self.wanted).copied().collect();
        let gone: Vec<Key> = self.wanted.difference(&wanted).copied().collect();
        for key in &gone {
            self.neighbours.remove(key);
        }
        self.wanted = wanted;
        (new, gone)
    }

    pub(super) fn wants(&self, key: &Key) -> bool {
        self.wanted.contains(key)
    }

    pub(super) fn wanted(&self) -> Vec<Key> {
        self.wanted.iter().copied().collect()
    }

    pub(super) fn neighbour(&self, key: &Key) -> Option<Neighbour> {
        self.neighbours.get(key).copied()
    }

    /// Notes a neighbour that matters.
    pub(super) fn set_neighbour(&mut self, key: Key, neighbour: Neighbour) {
        if self.wanted.contains(&key) {
            self.neighbours.insert(key, neighbour);
        }
    }

    pub(super) fn remove_neighbour(&mut self, key: &Key) {
        self.neighbours.remove(key);
    }

    /// Notes the whole table: what it lacks is gone.
    pub(super) fn replace_neighbours(&mut self, mut table: Neighbours) {
        table.retain(|key, _| self.wanted.contains(key));
        self.neighbours = table;
    }

    /// Decides all targets anew, and notes what is news.
    pub(super) fn evaluate(&mut self) {
        for (target, tracked) in &mut self.tracked {
            let resolution = match &tracked.route {
                Route::Known(route) => decide(
                    *target,
                    route,
                    &self.links,
                    &self.neighbours,
                    &self.settings,
                ),
                Route::Unknown(why) => Err(Unresolved::Unknown {
                    address: target.address,
                    why: why.clone(),
                }),
            };
            // While the kernel asks there is nothing new: it will answer or give up.
            let news = tracked.told.as_ref() != Some(&resolution)
                && !is_asking(&resolution, tracked, &self.neighbours);
            tracked.now = Some(resolution);
            if news {
                self.unsent.insert(*target);
            } else {
                self.unsent.remove(target);
            }
        }
    }

    /// Whether a target's resolution will not change by waiting for an answer.
    pub(super) fn is_settled(&self, target: &Target) -> bool {
        let now = self
            .tracked
            .get(target)
            .and_then(|tracked| tracked.now.as_ref());
        !matches!(now, None | Some(Err(Unresolved::NoAnswer { .. })))
    }

    /// The resolution of a target, which counts as told by this.
    pub(super) fn tell(&mut self, target: Target) -> Resolution {
        self.unsent.remove(&target);
        let unknown = || {
            let why = "it is not tracked any more".to_owned();
            Err(Unresolved::Unknown {
                address: target.address,
                why,
            })
        };
        let Some(tracked) = self.tracked.get_mut(&target) else {
            return unknown();
        };
        tracked.told.clone_from(&tracked.now);
        tracked.now.clone().unwrap_or_else(unknown)
    }

    pub(super) fn has_news(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// One piece of news.
    pub(super) fn take_news(&mut self) -> Option<Changed> {
        let target = *self.unsent.first()?;
        let resolution = self.tell(target);
        Some(Changed { target, resolution })
    }
}

fn is_asking(resolution: &Resolution, tracked: &Tracked, neighbours: &Neighbours) -> bool {
    let (Err(Unresolved::NoAnswer { via, .. }), Route::Known(Ok(path))) =
        (resolution, &tracked.route)
    else {
        return false;
    };
    let answer = neighbours
        .get(&(path.interface, *via))
        .map(|neighbour| neighbour.answer);
    answer.is_none_or(|answer| answer == Answer::Asking)
}

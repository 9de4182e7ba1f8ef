//! The tasks that check, and the one that draws conclusions: it speaks to the guard by itself, so that
//! a death reaches the data path while the engine is busy with a change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_common::guard::{Op, Refusal};
use lb_common::slot::{hold, member_state};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::board::{Board, Line, PoolSpec, Set, Told};
use super::probe::Probe;
use super::{Turn, Verdict};
use crate::kernel::KernelError;
use crate::kernel::guard::Guard;
use crate::sys::{boot_ns, random_u64};

/// Time between two steps of a slow start.
const STEP: Duration = Duration::from_millis(200);

/// Checks of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Its pool.
    pub pool: String,
    /// Its member id.
    pub member: u32,
    /// What it is asked.
    pub probe: Probe,
}

/// News for the engine.
#[derive(Debug)]
pub struct News {
    /// What is to be told.
    pub told: Told,
    /// From the deciding result to the kernel's agreement.
    pub took: Duration,
}

/// How a check ended.
struct Ended {
    pool: String,
    member: u32,
    verdict: Verdict,
    at: Instant,
}

/// The checks that run.
pub struct Runner {
    board: Arc<Mutex<Board>>,
    tasks: BTreeMap<(String, u32), (Checks, JoinHandle<()>)>,
    results: mpsc::UnboundedSender<Ended>,
    runtime: tokio::runtime::Handle,
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Starts with nothing to check. `tell` is called with what is to be told.
    pub fn start(
        guard: Guard,
        runtime: tokio::runtime::Handle,
        tell: impl Fn(News) + Send + 'static,
    ) -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let (results, inbox) = mpsc::unbounded_channel();
        let judge = Judge {
            board: Arc::clone(&board),
            guard,
            tell: Box::new(tell),
        };
        runtime.spawn(judge.run(inbox));
        Self {
            board,
            tasks: BTreeMap::new(),
            results,
            runtime,
        }
    }

    /// What is checked from here on; checks that stay the same go on undisturbed.
    pub fn set(&mut self, pools: Vec<PoolSpec>, checks: Vec<Checks>) {
        lock(&self.board).set(pools, boot_ns());
        let mut before = std::mem::take(&mut self.tasks);
        for own in checks {
            let key = (own.pool.clone(), own.member);
            let task = match before.remove(&key) {
                Some((known, task)) if known == own => task,
                other => {
                    if let Some((_, task)) = other {
                        task.abort();
                    }
                    self.runtime.spawn(check(own.clone(), self.results.clone()))
                }
            };
            self.tasks.insert(key, (own, task));
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
    }

    /// Everybody that is checked.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.board).lines()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

/// Checks one backend for ever. The first check comes at a random part of the interval, and each
/// interval is up to a tenth shorter: checks of many balancers must not come at once.
async fn check(own: Checks, results: mpsc::UnboundedSender<Ended>) {
    let interval = own.probe.health.interval;
    tokio::time::sleep(interval.mul_f64(draw())).await;
    loop {
        let begun = tokio::time::Instant::now();
        let verdict = own.probe.ask().await;
        let ended = Ended {
            pool: own.pool.clone(),
            member: own.member,
            verdict,
            at: Instant::now(),
        };
        if results.send(ended).is_err() {
            return;
        }
        let pause = interval.mul_f64(1.0 - draw() / 10.0);
        tokio::time::sleep_until(begun + pause).await;
    }
}

/// A number from 0 to 1.
fn draw() -> f64 {
    let random = random_u64().unwrap_or(0) >> 40;
    f64::from(u32::try_from(random).unwrap_or(0)) / f64::from(1_u32 << 24)
}

/// Takes results and tells the kernel.
struct Judge {
    board: Arc<Mutex<Board>>,
    guard: Guard,
    tell: Box<dyn Fn(News) + Send>,
}

impl Judge {
    async fn run(self, mut inbox: mpsc::UnboundedReceiver<Ended>) {
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ended = inbox.recv() => match ended {
                    Some(ended) => self.take(ended),
                    None => return,
                },
                _ = step.tick() => self.fulfil(Instant::now(), None),
            }
        }
    }

    fn take(&self, ended: Ended) {
        let Ended {
            pool,
            member,
            verdict,
            at,
        } = ended;
        let turn = lock(&self.board).take(&pool, member, verdict, boot_ns());
        if let Some(turn) = turn {
            self.fulfil(at, Some((&pool, member, turn)));
        }
    }

    /// Tells the kernel what it should do, until both agree, and then people.
    fn fulfil(&self, decided: Instant, turn: Option<(&str, u32, Turn)>) {
        // A refusal makes other wishes; a second one of the same pool makes none.
        for _ in 0..3 {
            let wishes = lock(&self.board).wishes(boot_ns());
            if wishes.is_empty() {
                break;
            }
            for wish in &wishes {
                self.set(wish);
            }
        }
        let took = decided.elapsed();
        let mut board = lock(&self.board);
        let own = turn.and_then(|(pool, member, turn)| board.tell(pool, member, turn));
        let told: Vec<Told> = own.into_iter().chain(board.panics()).collect();
        drop(board);
        for told in told {
            (self.tell)(News { told, took });
        }
    }

    fn set(&self, wish: &Set) {
        let state = if wish.held {
            member_state::DOWN
        } else {
            member_state::UP
        };
        let args = [
            u64::from(wish.member),
            u64::from(state),
            0,
            u64::from(hold::HEALTH),
            u64::from(wish.withheld),
        ];
        match self.guard.call(Op::SetMember, 0, &args, &[]) {
            Ok(_) => lock(&self.board).done(wish),
            Err(KernelError::Refused(refused)) if refused.refusal == Refusal::TooManyDown => {
                lock(&self.board).refused(&wish.pool);
            }
            Err(error) => {
                tracing::warn!(pool = wish.pool, member = wish.member, %error, "health is not set");
            }
        }
    }
}

//! What clients saw of a change.

use std::time::{Duration, Instant};

use lb_userspace::lab::{HttpLoop, Outcome, Request};

/// From this on a request was late: its SYN, or something else, had to be sent again.
pub const LATE: Duration = Duration::from_millis(900);

/// Requests of a span of time.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub requests: usize,
    /// No answer at all, or half of one.
    pub failed: usize,
    /// Another service's answer.
    pub wrong: usize,
    /// Right, but late.
    pub late: usize,
    pub slowest: Duration,
    /// What the first that failed saw.
    pub first: Option<String>,
}

impl Seen {
    /// Flows whose user noticed.
    pub fn hurt(&self) -> usize {
        self.failed + self.wrong
    }
}

/// Of the requests that began since, all of which have ended.
pub fn seen(requests: &HttpLoop, since: Instant) -> Seen {
    let mut seen = Seen::default();
    let requests = requests.requests();
    for request in requests.into_iter().filter(|request| request.at >= since) {
        seen.add(request);
    }
    seen
}

impl Seen {
    fn add(&mut self, request: Request) {
        self.requests += 1;
        self.slowest = self.slowest.max(request.latency);
        match request.outcome {
            Outcome::Ok { service, .. } if service == "web" => {
                self.late += usize::from(request.latency >= LATE);
            }
            Outcome::Ok { .. } => self.wrong += 1,
            // A page that is not there is another service's answer.
            Outcome::Failed(why) if why.contains("404") => self.wrong += 1,
            Outcome::Failed(why) => {
                self.failed += 1;
                self.first.get_or_insert(why);
            }
        }
    }

    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        self.requests += other.requests;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.late += other.late;
        self.slowest = self.slowest.max(other.slowest);
        self.first = self.first.or(other.first);
        self
    }
}

//! One backend's health: consecutive results decide, and nothing is made up.

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered as it should be.
    Well,
    /// It was not, and why.
    Ill(String),
    /// It was never sent, for a reason that lies in this host: it says nothing about the backend.
    Unsent(String),
}

/// A state that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is down from here on.
    Down,
    /// It is back.
    Up,
}

/// What is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    up: bool,
    /// Whether a check has ever said so.
    proven: bool,
    /// Results in a row that speak against the state.
    against: u32,
    /// Checks in a row that could not be sent.
    unsent: u32,
    last: Option<Verdict>,
    since_ns: u64,
}

impl Machine {
    /// A backend of which nothing is known is up, unless an earlier agent has held it back.
    pub const fn new(held: bool, now_ns: u64) -> Self {
        Self {
            up: !held,
            proven: held,
            against: 0,
            unsent: 0,
            last: None,
            since_ns: now_ns,
        }
    }

    /// Takes a result: `fall` failures in a row take it down, `rise` successes in a row bring it back.
    pub fn take(&mut self, verdict: Verdict, rise: u32, fall: u32, now_ns: u64) -> Option<Turn> {
        let well = match &verdict {
            Verdict::Well => true,
            Verdict::Ill(_) => false,
            Verdict::Unsent(_) => {
                self.unsent = self.unsent.saturating_add(1);
                self.last = Some(verdict);
                return None;
            }
        };
        self.unsent = 0;
        self.last = Some(verdict);
        if well == self.up {
            self.against = 0;
            self.proven |= well;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.up { fall } else { rise };
        if self.against < needed.max(1) {
            return None;
        }
        self.up = well;
        self.proven = true;
        self.against = 0;
        self.since_ns = now_ns;
        Some(if well { Turn::Up } else { Turn::Down })
    }

    /// Other checks are made from here on: what is known stays, what was counted does not.
    pub const fn checked_anew(&mut self) {
        self.against = 0;
    }

    /// Whether it counts as up.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// `up`, `down`, or `unknown`: up, but no check has said so yet.
    pub const fn state(&self) -> &'static str {
        match (self.up, self.proven) {
            (true, true) => "up",
            (true, false) => "unknown",
            (false, _) => "down",
        }
    }

    /// The last result.
    pub const fn last(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }

    /// Since when it is in this state, boot-clock ns.
    pub const fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Results in a row that speak against its state.
    pub const fn against(&self) -> u32 {
        self.against
    }

    /// Checks in a row that could not be sent.
    pub const fn unsent(&self) -> u32 {
        self.unsent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ill() -> Verdict {
        Verdict::Ill("refused".to_owned())
    }

    #[test]
    fn failures_in_a_row_take_it_down_and_successes_in_a_row_bring_it_back() {
        let mut machine = Machine::new(false, 0);
        assert_eq!(machine.state(), "unknown");
        let results = [
            ill(),
            ill(),
            Verdict::Well,
            ill(),
            ill(),
            ill(),
            Verdict::Well,
            ill(),
        ];
        let turns: Vec<_> = (1..)
            .zip(results)
            .map(|(now, result)| machine.take(result, 2, 3, now))
            .collect();
        let none = None;
        assert_eq!(
            turns,
            [none, none, none, none, none, Some(Turn::Down), none, none]
        );
        assert_eq!((machine.state(), machine.since_ns()), ("down", 6));
        assert_eq!(machine.take(Verdict::Well, 2, 3, 9), None);
        assert_eq!(machine.take(Verdict::Well, 2, 3, 10), Some(Turn::Up));
    }

    #[test]
    fn what_could_not_be_sent_says_nothing() {
        let mut machine = Machine::new(false, 0);
        for now in 1..100 {
            assert_eq!(
                machine.take(Verdict::Unsent("no route".to_owned()), 1, 1, now),
                None
            );
        }
        assert_eq!((machine.state(), machine.unsent()), ("unknown", 99));
        assert_eq!(machine.take(ill(), 1, 1, 100), Some(Turn::Down));
        assert_eq!(machine.unsent(), 0);
    }

    #[test]
    fn an_earlier_agents_word_stands_until_it_is_disproven() {
        let mut machine = Machine::new(true, 0);
        assert_eq!(machine.state(), "down");
        assert_eq!(machine.take(ill(), 2, 2, 1), None);
        assert_eq!(machine.take(Verdict::Well, 2, 2, 2), None);
        assert_eq!(machine.take(Verdict::Well, 2, 2, 3), Some(Turn::Up));
    }

    proptest! {
        /// Between two turns there are as many results in a row as the turn needs, and turns alternate.
        #[test]
        fn a_turn_is_earned(results in prop::collection::vec(any::<bool>(), 0..200), rise in 1u32..5, fall in 1u32..5) {
            let (mut machine, mut up) = (Machine::new(false, 0), true);
            let mut row: Vec<bool> = Vec::new();
            for well in results {
                let verdict = if well { Verdict::Well } else { ill() };
                row.push(well);
                if let Some(turn) = machine.take(verdict, rise, fall, 1) {
                    prop_assert_eq!(turn == Turn::Up, !up);
                    up = !up;
                    let needed = if up { rise } else { fall } as usize;
                    prop_assert!(row.len() >= needed);
                    prop_assert!(row.iter().rev().take(needed).all(|well| *well == up));
                    row.clear();
                }
                prop_assert_eq!(machine.is_up(), up);
            }
        }
    }
}

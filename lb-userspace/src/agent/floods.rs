//! Floods of new flows: the kernel stops remembering them, this says so.

use super::engine::Engine;
use crate::kernel::KernelError;

/// Looks without a refused flow after which a flood is over.
const QUIET: u32 = 3;

/// What the counters of the flow table said last.
#[derive(Debug, Default)]
pub(super) struct FloodWatch {
    last: Option<Counted>,
    quiet: u32,
    stands: bool,
}

/// Flows since the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    refused: u64,
    evicted: u64,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Flows that were not remembered since the last look, and flows that lost their places.
    Flood { refused: u64, evicted: u64 },
    /// It is over.
    Over,
}

impl FloodWatch {
    fn round(&mut self, counted: Counted) -> Option<Found> {
        let last = self.last.replace(counted)?;
        let refused = counted.refused.wrapping_sub(last.refused);
        let evicted = counted.evicted.wrapping_sub(last.evicted);
        if refused > 0 || evicted > 0 {
            self.quiet = 0;
            self.stands = true;
            return Some(Found::Flood { refused, evicted });
        }
        self.quiet = self.quiet.saturating_add(1);
        if self.stands && self.quiet >= QUIET {
            self.stands = false;
            return Some(Found::Over);
        }
        None
    }
}

impl Engine {
    /// Looks whether the flow table refused flows, or forgot some for want of room.
    pub(super) fn look_for_floods(&mut self) -> Result<(), KernelError> {
        let counts = self.kernel.maps.flow_counts()?;
        let found = self.watching.floods.round(Counted {
            refused: counts.refused,
            evicted: counts.evicted,
        });
        let about = ("flow-flood", "flow table".to_owned());
        match found {
            Some(Found::Flood { refused, evicted }) => {
                let node = self.kernel.node;
                let room = u64::from(node.flow_lines) * u64::from(lb_common::flow_table::LOAD);
                self.alert(
                    about,
                    format!(
                        "more new flows than the flow table has room for: {refused} were not remembered in \
                         the last second, {evicted} took the place of flows that were idle for longest; \
                         the others keep theirs. It is meant for {room} flows, and then for {} new ones a \
                         second and CPU: [tables] flows and flood_rate in agent.toml",
                        node.flood_rate
                    ),
                );
            }
            Some(Found::Over) => self.alert_over(&about, "every new flow is remembered again"),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_while_it_lasts_and_is_over_after_three_quiet_looks() {
        let mut watch = FloodWatch::default();
        let mut look = |refused, evicted| watch.round(Counted { refused, evicted });
        assert_eq!(look(100, 7), None, "what was before the agent is no news");
        assert_eq!(look(100, 7), None);
        let flood = |refused, evicted| Some(Found::Flood { refused, evicted });
        assert_eq!(look(350, 7), flood(250, 0));
        assert_eq!(look(350, 9), flood(0, 2));
        assert_eq!([look(350, 9), look(350, 9)], [None, None]);
        assert_eq!(look(350, 9), Some(Found::Over));
        assert_eq!(look(350, 9), None, "told once");
        assert_eq!(look(351, 9), flood(1, 0));
    }
}

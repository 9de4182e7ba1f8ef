//! How a change is shown while it runs: a line a step, and on a terminal the time that is left.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{CliError, Context, evidence_view, out};
use crate::agent::wire::{ApplyEvent, EvidenceLine};
use crate::kernel::stage::Sealed;
use crate::sys::boot_ns;

/// Time between two lines about the evidence where nothing can be redrawn.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Shows events as they come.
pub struct Follower {
    live: bool,
    deadline_ns: Option<u64>,
    evidence: Option<EvidenceLine>,
    told: Option<(Instant, String)>,
    /// Lines on the screen that will be drawn anew.
    drawn: usize,
}

impl Follower {
    /// For this command; nothing moves on the screen unless it is a terminal.
    pub fn new(context: &Context) -> Self {
        let live = !context.json && std::io::stderr().is_terminal();
        Self {
            live,
            deadline_ns: None,
            evidence: None,
            told: None,
            drawn: 0,
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &ApplyEvent) -> Result<(), CliError> {
        if let ApplyEvent::Evidence(line) = event {
            return self.judged(line);
        }
        self.clear();
        match event {
            ApplyEvent::Findings { text, .. } => out::print(text),
            ApplyEvent::Sealed(sealed) => out::sentences(&sealed_text(sealed), &["sealed      "]),
            ApplyEvent::Forecast { vips } => out::print(&super::render::lines(vips)),
            ApplyEvent::NotBegun { .. } | ApplyEvent::Evidence(_) => Ok(()),
            ApplyEvent::Progress(progress) => {
                self.deadline_ns = progress.deadline_ns;
                self.evidence = None;
                let generation = progress.generation;
                let (state, text) = (&progress.state, &progress.text);
                let label = format!("generation {generation}  {state:<10}  ");
                out::sentences(&format!("{label}{text}\n"), &[&label])
            }
        }
    }

    /// On a terminal the table is drawn at the next redraw; else a line now and then, and at once
    /// when the verdict is another.
    fn judged(&mut self, line: &EvidenceLine) -> Result<(), CliError> {
        if self.live {
            self.evidence = Some(line.clone());
            return Ok(());
        }
        let due = self
            .told
            .as_ref()
            .is_none_or(|(at, verdict)| at.elapsed() >= TOLD_EVERY || *verdict != line.verdict);
        if !due {
            return Ok(());
        }
        self.told = Some((Instant::now(), line.verdict.clone()));
        let label = format!("generation {}  evidence    ", line.generation);
        let text = evidence_view::sentence(line);
        out::sentences(&format!("{label}{text}\n"), &[&label])
    }

    /// Draws the arms side by side, and the time that is left.
    pub fn redraw(&mut self) {
        let Some(deadline_ns) = self.deadline_ns.filter(|_| self.live) else {
            return;
        };
        self.clear();
        let mut lines = self
            .evidence
            .as_ref()
            .map(evidence_view::table)
            .unwrap_or_default();
        let left = deadline_ns.saturating_sub(boot_ns()) / 1_000_000_000;
        let more = |line: &EvidenceLine| line.step < line.steps;
        lines.push(if self.evidence.as_ref().is_some_and(more) {
            format!("  {left} s left of this step; `lbguard revert` ends the trial")
        } else {
            format!("  {left} s left: `lbguard confirm` keeps it, `lbguard revert` ends it")
        });
        let mut screen = std::io::stderr().lock();
        let _ = screen
            .write_all(lines.join("\n").as_bytes())
            .and_then(|()| screen.flush());
        self.drawn = lines.len();
    }

    /// Leaves the screen as lines.
    pub fn finish(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        let lines = std::mem::take(&mut self.drawn);
        if lines > 0 {
            let up = "\x1b[1A\r\x1b[K".repeat(lines.saturating_sub(1));
            let text = format!("\r\x1b[K{up}");
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        }
    }
}

/// What the guard found, in a line or two.
fn sealed_text(sealed: &Sealed) -> String {
    let mut parts = vec![format!("class R{}", sealed.class)];
    let (whole, rest) = (sealed.moved_ppm / 10_000, sealed.moved_ppm % 10_000 / 100);
    parts.push(format!("moves up to {whole}.{rest:02} % of a VIP's table"));
    for (count, what) in [
        (sealed.vips_added, "VIPs in"),
        (sealed.vips_removed, "VIPs out"),
        (sealed.vips_changed, "VIPs changed"),
        (sealed.encap_changed, "with another encap"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    format!(
        "generation {}  sealed      {}\n",
        sealed.generation,
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guards_findings_fit_a_line() {
        let sealed = Sealed {
            slot: 1,
            generation: 7,
            class: 3,
            moved_ppm: 1_000_000,
            vips_added: 0,
            vips_removed: 2,
            vips_changed: 1,
            encap_changed: 0,
        };
        let text = sealed_text(&sealed);
        assert_eq!(
            text,
            "generation 7  sealed      class R3, moves up to 100.00 % of a VIP's table, 2 VIPs out, \
             1 VIPs changed\n"
        );
    }
}

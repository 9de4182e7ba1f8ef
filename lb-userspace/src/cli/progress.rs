//! How a change is shown while it runs: a line a step, and on a terminal the time that is left.

use std::io::{IsTerminal, Write};

use super::{CliError, Context, out};
use crate::agent::wire::ApplyEvent;
use crate::kernel::stage::Sealed;
use crate::sys::boot_ns;

/// Shows events as they come.
pub struct Follower {
    live: bool,
    deadline_ns: Option<u64>,
    drawn: bool,
}

impl Follower {
    /// For this command; nothing moves on the screen unless it is a terminal.
    pub fn new(context: &Context) -> Self {
        let live = !context.json && std::io::stderr().is_terminal();
        Self {
            live,
            deadline_ns: None,
            drawn: false,
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &ApplyEvent) -> Result<(), CliError> {
        self.clear();
        match event {
            ApplyEvent::Findings { text, .. } => out::print(text),
            ApplyEvent::Sealed(sealed) => out::sentences(&sealed_text(sealed), &["sealed      "]),
            ApplyEvent::NotBegun { .. } | ApplyEvent::Evidence(_) => Ok(()),
            ApplyEvent::Progress(progress) => {
                self.deadline_ns = progress.deadline_ns;
                let generation = progress.generation;
                let (state, text) = (&progress.state, &progress.text);
                let label = format!("generation {generation}  {state:<10}  ");
                out::sentences(&format!("{label}{text}\n"), &[&label])
            }
        }
    }

    /// Draws the time that is left.
    pub fn redraw(&mut self) {
        let Some(deadline_ns) = self.deadline_ns.filter(|_| self.live) else {
            return;
        };
        let left = deadline_ns.saturating_sub(boot_ns()) / 1_000_000_000;
        let text = format!(
            "\r\x1b[K  {left} s left: `lbguard confirm` keeps it, `lbguard revert` ends it"
        );
        let mut screen = std::io::stderr().lock();
        let _ = screen
            .write_all(text.as_bytes())
            .and_then(|()| screen.flush());
        self.drawn = true;
    }

    /// Leaves the screen as lines.
    pub fn finish(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
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

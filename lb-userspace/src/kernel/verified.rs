//! Loading a program in spite of signals: one that arrives during the verifier's walk ends the load
//! with `EAGAIN` (`do_check`, kernel/bpf/verifier.c), which libbpf answers by trying again, too.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, Xdp};

/// How long signals are put up with.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loads a program.
///
/// # Errors
///
/// The kernel's, but for an interruption.
pub fn load(program: &mut Xdp) -> Result<(), ProgramError> {
    let begun = Instant::now();
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && begun.elapsed() < PATIENCE => {}
            outcome => return outcome,
        }
    }
}

//! The guard's caller: one command, one test run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::guard::{COMMAND_LEN, Command, MAGIC, MAX_LEN, Op, Refusal, Reply};
use zerocopy::{FromBytes, IntoBytes};

use super::KernelError;
use super::refusal::Refused;

/// How long a transient refusal is retried.
const PATIENCE: Duration = Duration::from_secs(2);

/// A handle on the guard program.
#[derive(Debug)]
pub struct Guard {
    program: Xdp,
    session: u64,
    spent: Mutex<BTreeMap<&'static str, Spent>>,
}

/// How long calls of one op have held their CPU.
///
/// It is the `duration` of each `BPF_PROG_TEST_RUN`: the kernel reads its clock on both sides of the
/// program, within `local_bh_disable` (`bpf_test_run` in `net/bpf/test_run.c`; Linux 6.1 leaves softirqs
/// on), so that nothing but a hard interrupt comes between: for so long that CPU takes no packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls, refused ones included.
    pub calls: u64,
    /// All of them together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

/// Results of a command, as documented at each [`Op`].
pub type Detail = [u64; 7];

impl Guard {
    /// The guard of a loaded object.
    pub(super) fn new(program: Xdp) -> Self {
        Self {
            program,
            session: 0,
            spent: Mutex::default(),
        }
    }

    /// The pinned guard: all that going back needs.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        if !path.exists() {
            return Err(KernelError::NotLoaded(path.to_owned()));
        }
        let program = Xdp::from_pin(path, XdpAttachType::Interface)
            .map_err(|e| KernelError::Load(format!("{}: {e}", path.display())))?;
        Ok(Self::new(program))
    }

    /// Makes later calls as this session.
    pub fn set_session(&mut self, session: u64) {
        self.session = session;
    }

    /// Another handle on the pinned guard, for another thread of the same session.
    pub fn twin(&self, path: &Path) -> Result<Self, KernelError> {
        let mut twin = Self::open(path)?;
        twin.set_session(self.session);
        Ok(twin)
    }

    /// One command. Waits a moment when the guard is busy or a slot still in its grace period.
    pub fn call(
        &self,
        op: Op,
        base: u64,
        args: &[u64],
        payload: &[u8],
    ) -> Result<Detail, KernelError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.call_once(op, base, args, payload) {
                Err(KernelError::Refused(refused))
                    if refused.is_transient() && Instant::now() < deadline =>
                {
                    std::thread::sleep(wait(&refused));
                }
                outcome => return outcome,
            }
        }
    }

    /// One command, as it is refused or done at the first attempt.
    pub fn call_once(
        &self,
        op: Op,
        base: u64,
        args: &[u64],
        payload: &[u8],
    ) -> Result<Detail, KernelError> {
        let mut data = vec![0u8; COMMAND_LEN];
        let mut padded = [0u64; 5];
        for (place, arg) in padded.iter_mut().zip(args) {
            *place = *arg;
        }
        let command = Command {
            magic: MAGIC,
            op: op as u32,
            session: self.session,
            base,
            args: padded,
        };
        data.copy_from_slice(command.as_bytes());
        data.extend_from_slice(payload);
        if data.len() > MAX_LEN {
            return Err(KernelError::NoAnswer(format!(
                "a command of {} bytes is too long",
                data.len()
            )));
        }
        let reply = self.run(op, &data)?;
        let (magic, status, detail) = (reply.magic, reply.status, reply.detail);
        if magic != !MAGIC {
            return Err(KernelError::NoAnswer(format!(
                "{} was left as it was",
                op.name()
            )));
        }
        match Refusal::from_code(status) {
            Some(Refusal::Done) => Ok(detail),
            Some(refusal) => Err(Refused {
                op,
                refusal,
                detail,
            }
            .into()),
            None => Err(KernelError::NoAnswer(format!("status {status} is unknown"))),
        }
    }

    /// What the calls since the last time this was asked have spent in the kernel, by [`Op::name`].
    pub fn take_spent(&self) -> BTreeMap<&'static str, Spent> {
        std::mem::take(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, op: Op, took: Duration) {
        let mut all = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = all.entry(op.name()).or_default();
        spent.calls = spent.calls.saturating_add(1);
        spent.total = spent.total.saturating_add(took);
        spent.longest = spent.longest.max(took);
    }

    fn run(&self, op: Op, data: &[u8]) -> Result<Reply, KernelError> {
        let mut out = vec![0u8; data.len() + 256];
        let options = TestRunOptions {
            data_in: Some(data),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let run = self
            .program
            .test_run(options)
            .map_err(|e| KernelError::NoAnswer(format!("test run of the guard: {e}")))?;
        self.note(op, run.duration);
        Reply::read_from_prefix(&out)
            .map(|(reply, _)| reply)
            .map_err(|_| KernelError::NoAnswer("its reply is too short".to_owned()))
    }
}

fn wait(refused: &Refused) -> Duration {
    match refused.refusal {
        Refusal::GracePeriod => Duration::from_millis(refused.detail[0].clamp(1, 200)),
        _ => Duration::from_micros(200),
    }
}

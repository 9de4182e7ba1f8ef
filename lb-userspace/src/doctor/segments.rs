//! The longest segments that backends ask clients for must fit behind the outer header: else every
//! full-size packet of a client is answered "too big", and whoever does not hear that waits.
//!
//! What is seen is what a backend offers to this host; a route of its own to clients may say another.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::checks;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Check;
use super::traffic::some;
use crate::health::probe::offered_segment;
use crate::kernel::inspect::{Active, Backend};
use crate::net;

const ID: &str = "segments";
const TITLE: &str = "Full-size packets fit the tunnels";
/// How long a backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Backends that are asked, at most.
const ASKED: usize = 256;
/// Clients' packets are no longer than this.
const CLIENTS: u16 = 1500;

/// What a backend was asked, and by which way.
struct Question {
    backend: String,
    to: SocketAddr,
    mark: u32,
    overhead: u16,
    mtu: u16,
}

/// A client's longest packet to this backend, and what it needs.
struct Answer {
    backend: String,
    offered: u16,
    needs: u16,
    mtu: u16,
}

pub(super) fn check(active: Option<&Active>) -> Check {
    // With the agent's way for checks a backend is asked at the VIP; else at its own address.
    let marked = net::checks::are_there();
    let backends = active.map_or(&[][..], |active| &active.backends);
    let questions: Vec<Question> = backends
        .iter()
        .filter(|backend| backend.overhead > 0)
        .filter_map(|backend| question(backend, marked))
        .take(ASKED)
        .collect();
    if questions.is_empty() {
        return Check::skip(ID, TITLE, "no tunnelled backend of a TCP VIP with a port");
    }
    match ask(questions) {
        Ok(answers) => judge(&answers),
        Err(error) => Check::skip(ID, TITLE, error),
    }
}

fn question(backend: &Backend, marked: bool) -> Option<Question> {
    let vip = backend.tcp.first()?;
    let to = if marked {
        *vip
    } else {
        SocketAddr::new(backend.address, vip.port())
    };
    Some(Question {
        backend: backend.name.clone(),
        to,
        mark: if marked {
            checks::mark(backend.member)
        } else {
            0
        },
        overhead: backend.overhead,
        mtu: backend.next_hop_mtu?,
    })
}

fn ask(questions: Vec<Question>) -> Result<Vec<Answer>, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(async {
        let mut asked = JoinSet::new();
        for question in questions {
            asked.spawn(async move {
                let offered = timeout(PATIENCE, offered_segment(question.to, question.mark));
                let offered = offered.await.ok()?.ok()?;
                Some(answer(question, offered))
            });
        }
        let mut answers: Vec<Answer> = asked.join_all().await.into_iter().flatten().collect();
        answers.sort_by(|a, b| a.backend.cmp(&b.backend));
        answers
    }))
}

fn answer(question: Question, offered: u16) -> Answer {
    let headers = match question.to.ip() {
        IpAddr::V4(_) => 40,
        IpAddr::V6(_) => 60,
    };
    let inner = offered.saturating_add(headers).min(CLIENTS);
    Answer {
        backend: question.backend,
        offered,
        needs: inner.saturating_add(question.overhead),
        mtu: question.mtu,
    }
}

fn judge(answers: &[Answer]) -> Check {
    if answers.is_empty() {
        return Check::skip(ID, TITLE, "no backend has answered");
    }
    let too_long: Vec<&Answer> = answers.iter().filter(|a| a.needs > a.mtu).collect();
    let Some(most) = too_long.iter().map(|answer| answer.needs).max() else {
        let text = format!("so they do to all {} backends that answered", answers.len());
        return Check::ok(ID, TITLE, text);
    };
    let told: Vec<String> = too_long
        .iter()
        .map(|a| {
            let (name, offered, needs, mtu) = (&a.backend, a.offered, a.needs, a.mtu);
            format!("{name} offers an MSS of {offered}: {needs} bytes in the tunnel, of {mtu}")
        })
        .collect();
    Check::fail(
        ID,
        TITLE,
        some(&told),
        format!(
            "give the way to the backends an MTU of {most}, or lower the MSS there, on the routes to \
             clients and to this host (`ip route change ... advmss BYTES`); until then clients depend on \
             \"too big\" reaching them"
        ),
    )
}

//! The five acts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use lb_userspace::lab::{
    ConnectionOptions, Connections, HttpLoop, HttpOptions, Instance, Lab, Outcome, Request, Server,
    VIP_V4, until,
};
use nix::sys::signal::Signal;

use crate::show::Show;
use crate::{SOON, services};

/// Requests a second, each on a connection of its own.
const RATE: u32 = 200;
/// Connections that are held open all the time.
const HELD: usize = 300;
/// What the shop's clients ask for.
const PAGE: &str = "/64k";
/// Port of the line servers, which the held connections talk to.
const LINES: u16 = 7000;

/// The clients' traffic, from the first act to the last.
pub struct Traffic {
    requests: HttpLoop,
    held: Connections,
    _servers: Vec<Server>,
}

fn apply(
    instance: &Instance,
    show: &mut Show,
    words: &[&str],
    code: i32,
) -> anyhow::Result<String> {
    let shown: Vec<String> = words
        .iter()
        .map(|word| match word.rsplit_once('/') {
            Some((_, file)) => file.to_owned(),
            None if word.contains(' ') => format!("\"{word}\""),
            None => (*word).to_owned(),
        })
        .collect();
    show.command(&format!("lbguard {}", shown.join(" ")));
    let text = instance.expect(words, code)?;
    Show::output(&text);
    Ok(text)
}

/// The pay servers do not have the shop's page.
pub fn unlike(lab: &Lab) -> anyhow::Result<()> {
    for host in lab.backends().filter(|host| host.service() == "pay") {
        std::fs::remove_file(host.directory().join(PAGE.trim_start_matches('/')))?;
    }
    Ok(())
}

/// Act 1: traffic is forwarded and spread.
pub fn forwarding(show: &mut Show, lab: &Lab, instance: &Instance) -> anyhow::Result<Traffic> {
    show.title("1. Forwarding: one VIP, four servers");
    let file = instance.write("services.toml", &services::text(lab, 4, "shop-pool"))?;
    let file = file.to_string_lossy().into_owned();
    let words = [
        "apply",
        &file,
        "-m",
        "first configuration",
        "--confirm",
        "auto",
    ];
    apply(instance, show, &words, 0)?;
    let servers = lab
        .backends()
        .map(|host| host.serve_lines(LINES))
        .collect::<Result<Vec<_>, _>>()?;
    let vip = IpAddr::from(VIP_V4);
    show.step(&format!(
        "{RATE} requests a second, and {HELD} connections held open"
    ));
    let options = HttpOptions {
        rate: RATE,
        path: PAGE.to_owned(),
        ..HttpOptions::default()
    };
    let requests = lab.client().http_loop(SocketAddr::new(vip, 80), &options)?;
    let options = ConnectionOptions {
        count: HELD,
        ..ConnectionOptions::default()
    };
    let held = lab
        .client()
        .connections(SocketAddr::new(vip, LINES), &options)?;
    held.wait_established(SOON)?;
    requests.wait(600, SOON)?;
    show.done();
    show.bars(&requests.backends());
    let failed = requests.failed();
    ensure!(failed == 0, "{failed} requests failed");
    show.good(&format!(
        "{} requests answered, none failed",
        requests.ended()
    ));
    Ok(Traffic {
        requests,
        held,
        _servers: servers,
    })
}

/// Act 2: a fifth server. Few flows move, none breaks, and what its traffic shows confirms it.
pub fn good_change(
    show: &mut Show,
    lab: &Lab,
    instance: &Instance,
    traffic: &Traffic,
) -> anyhow::Result<()> {
    show.title("2. A good change: a fifth server, under traffic");
    let before = traffic.requests.ended();
    let file = instance.write("services.toml", &services::text(lab, 5, "shop-pool"))?;
    let file = file.to_string_lossy().into_owned();
    let words = ["apply", &file, "-m", "one more server", "--confirm", "auto"];
    apply(instance, show, &words, 0)?;
    traffic.requests.wait(300, SOON)?;
    show.bars(&since(&traffic.requests.requests(), before));
    let (failed, broken) = (traffic.requests.failed(), traffic.held.breaks().len());
    ensure!(
        failed == 0 && broken == 0,
        "{failed} requests failed, {broken} connections broke"
    );
    show.good(&format!(
        "0 requests failed, 0 of {HELD} open connections broke"
    ));
    Ok(())
}

/// Act 3: the postmortem's change is refused before it begins.
pub fn refused(show: &mut Show, lab: &Lab, instance: &Instance) -> anyhow::Result<()> {
    show.title("3. The postmortem's change: the shop's VIP on the pay servers' pool");
    let file = instance.write("wrong.toml", &services::text(lab, 5, "pay-pool"))?;
    let file = file.to_string_lossy().into_owned();
    apply(instance, show, &["check", &file], 3)?;
    show.good("refused by `check`: nothing was changed");
    Ok(())
}

/// Act 4: the same, forced. A tenth of the new flows shows that it is wrong.
pub fn forced(
    show: &mut Show,
    lab: &Lab,
    instance: &Instance,
    traffic: &Traffic,
) -> anyhow::Result<()> {
    show.title("4. The same, forced past the agent's checks: the traffic tells");
    let before = traffic.requests.ended();
    let file = instance.write("wrong.toml", &services::text(lab, 5, "pay-pool"))?;
    let file = file.to_string_lossy().into_owned();
    let words = ["apply", &file, "-m", "in a hurry", "--force-unsafe"];
    apply(instance, show, &words, 4)?;
    traffic.requests.wait(400, SOON)?;
    figures(show, &traffic.requests.requests(), before)?;
    held(show, traffic)
}

/// Act 5: once more, with the agent killed. The kernel puts it back.
pub fn nobody_there(
    show: &mut Show,
    lab: &Lab,
    instance: &mut Instance,
    traffic: &Traffic,
) -> anyhow::Result<()> {
    show.title("5. Once more, with the agent killed: nobody there to notice");
    let before = traffic.requests.ended();
    let file = instance.write("wrong.toml", &services::text(lab, 5, "pay-pool"))?;
    let file = file.to_string_lossy().into_owned();
    let words = [
        "apply",
        &file,
        "-m",
        "in a hurry again",
        "--force-unsafe",
        "--detach",
    ];
    let begun = Instant::now();
    apply(instance, show, &words, 0)?;
    let pid = instance.agent().map_or(0, lb_userspace::lab::Process::pid);
    show.command(&format!("kill -9 {pid}    # the agent"));
    instance.stop_agent(Signal::SIGKILL)?;
    show.step("no agent: nobody renews its lease of 3 s in the kernel");
    until("the lease to run out", SOON, || {
        (!instance.on_trial()).then_some(())
    })?;
    let back = begun.elapsed();
    show.done();
    traffic.requests.wait(400, SOON)?;
    apply(instance, show, &["status"], 0).context("status without an agent")?;
    figures(show, &traffic.requests.requests(), before)?;
    show.good(&format!(
        "put back by the kernel {:.1} s after the change was begun, with the agent dead",
        back.as_secs_f64()
    ));
    held(show, traffic)?;
    instance.start_agent()?;
    apply(instance, show, &["history", "-n", "1"], 0)?;
    show.say("the outage behind this project lasted four hours, and customers noticed first");
    Ok(())
}

fn held(show: &mut Show, traffic: &Traffic) -> anyhow::Result<()> {
    let lost: Vec<_> = traffic.held.breaks();
    ensure!(
        lost.is_empty(),
        "{} held connections broke: {:?}",
        lost.len(),
        lost.first()
    );
    show.good(&format!(
        "0 of {HELD} connections from before the change broke"
    ));
    Ok(())
}

/// Requests by who answered them, from number `first` on.
fn since(requests: &[Request], first: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests.iter().skip(first) {
        if let Outcome::Ok { backend, .. } = &request.outcome {
            *counts.entry(backend.clone()).or_insert(0) += 1;
        }
    }
    counts
}

fn figures(show: &mut Show, all: &[Request], first: usize) -> anyhow::Result<()> {
    let right = |request: &&Request| matches!(&request.outcome, Outcome::Ok { service, .. } if service == "shop");
    let hurt: Vec<&Request> = all.iter().skip(first).filter(|r| !right(r)).collect();
    let (Some(one), Some(last)) = (hurt.first(), hurt.last()) else {
        anyhow::bail!("the forced change hurt nobody: it was not in force");
    };
    let span = last.at.saturating_duration_since(one.at).as_secs_f64();
    show.say(&format!(
        "{} of {} requests went wrong, over {span:.1} s",
        hurt.len(),
        all.len().saturating_sub(first)
    ));
    let good = all.iter().rev().take(200).filter(right);
    ensure!(good.count() == 200, "requests still go wrong");
    Ok(())
}

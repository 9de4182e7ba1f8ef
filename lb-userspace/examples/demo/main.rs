//! `cargo xtask demo`: lbguard in network namespaces, with real clients and real servers.
//!
//! Five acts, each with figures taken from the traffic: forwarding, a good change that proves itself,
//! the mistake of the postmortem refused, the same forced through and put back on what its traffic
//! shows, and once more with nobody there.

mod acts;
mod services;
mod show;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lb_userspace::lab::{Instance, Lab};

use show::Show;

fn main() -> ExitCode {
    let started = Instant::now();
    let mut show = Show::new();
    match run(&mut show) {
        Ok(()) => {
            show.end(started.elapsed());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(show: &mut Show) -> anyhow::Result<()> {
    show.title("lbguard: a load balancer whose changes can't hurt");
    show.step("building a lab: client, router, balancer, 5 shop servers, 2 pay servers");
    let lab = Lab::builder()
        .backends("shop", 5)
        .backends("pay", 2)
        .build()
        .context("build the lab (root is needed)")?;
    let mut instance = Instance::new(&lab)?;
    instance.write("policy.toml", "version = 1\n")?;
    acts::unlike(&lab)?;
    show.step("starting the agent: the kernel gets the XDP program, the guard, the deadman");
    instance.start_agent()?;
    show.done();

    let traffic = acts::forwarding(show, &lab, &instance)?;
    acts::good_change(show, &lab, &instance, &traffic)?;
    acts::refused(show, &lab, &instance)?;
    acts::forced(show, &lab, &instance, &traffic)?;
    acts::nobody_there(show, &lab, &mut instance, &traffic)?;
    Ok(())
}

/// How long anything in the demo may take before it counts as broken.
pub const SOON: Duration = Duration::from_secs(20);

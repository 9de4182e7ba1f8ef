//! The outage that all this exists for, again and again: a change sends traffic to the wrong place.
//! Checks before traffic are passed over.

use std::net::IpAddr;
use std::time::Duration;

use lb_userspace::lab::{VIP_V4, VIP_V6};

use crate::figures::{Bounds, Figures};
use crate::gate::Load;
use crate::run::run;
use crate::scene::{Scene, Setup, WEB, both};
use crate::soak::Length;

/// The three faces of the outage.
#[derive(Clone, Copy, Debug)]
pub enum Seed {
    /// The other service's hosts do not have the VIP.
    BlackHole,
    /// They have, and nothing listens.
    Refuses,
    /// They answer, with something else.
    Answers,
}

impl Seed {
    pub fn prepare(self, scene: &mut Scene) {
        match self {
            Self::BlackHole => {
                for host in scene.of("mail") {
                    for vip in ["203.0.113.10/32", "2001:db8:cafe::10/128"] {
                        host.run(&["ip", "addr", "del", vip, "dev", "lo"]).unwrap();
                    }
                }
            }
            Self::Refuses => {
                for name in ["mail-1", "mail-2"] {
                    scene.lab.stop_web(name);
                }
            }
            Self::Answers => {
                for host in scene.of("mail") {
                    std::fs::remove_file(host.directory().join("64k")).unwrap();
                }
            }
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::BlackHole | Self::Refuses => WEB,
            Self::Answers => "/64k",
        }
    }

    /// What it may cost at 100 new flows a second, 10 % of them in the new arm.
    fn bounds(self) -> Bounds {
        let (exposed, hurt) = match self {
            Self::BlackHole => (2, 0),
            Self::Refuses => (2, 30),
            Self::Answers => (4, 60),
        };
        Bounds {
            exposed: Duration::from_secs(exposed),
            unless: 0,
            hurt,
            slowest: Duration::from_secs(3),
            inconclusive: false,
        }
    }
}

/// A case: which face, for which clients.
pub struct Case {
    pub name: &'static str,
    pub seed: Seed,
    pub vip: IpAddr,
    /// New flows a second.
    pub rate: u32,
    pub evidence: &'static str,
    pub bounds: Bounds,
}

impl Case {
    /// The usual one: IPv4, 100 new flows a second.
    pub fn of(name: &'static str, seed: Seed) -> Self {
        Self {
            name,
            seed,
            vip: VIP_V4.into(),
            rate: 100,
            evidence: "",
            bounds: seed.bounds(),
        }
    }

    /// For the clients of the IPv6 VIP, which is moved alone.
    pub fn v6(mut self) -> Self {
        self.vip = VIP_V6.into();
        self
    }

    /// At 1,000 new flows a second, which hurts no more: the first step meets 15 of them a second.
    pub fn busy(mut self) -> Self {
        self.rate = 1000;
        self
    }

    /// At 10 new flows a second, one of them in the new arm: within 15 s, or not proven by then.
    pub fn quiet(mut self) -> Self {
        self.rate = 10;
        self.evidence = "step_within = \"15s\"";
        self.bounds.exposed = Duration::from_millis(15_200);
        self.bounds.inconclusive = true;
        self
    }

    /// The scene, ready for the wrong change.
    pub fn scene(&self, limits: &'static str) -> Scene {
        let mut scene = Scene::with(Setup {
            load: if self.rate > 100 {
                Load::Heavy
            } else {
                Load::Light
            },
            limits,
            evidence: self.evidence,
            ..Setup::default()
        });
        self.seed.prepare(&mut scene);
        scene
    }

    /// The wrong change: the shop's VIP is served by the hosts of another service.
    pub fn wrong(&self, scene: &Scene) -> String {
        let (shop, other) = (scene.of("web"), scene.of("mail"));
        if self.vip.is_ipv4() {
            both(&other, &shop)
        } else {
            both(&shop, &other)
        }
    }

    /// Again and again.
    pub fn replay(&self, runs: usize, length: Length) {
        let scene = self.scene("");
        let wrong = self.wrong(&scene);
        let requests = scene.ask(self.vip, self.rate, self.seed.path(), 0);
        let mut figures = Figures::new(self.name);
        let bounds = Bounds {
            exposed: length.patience(self.bounds.exposed),
            unless: 0,
            ..self.bounds
        };
        for _ in 0..runs {
            figures.add(&run(&scene, &[&requests], &wrong), bounds);
        }
        figures.finish();
    }
}

#[test]
fn a_black_hole_is_put_back_and_no_connection_fails() {
    Case::of("(a) black hole", Seed::BlackHole).replay(2, Length::Short);
}

#[test]
fn a_pool_that_refuses_is_put_back() {
    Case::of("(b) refuses", Seed::Refuses).replay(2, Length::Short);
}

#[test]
fn another_services_pool_that_answers_is_put_back() {
    Case::of("(c) answers wrongly", Seed::Answers).replay(2, Length::Short);
}

#[test]
fn the_same_of_ipv6() {
    Case::of("(a) IPv6", Seed::BlackHole)
        .v6()
        .replay(1, Length::Short);
}

#[test]
fn the_same_at_1000_flows_a_second() {
    Case::of("(b) at 1,000/s", Seed::Refuses)
        .busy()
        .replay(2, Length::Short);
}

#[test]
fn the_same_at_10_flows_a_second_is_put_back_by_the_deadline_at_the_latest() {
    Case::of("(a) at 10/s", Seed::BlackHole)
        .quiet()
        .replay(1, Length::Short);
}

//! Connections that are silent while their backend is dead: what becomes of them is the pool's to say, and the
//! backend's coming back does not change it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use lb_userspace::lab::{Lab, Server, until};
use serde_json::Value;

use crate::scene::{HTTP, SOON, Scene};

/// Port of a server that outlives the checks' one, as a service does whose host is cut off for a while.
const LINES: u16 = 7000;
/// Connections that the backend which dies must have. Of so many at least one goes elsewhere when each is
/// drawn anew with a part of 15 % at most for it: but for one run in 10^6.
const ENOUGH: usize = 8;

struct Silent {
    scene: Scene,
    streams: Vec<TcpStream>,
    _servers: Vec<Server>,
}

impl Silent {
    /// Connections to `web-1`, each of which has had an answer, with this policy.
    fn new(policy: &str) -> Self {
        let line = format!("{HTTP}\non_dead = \"{policy}\"\nslow_start = \"10m\"");
        let scene = Scene::new(Lab::builder().backends("web", 2), &line);
        scene.wait_for("web-1", "up");
        let backends = scene.lab.backends();
        let servers = backends.map(|host| host.serve_lines(LINES).unwrap());
        let servers = servers.collect();
        let mut streams = Vec::new();
        until("connections to web-1", SOON, || {
            let stream = scene.lab.client().in_ns(|| {
                let stream = TcpStream::connect(Scene::target(LINES))?;
                stream.set_read_timeout(Some(SOON))?;
                Ok::<_, std::io::Error>(stream)
            });
            let mut stream = stream.unwrap().unwrap();
            if ask(&mut stream).unwrap() == "web-1" {
                streams.push(stream);
            }
            (streams.len() >= ENOUGH).then_some(())
        })
        .unwrap();
        Self {
            scene,
            streams,
            _servers: servers,
        }
    }

    /// The backend is dead by its checks, and back; nobody speaks.
    fn outage(&mut self, purges: bool) {
        let host = self.scene.host("web-1");
        self.scene.lab.stop_web("web-1");
        self.scene.wait_for("web-1", "down");
        if purges {
            let least = self.streams.len() as u64;
            until("its flows are forgotten", SOON, || {
                (self.purged()? >= least).then_some(())
            })
            .unwrap();
            until("that is written down", SOON, || {
                let words = ["history", "--records", "-n", "0", "--json"];
                let records = self.scene.instance.expect(&words, 0).ok()?;
                let purged = records.lines().find(|line| line.contains("\"purged\""))?;
                purged.contains("shop-web/web-1").then_some(())
            })
            .unwrap();
            let text = self.scene.instance.expect(&["status"], 0).unwrap();
            assert!(text.contains("of dead backends forgotten"), "{text}");
        }
        self.scene.lab.start_web(&host).unwrap();
        self.scene.wait_for("web-1", "up");
        until("it is in again", SOON, || {
            (self.scene.kernel_state("web-1")? == "up").then_some(())
        })
        .unwrap();
    }

    fn purged(&self) -> Option<u64> {
        let status = self.scene.instance.status()?;
        status
            .pointer("/kernel/flows/purged")
            .and_then(Value::as_u64)
    }

    /// What each connection has for an answer now.
    fn answers(&mut self) -> Vec<Result<String, String>> {
        let streams = self.streams.iter_mut();
        let answers = streams.map(|stream| ask(stream).map_err(|error| error.to_string()));
        answers.collect()
    }
}

/// Says a line; who answers.
fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"hello\n")?;
    let mut line = String::new();
    let read = BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    if read == 0 {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn silent_connections_of_a_dead_backend_are_chosen_for_anew() {
    let mut silent = Silent::new("move");
    silent.outage(true);
    let answers = silent.answers();
    let gone = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(gone > 0, "all went back to it: {answers:?}");
    let strangers = answers.iter().flatten().filter(|name| *name != "web-1");
    assert_eq!(strangers.count(), 0, "{answers:?}");
}

#[test]
fn silent_connections_of_a_dead_backend_are_reset_when_they_speak() {
    let mut silent = Silent::new("reset");
    silent.outage(true);
    let answers = silent.answers();
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let text = silent.scene.instance.expect(&["status"], 0).unwrap();
    assert!(text.contains("flow-reset"), "{text}");
}

#[test]
fn silent_connections_of_a_dead_backend_are_kept_where_the_pool_keeps_them() {
    let mut silent = Silent::new("keep");
    silent.outage(false);
    let answers = silent.answers();
    let kept = |answer: &Result<String, String>| answer.as_deref() == Ok("web-1");
    assert!(answers.iter().all(kept), "{answers:?}");
    assert_eq!(silent.purged(), Some(0));
}

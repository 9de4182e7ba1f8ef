//! Wrong weights: all of the traffic for one server, which is too much for it. Table shares say
//! nothing about it, since the table is as it was meant; waiting times do.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_tests::services;
use lb_userspace::lab::{Host, Lab};

use crate::figures::{Bounds, Figures};
use crate::run::run_with;
use crate::scene::{Scene, Setup, WEB};
use crate::soak::Length;

/// One request at a time: 71 a second, of which 50 come with right weights.
const WORK: Duration = Duration::from_millis(14);
/// Half of the flows at once: with a tenth of them the server would still be idle half of the time.
const UNCHECKED: [&str; 3] = ["--force-unsafe", "--canary", "50"];

/// A server that does one thing after the other, until it is dropped.
struct Slow {
    over: Arc<AtomicBool>,
}

impl Slow {
    fn start(host: &Host) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ends, host) = (Arc::clone(&over), host.clone());
        std::thread::spawn(move || {
            host.enter().unwrap();
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap();
            // SAFETY: takes two numbers. Whoever waits is to wait for an answer, not for a handshake.
            assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4_096) }, 0);
            listener.set_nonblocking(true).unwrap();
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, host.name())),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { over }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 2_048];
    let _ = stream.read(&mut request)?;
    std::thread::sleep(WORK);
    let head = "HTTP/1.1 200 OK\r\nx-service: web\r\nConnection: close\r\nContent-Length: 2";
    write!(stream, "{head}\r\nx-backend: {name}\r\n\r\nok")
}

pub fn replay(runs: usize, length: Length) {
    let scene = Scene::with(Setup {
        builder: Lab::builder().backends("web", 2).without_web(),
        first: |scene| services::shop(&scene.of("web")),
        ..Setup::default()
    });
    let _servers: Vec<Slow> = scene.of("web").into_iter().map(Slow::start).collect();
    let requests = scene.requests(100, WEB);
    let right = services::shop(&scene.of("web"));
    let second = "address = \"10.0.1.12\"\nweight = ";
    let wrong = right.replace(&format!("{second}100"), &format!("{second}1"));
    assert_ne!(right, wrong);
    let mut figures = Figures::new("wrong weights (canary 50 %)");
    let bounds = Bounds {
        exposed: length.patience(Duration::from_secs(15)),
        unless: 0,
        hurt: usize::MAX,
        slowest: Duration::MAX,
        inconclusive: false,
    };
    for _ in 0..runs {
        let run = run_with(&scene, &[&requests], &wrong, &UNCHECKED);
        figures.add(&run, bounds);
        if run.signal != "S5" {
            figures.miss(&format!("found by {}", run.signal));
        }
        // The queue of the overloaded server empties.
        requests.settle(crate::scene::SOON).unwrap();
    }
    figures.finish();
}

#[test]
fn weights_that_overload_a_server_are_found_by_waiting_times() {
    replay(1, Length::Short);
}

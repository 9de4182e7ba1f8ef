//! A thread in a host's namespace that does a piece of work again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use lb_userspace::lab::Host;

/// The thread; it ends with its handle.
pub struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts it.
    pub fn start(host: &Host, mut work: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (host, stopped) = (host.clone(), Arc::clone(&stop));
        let body = move || {
            host.enter().unwrap();
            // SAFETY: a call without pointers. Short sleeps are to be short.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000) };
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        };
        Self {
            stop,
            thread: Some(std::thread::spawn(body)),
        }
    }

    /// Ends it; a panic of the work goes on here.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a worker");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! How near the programs are to what the kernel's verifier is willing to walk, and what a signal
//! during the walk does.

use lb_tests::bench::Bench;
use lb_tests::bpf;
use lb_tests::bpffs::Bpffs;

/// The verifier gives up after a million instructions (`BPF_COMPLEXITY_LIMIT_INSNS`). Half of it
/// leaves room for kernels that prune less than this one, and for the next feature.
const MOST: u32 = 1_000_000 / 2;

#[test]
fn programs_stay_at_half_of_what_the_verifier_walks() {
    let bpffs = Bpffs::new();
    let _bench = Bench::pinned(&bpffs.pins());
    let walked = ["lb", "guard"].map(|name| {
        let program = bpf::open_pin(&bpffs.pins().program(name), 0).unwrap();
        let walked = bpf::fact(&program, "verified_insns");
        println!("{name}: {walked} instructions verified");
        (name, walked)
    });
    for (name, walked) in walked {
        assert!(
            walked < MOST,
            "{name}: {walked} instructions, at most {MOST}"
        );
    }
}

/// A signal during the verifier's walk ends the load with EAGAIN: whoever loads tries again.
#[test]
fn a_signal_does_not_fail_a_load() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; SIGUSR1 is nobody else's in this process.
    unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
    // SAFETY: takes nothing, returns this thread.
    let loader = unsafe { libc::pthread_self() };
    let loaded = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let done = || loaded.load(std::sync::atomic::Ordering::Relaxed);
            // Early in each of the first attempts, and then no more.
            for _ in 0..20 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                if !done() {
                    // SAFETY: the thread lives until this scope ends.
                    unsafe { libc::pthread_kill(loader, libc::SIGUSR1) };
                }
            }
        });
        drop(Bench::new());
        loaded.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

//! How near the programs are to what the kernel's verifier is willing to walk.

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

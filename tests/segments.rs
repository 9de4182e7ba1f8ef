//! What a host's TCP has counted.

use lb_userspace::lab::Host;

/// TCP segments that this host has sent again.
pub fn retransmissions(host: &Host) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters of TCP");
    let snmp = host.in_ns(read).expect("counters of TCP");
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (
        tcp.next().expect("counters of TCP"),
        tcp.next().expect("counters of TCP"),
    );
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(name, _)| *name == "RetransSegs")
        .expect("counters of TCP");
    value.parse().expect("counters of TCP")
}

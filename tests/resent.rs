//! What TCP had to send again: a lost packet shows there.

use lb_userspace::lab::Host;

/// TCP segments that this host has sent again.
pub fn retransmissions(host: &Host) -> u64 {
    let snmp = host
        .in_ns(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("readable counters"))
        .expect("readable counters");
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (
        tcp.next().expect("readable counters"),
        tcp.next().expect("readable counters"),
    );
    let place = names
        .split(' ')
        .position(|name| name == "RetransSegs")
        .expect("readable counters");
    values
        .split(' ')
        .nth(place)
        .expect("readable counters")
        .parse()
        .expect("readable counters")
}

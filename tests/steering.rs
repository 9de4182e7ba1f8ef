//! Receive packet steering: which CPU takes the packets that come to an interface.

use lb_userspace::lab::Lab;

/// Has packets of the lab's client taken by this CPU at the router, whichever CPU sends them.
pub fn steer_client(lab: &Lab, cpu: usize) {
    let port = lab.client().router_port();
    let file = format!("/sys/class/net/{port}/queues/rx-0/rps_cpus");
    let steer = format!("echo {:x} > {file}", 1 << cpu);
    let router = lab.router().namespace_name();
    // It is `ip` that shows a namespace's own interfaces below /sys.
    let words = ["ip", "netns", "exec", &router, "sh", "-c", &steer];
    lab.router().run(&words).expect("steering");
}

/// Packets that have been handed to a CPU by steering, ever (`received_rps`, the tenth column of
/// `/proc/net/softnet_stat`, a row a CPU).
pub fn steered(cpu: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("counters of softirqs");
    let row = text.lines().nth(cpu).expect("the CPU's row");
    let count = row.split_whitespace().nth(9).expect("the tenth column");
    u64::from_str_radix(count, 16).expect("a number")
}

//! The configurations of the demo.

use std::fmt::Write as _;

use lb_userspace::lab::{Host, Lab, VIP_V4};

/// The shop's VIP on `vip_pool`, the pay service's on its own; pools of the first `shops` shop servers and of all pay servers.
pub fn text(lab: &Lab, shops: usize, vip_pool: &str) -> String {
    let mut text = String::from("version = 1\n");
    for (name, service, port, pool) in [
        ("shop-v4", "shop", 0, vip_pool),
        ("pay-v4", "pay", 8443, "pay-pool"),
    ] {
        let _ = write!(
            text,
            "\n[[vip]]\nname = \"{name}\"\nservice = \"{service}\"\naddress = \"{VIP_V4}\"\n\
             port = {port}\nprotocol = \"tcp\"\npool = \"{pool}\"\n"
        );
    }
    for (service, count) in [("shop", shops), ("pay", usize::MAX)] {
        let _ = write!(
            text,
            "\n[[pool]]\nname = \"{service}-pool\"\nservice = \"{service}\"\nforward = \"ipip\"\n"
        );
        let hosts: Vec<&Host> = lab
            .backends()
            .filter(|host| host.service() == service)
            .collect();
        for host in hosts.into_iter().take(count) {
            let _ = write!(
                text,
                "\n[[pool.backend]]\nname = \"{}\"\naddress = \"{}\"\nweight = 100\n",
                host.name(),
                host.v4()
            );
        }
    }
    text
}

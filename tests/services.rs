//! services.toml texts for the lab.

use std::fmt::Write as _;
use std::net::IpAddr;

use lb_userspace::lab::{Host, VIP_V4, VIP_V6};

/// A pool of the lab's hosts.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// Name of the pool.
    pub name: &'a str,
    /// Service of the pool and its VIPs.
    pub service: &'a str,
    /// `l2` or `ipip`.
    pub forward: &'a str,
    /// Whether backends are named by their IPv6 addresses.
    pub v6: bool,
}

/// The `[[pool]]` of `hosts`, each with weight 100.
pub fn pool(pool: Pool<'_>, hosts: &[&Host]) -> String {
    let Pool {
        name,
        service,
        forward,
        v6,
    } = pool;
    let mut text = format!(
        "[[pool]]\nname = \"{name}\"\nservice = \"{service}\"\nforward = \"{forward}\"\n\
         table_size = 4099\n"
    );
    for host in hosts {
        let address: IpAddr = if v6 {
            host.v6().into()
        } else {
            host.v4().into()
        };
        let _ = writeln!(
            text,
            "[[pool.backend]]\nname = \"{}\"\naddress = \"{address}\"\nweight = 100",
            host.name()
        );
    }
    text
}

/// A `[[vip]]`.
pub fn vip(
    name: &str,
    service: &str,
    address: IpAddr,
    port: u16,
    protocol: &str,
    pool: &str,
) -> String {
    format!(
        "[[vip]]\nname = \"{name}\"\nservice = \"{service}\"\naddress = \"{address}\"\nport = {port}\n\
         protocol = \"{protocol}\"\npool = \"{pool}\"\n"
    )
}

/// One IPv4 TCP VIP on any port, forwarded by ipip to `hosts`.
pub fn shop(hosts: &[&Host]) -> String {
    format!(
        "version = 1\n{}{}",
        vip("shop-v4", "web", VIP_V4.into(), 0, "tcp", "shop-web"),
        pool(
            Pool {
                name: "shop-web",
                service: "web",
                forward: "ipip",
                v6: false
            },
            hosts
        )
    )
}

/// VIPs of both families, TCP and UDP, any port. IPv6 VIPs have pools of IPv6 backends.
pub fn everything(forward: &str, hosts: &[&Host]) -> String {
    let mut text = String::from("version = 1\n");
    for (family, address) in [("v4", IpAddr::from(VIP_V4)), ("v6", VIP_V6.into())] {
        for protocol in ["tcp", "udp"] {
            let name = format!("all-{family}-{protocol}");
            text += &vip(
                &name,
                "web",
                address,
                0,
                protocol,
                &format!("pool-{family}"),
            );
        }
        let v6 = family == "v6";
        let name = format!("pool-{family}");
        text += &pool(
            Pool {
                name: &name,
                service: "web",
                forward,
                v6,
            },
            hosts,
        );
    }
    text
}

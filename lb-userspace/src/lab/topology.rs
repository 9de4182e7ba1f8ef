//! What a lab consists of, as data: hosts, links, addresses and routes, and the `ip` commands that
//! make them. Nothing here touches the system.

use std::net::IpAddr;

use super::address::{
    BALANCER_V4, BALANCER_V6, ENCAP_SOURCE_V4, ENCAP_SOURCE_V6, FIRST_CLIENT, HOSTS_PER_SEGMENT,
    Net, OTHERS, VIP_PREFIX_V4, VIP_PREFIX_V6, as_host_prefix, client_address, client_numbers,
};
use super::error::LabError;
use super::host::Role;

/// A host to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub name: String,
    pub service: String,
    pub role: Role,
    pub net: Net,
    pub number: u8,
    /// Its interface, and the end of the link at its router.
    pub interface: &'static str,
    pub port: String,
}

/// A lab to be made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub nodes: Vec<Node>,
    pub mtu: u16,
    pub vips: Vec<IpAddr>,
    pub has_far: bool,
    /// The balancer's interface in the far network, if it has one.
    pub second: Option<Node>,
}

/// How many backends a service has, near or far.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub service: String,
    pub count: usize,
    pub far: bool,
}

impl Node {
    fn new(name: &str, role: Role, net: Net, number: u8, port: usize) -> Self {
        let balancer = role == Role::Balancer;
        Self {
            name: name.to_owned(),
            service: String::new(),
            role,
            net,
            number,
            interface: if balancer { "lb0" } else { "eth0" },
            port: format!("p{port}"),
        }
    }

    /// The client of every lab.
    pub(super) fn client() -> Self {
        Self::new("client", Role::Client, Net::Client, FIRST_CLIENT, 0)
    }

    /// The balancer of every lab.
    pub(super) fn balancer() -> Self {
        Self::new("balancer", Role::Balancer, Net::Segment, 2, 1)
    }

    /// The balancer, as it is in the far network.
    pub(super) fn far_balancer() -> Self {
        Self {
            interface: "lb1",
            port: "far-lb".to_owned(),
            ..Self::new("balancer", Role::Balancer, Net::Far, 2, 0)
        }
    }
}

impl Plan {
    /// Gives every host its name and address.
    pub(super) fn new(
        groups: &[Group],
        others: usize,
        mtu: u16,
        vips: Vec<IpAddr>,
    ) -> Result<Self, LabError> {
        let mut plan = Self {
            nodes: vec![Node::client(), Node::balancer()],
            mtu,
            vips,
            has_far: groups.iter().any(|group| group.far && group.count > 0),
            second: None,
        };
        if plan.has_far {
            plan.add("router-2".to_owned(), "", Role::Router, Net::Segment, 3)?;
        }
        for (far, net, infix) in [(false, Net::Segment, ""), (true, Net::Far, "-far")] {
            let members = groups.iter().filter(|group| group.far == far);
            let members = members.flat_map(|group| (1..=group.count).map(move |i| (group, i)));
            for (place, (group, index)) in members.enumerate() {
                let number = number(11, place, HOSTS_PER_SEGMENT)?;
                let name = format!("{}{infix}-{index}", group.service);
                plan.add(name, &group.service, Role::Backend, net, number)?;
            }
        }
        for place in 0..others {
            let number = number(240, place, OTHERS)?;
            let name = format!("other-{}", place.saturating_add(1));
            plan.add(name, "", Role::Other, Net::Segment, number)?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        name: String,
        service: &str,
        role: Role,
        net: Net,
        number: u8,
    ) -> Result<(), LabError> {
        if self.nodes.iter().any(|node| node.name == name) {
            return Err(LabError::TwoHosts(name));
        }
        let mut node = Node::new(&name, role, net, number, self.nodes.len());
        service.clone_into(&mut node.service);
        self.nodes.push(node);
        Ok(())
    }

    /// Every host by each of its interfaces.
    fn links(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.second)
    }

    /// Virtual cables from each host to its router; `full` makes a namespace's full name.
    pub(super) fn cables(&self, full: impl Fn(&str) -> String) -> String {
        let mut batch = String::new();
        for node in self.links() {
            let line = format!(
                "link add name {} netns {} type veth peer name {} netns {}\n",
                node.interface,
                full(&node.name),
                node.port,
                full(router_of(node))
            );
            batch.push_str(&line);
        }
        batch
    }

    /// The commands inside one namespace.
    pub(super) fn commands(&self, namespace: &str) -> Vec<String> {
        let mut commands = vec!["link set dev lo up".to_owned()];
        if namespace == "router" {
            commands.extend(self.router());
        }
        for node in self.nodes.iter().filter(|node| node.name == namespace) {
            commands.extend(self.host(node));
        }
        let second = self.second.iter().filter(|node| node.name == namespace);
        commands.extend(second.flat_map(|node| self.addresses(node)));
        commands
    }

    fn router(&self) -> Vec<String> {
        let mut commands = self.bridge(Net::Segment);
        let (v4, v6) = Net::Client.host(1);
        for node in self.nodes.iter().filter(|node| node.net == Net::Client) {
            commands.push(format!("link set dev {} up", node.port));
            commands.push(format!("addr add {v4}/24 dev {}", node.port));
            commands.push(format!("addr add {v6}/64 dev {} nodad", node.port));
        }
        // The client's other addresses are behind its first: no neighbours to be found, of which
        // all namespaces of a machine together may have a thousand.
        let (first_v4, first_v6) = client_address(FIRST_CLIENT);
        for (v4, v6) in client_numbers().skip(1).map(client_address) {
            commands.push(format!("route add {v4} via {first_v4}"));
            commands.push(format!("route add {v6} via {first_v6}"));
        }
        for prefix in [VIP_PREFIX_V4, ENCAP_SOURCE_V4] {
            commands.push(format!("route add {prefix} via {BALANCER_V4}"));
        }
        for prefix in [VIP_PREFIX_V6, ENCAP_SOURCE_V6] {
            commands.push(format!("route add {prefix} via {BALANCER_V6}"));
        }
        if self.has_far {
            let (v4, v6) = Net::Segment.host(3);
            commands.push(format!("route add 10.0.2.0/24 via {v4}"));
            commands.push(format!("route add fd00:2::/64 via {v6}"));
        }
        commands
    }

    /// A bridge `br0` over the ports of a network, with the router's own address.
    fn bridge(&self, net: Net) -> Vec<String> {
        let mtu = self.mtu;
        let mut commands = vec![format!(
            "link add name br0 mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        )];
        for node in self.links().filter(|node| node.net == net) {
            let port = &node.port;
            commands.push(format!("link set dev {port} mtu {mtu} master br0 up"));
        }
        let (v4, v6) = net.host(1);
        commands.push("link set dev br0 up".to_owned());
        commands.push(format!("addr add {v4}/24 dev br0"));
        commands.push(format!("addr add {v6}/64 dev br0 nodad"));
        commands
    }

    /// Switches an interface on and gives it its addresses.
    fn addresses(&self, node: &Node) -> [String; 3] {
        let interface = node.interface;
        let mtu = if node.net == Net::Client {
            1500
        } else {
            self.mtu
        };
        let (v4, v6) = node.net.host(node.number);
        [
            format!("link set dev {interface} mtu {mtu} up"),
            format!("addr add {v4}/24 dev {interface}"),
            format!("addr add {v6}/64 dev {interface} nodad"),
        ]
    }

    fn host(&self, node: &Node) -> Vec<String> {
        let mut commands = self.addresses(node).to_vec();
        if node.role == Role::Client {
            for (v4, v6) in client_numbers().skip(1).map(client_address) {
                commands.push(format!("addr add {v4}/32 dev lo"));
                commands.push(format!("addr add {v6}/128 dev lo nodad"));
            }
        }
        if node.role == Role::Router {
            commands.extend(self.bridge(Net::Far));
        }
        if node.role == Role::Backend {
            commands.extend(self.vips.iter().map(|&vip| {
                let nodad = if vip.is_ipv6() { " nodad" } else { "" };
                format!("addr add {} dev lo{nodad}", as_host_prefix(vip))
            }));
        }
        let (v4, v6) = node.net.host(1);
        // The client's side of the router has 1500; saying so keeps the MSS at what a real
        // backend would offer, although the segment carries more.
        commands.push(format!("route add default via {v4} mtu 1500"));
        commands.push(format!("route add ::/0 via {v6} mtu 1500"));
        commands
    }

    /// Kernel settings of one namespace, as (path below `/proc/sys/net`, value).
    pub(super) fn settings(&self, namespace: &str) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_ra", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ];
        let role = self
            .nodes
            .iter()
            .find(|node| node.name == namespace)
            .map_or(Role::Router, |node| node.role);
        match role {
            Role::Router => settings.extend([
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/conf/all/send_redirects", "0"),
                ("ipv4/conf/default/send_redirects", "0"),
            ]),
            // Without these a backend would claim the VIP on the segment.
            Role::Backend => settings.extend([
                ("ipv4/conf/all/arp_ignore", "1"),
                ("ipv4/conf/all/arp_announce", "2"),
            ]),
            Role::Client => settings.push(("ipv4/ip_local_port_range", "1024 65000")),
            Role::Balancer | Role::Other => {}
        }
        settings
    }

    /// Every interface with the namespace it is in: their checksums are computed in software,
    /// because XDP sends on what it sees, and an offloaded checksum is not there yet.
    pub(super) fn interfaces(&self) -> Vec<(&str, &str)> {
        let ends = self.links().flat_map(|node| {
            [
                (node.name.as_str(), node.interface),
                (router_of(node), node.port.as_str()),
            ]
        });
        ends.collect()
    }
}

/// The namespace at the other end of a host's cable.
fn router_of(node: &Node) -> &'static str {
    if node.net == Net::Far {
        "router-2"
    } else {
        "router"
    }
}

/// The host number at `place` of a range.
fn number(first: u8, place: usize, most: usize) -> Result<u8, LabError> {
    let number = u8::try_from(place)
        .ok()
        .and_then(|place| first.checked_add(place));
    number
        .filter(|_| place < most)
        .ok_or(LabError::TooManyHosts(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(near: usize, far: usize, others: usize) -> Result<Plan, LabError> {
        let group = |count, far| Group {
            service: "web".to_owned(),
            count,
            far,
        };
        Plan::new(
            &[group(near, false), group(far, true)],
            others,
            1600,
            vec![],
        )
    }

    #[test]
    fn names_ports_and_addresses_are_unique() {
        let plan = plan(30, 5, 2).unwrap();
        let mut seen = std::collections::HashSet::new();
        for node in &plan.nodes {
            assert!(seen.insert(node.name.clone()), "{}", node.name);
            assert!(seen.insert(node.port.clone()), "{}", node.port);
            let address = node.net.host(node.number);
            assert!(seen.insert(format!("{address:?}")), "{address:?}");
        }
        assert_eq!(plan.nodes.len(), 3 + 35 + 2);
    }

    #[test]
    fn a_segment_is_finite() {
        assert!(plan(HOSTS_PER_SEGMENT, 0, OTHERS).is_ok());
        assert!(plan(HOSTS_PER_SEGMENT + 1, 0, 0).is_err());
        assert!(plan(1, 0, OTHERS + 1).is_err());
    }

    #[test]
    fn a_name_is_taken_once() {
        let group = |service: &str| Group {
            service: service.to_owned(),
            count: 1,
            far: false,
        };
        let twice = Plan::new(&[group("web"), group("web")], 0, 1600, vec![]);
        assert!(matches!(twice, Err(LabError::TwoHosts(name)) if name == "web-1"));
        assert!(Plan::new(&[group("web"), group("shop")], 0, 1600, vec![]).is_ok());
    }

    #[test]
    fn a_second_router_only_for_far_backends() {
        assert!(!plan(1, 0, 0).unwrap().has_far);
        let far = plan(0, 1, 0).unwrap();
        assert!(
            far.cables(str::to_owned)
                .contains("netns web-far-1 type veth peer name p3 netns router-2")
        );
    }
}

//! The flow that is asked about, as people type it: `tcp 198.51.100.7:40000 203.0.113.10:80`.

use std::net::{IpAddr, SocketAddr};

use lb_common::wire::ip_proto;

use crate::change::golden::packet::Flow;

/// How a question is written.
const FORM: &str = "write PROTOCOL CLIENT:PORT VIP:PORT, for example\n  \
                    lbguard explain tcp 198.51.100.7:40000 203.0.113.10:80\n  \
                    lbguard explain udp '[2001:db8:c::7]:40000' '[2001:db8::10]:443'";

/// Reads a question, in one word or several; arrows between the ends are passed over.
///
/// # Errors
/// What is wrong with it, and how it is written.
pub fn question(words: &[String]) -> Result<Flow, String> {
    let text = words.join(" ");
    let parts: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !["->", ">", "to"].contains(word))
        .collect();
    let [protocol, client, vip] = parts.as_slice() else {
        return Err(format!("\"{text}\" is no flow: {FORM}"));
    };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => ip_proto::TCP,
        "udp" => ip_proto::UDP,
        other => return Err(format!("\"{other}\" is neither tcp nor udp: {FORM}")),
    };
    let (client, vip) = (end("client", client)?, end("VIP", vip)?);
    if client.is_ipv4() != vip.is_ipv4() {
        return Err(format!(
            "{client} and {vip} are of different families: no packet has both"
        ));
    }
    Ok(Flow {
        client: client.ip(),
        client_port: client.port(),
        vip: vip.ip(),
        vip_port: vip.port(),
        protocol,
    })
}

fn end(what: &str, text: &str) -> Result<SocketAddr, String> {
    let end: SocketAddr = text.parse().map_err(|_| {
        let hint = match text.parse::<IpAddr>() {
            Ok(_) => format!("\"{text}\" lacks its port"),
            Err(_) => format!("\"{text}\" is no address with a port"),
        };
        format!("the {what}: {hint}; {FORM}")
    })?;
    if end.ip().is_unspecified() || end.ip().is_multicast() {
        return Err(format!("the {what}: {} is nobody's address", end.ip()));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<String, String> {
        question(&[text.to_owned()]).map(|flow| flow.to_string())
    }

    #[test]
    fn flows_are_read_in_every_usual_form() {
        let shop = "from 198.51.100.7:40000 to 203.0.113.10:80";
        for text in [
            "tcp 198.51.100.7:40000 203.0.113.10:80",
            "TCP 198.51.100.7:40000 -> 203.0.113.10:80",
            " tcp  198.51.100.7:40000 to 203.0.113.10:80 ",
        ] {
            assert_eq!(asked(text).as_deref(), Ok(shop));
        }
        let words = ["udp", "[2001:db8::7]:1", "[2001:db8::10]:443"].map(str::to_owned);
        let flow = question(&words).unwrap();
        assert_eq!(
            flow.to_string(),
            "from [2001:db8::7]:1 to [2001:db8::10]:443"
        );
        assert_eq!(flow.protocol, ip_proto::UDP);
    }

    #[test]
    fn what_is_no_flow_is_said() {
        for (text, why) in [
            ("", "is no flow"),
            ("tcp 198.51.100.7:1", "is no flow"),
            ("icmp 198.51.100.7:1 203.0.113.10:80", "neither tcp nor udp"),
            ("tcp 198.51.100.7 203.0.113.10:80", "lacks its port"),
            (
                "tcp 198.51.100.7:1 203.0.113.10:99999",
                "no address with a port",
            ),
            ("tcp [2001:db8::7]:1 203.0.113.10:80", "different families"),
            ("tcp 0.0.0.0:1 203.0.113.10:80", "nobody's address"),
        ] {
            let told = asked(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}

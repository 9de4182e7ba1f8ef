//! What is left to the stack, byte by byte as it came.

use lb_common::counter::Reason;
use lb_tests::bench::Bench;
use lb_tests::packets::{
    Flags, Ip, echo, echo_request, frame, icmp_raw, inner, ip, tcp, tcp_segment, tcp_with, too_big,
    udp,
};
use lb_tests::rows::{Row, run};

use crate::world::{addr, to, world};

fn edited(frame: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame;
    edit(&mut frame);
    frame
}

fn chain(kinds: &[u8]) -> Ip {
    let extensions = kinds.iter().map(|kind| (*kind, vec![0; 6])).collect();
    Ip {
        extensions,
        ..Ip::default()
    }
}

fn rows() -> Vec<Row> {
    let v4 = to("203.0.113.2:80");
    let v6 = to("[2001:db8::2]:80");
    let syn = || tcp(v4, Flags::Syn, &[]);
    let syn6 = || tcp(v6, Flags::Syn, &[]);
    let arp = edited(syn(), |f| f[12..14].copy_from_slice(&[8, 6]));
    let tags = |mut f: Vec<u8>, tags: &[u8]| {
        f.splice(12..12, tags.iter().copied());
        f
    };
    let three = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7];
    let (client, vip) = (addr("198.51.100.7"), addr("203.0.113.2"));
    let (client6, vip6) = (addr("2001:db8:c::7"), addr("2001:db8::2"));
    let foreign = inner(&tcp(to("203.0.113.9:80").back(), Flags::Ack, &[])).to_vec();
    let gre = frame(&ip(&Ip::default(), client, vip, 47, &[0; 40]));
    let none = frame(&ip(&Ip::default(), client6, vip6, 59, &[0; 40]));
    let esp = frame(&ip(&Ip::default(), client6, vip6, 50, &[0; 40]));
    let (pass, skip) = (Row::pass, Reason::Icmp);
    vec![
        pass("ARP", Reason::NotIp, arp),
        pass(
            "LLDP",
            Reason::NotIp,
            edited(syn(), |f| f[12..14].copy_from_slice(&[0x88, 0xcc])),
        ),
        pass("three VLAN tags", Reason::Vlan, tags(syn(), &three)),
        pass("the same of IPv6", Reason::Vlan, tags(syn6(), &three)),
        pass(
            "cut in a tag",
            Reason::Runt,
            tags(syn(), &three)[..15].to_vec(),
        ),
        pass("Ethernet header alone", Reason::Runt, syn()[..14].to_vec()),
        pass("cut in the IPv4 header", Reason::Runt, syn()[..33].to_vec()),
        pass(
            "cut in the IPv6 header",
            Reason::Runt,
            syn6()[..53].to_vec(),
        ),
        pass(
            "cut before the end that the header tells",
            Reason::Runt,
            syn()[..53].to_vec(),
        ),
        pass(
            "cut in the IPv6 payload",
            Reason::Runt,
            syn6()[..73].to_vec(),
        ),
        pass(
            "IHL of 4 words",
            Reason::Runt,
            edited(syn(), |f| f[14] = 0x44),
        ),
        pass("version 5", Reason::Runt, edited(syn(), |f| f[14] = 0x55)),
        pass(
            "version 4 in IPv6's place",
            Reason::Runt,
            edited(syn6(), |f| f[14] = 0x45),
        ),
        pass(
            "total length below the header",
            Reason::Runt,
            edited(syn(), |f| f[17] = 19),
        ),
        pass(
            "total length above the frame",
            Reason::Runt,
            edited(syn(), |f| f[17] = 41),
        ),
        pass(
            "TCP header behind the packet",
            Reason::Runt,
            edited(syn(), |f| f[17] = 33),
        ),
        pass(
            "payload length above the frame",
            Reason::Runt,
            edited(syn6(), |f| f[19] = 21),
        ),
        pass("GRE", Reason::Protocol, gre),
        pass("no next header", Reason::Protocol, none),
        pass("ESP", Reason::Protocol, esp),
        pass(
            "five extension headers",
            Reason::Extensions,
            tcp_with(&chain(&[0, 60, 43, 60, 60]), v6, Flags::Syn, &[]),
        ),
        pass(
            "extension header that leads out",
            Reason::Runt,
            edited(tcp_with(&chain(&[60]), v6, Flags::Syn, &[]), |f| f[55] = 9),
        ),
        pass(
            "echo reply",
            skip,
            echo(&Ip::default(), client, vip, true, b"x"),
        ),
        pass(
            "echo reply v6",
            skip,
            echo(&Ip::default(), client6, vip6, true, b"x"),
        ),
        pass("ICMP redirect", skip, icmp_raw(client, vip, 5, 1, &foreign)),
        pass(
            "timestamp request",
            skip,
            icmp_raw(client, vip, 13, 0, &[0; 12]),
        ),
        pass(
            "neighbour solicitation",
            skip,
            icmp_raw(client6, vip6, 135, 0, &[0; 20]),
        ),
        pass(
            "neighbour advertisement",
            skip,
            icmp_raw(client6, vip6, 136, 0, &[0; 20]),
        ),
        pass(
            "router advertisement",
            skip,
            icmp_raw(client6, vip6, 134, 0, &[0; 20]),
        ),
        pass(
            "error about a foreign packet",
            skip,
            too_big(addr("192.0.2.9"), vip, 1400, &foreign),
        ),
        pass(
            "error without ports",
            skip,
            too_big(addr("192.0.2.9"), vip, 1400, &foreign[..20]),
        ),
        pass(
            "other address",
            Reason::NotVip,
            tcp(to("203.0.113.77:80"), Flags::Syn, b"hello"),
        ),
        pass(
            "other address v6",
            Reason::NotVip,
            tcp(to("[2001:db8::77]:80"), Flags::Syn, b"hello"),
        ),
        pass(
            "other port",
            Reason::NotVip,
            tcp(to("203.0.113.2:81"), Flags::Syn, &[]),
        ),
        pass(
            "other protocol",
            Reason::NotVip,
            udp(to("203.0.113.2:80"), b"hello"),
        ),
        pass(
            "other protocol than the port-0 VIP's",
            Reason::NotVip,
            udp(to("203.0.113.4:443"), b"x"),
        ),
        pass(
            "a VIP's answer on its way back",
            Reason::NotVip,
            tcp(v4.back(), Flags::SynAck, &[]),
        ),
        pass(
            "echo request to another address",
            Reason::NotVip,
            echo_request("198.51.100.7", "203.0.113.77", b"x"),
        ),
        pass(
            "echo request to another address v6",
            Reason::NotVip,
            echo_request("2001:db8:c::7", "2001:db8::77", b"x"),
        ),
        pass(
            "fragment to another address",
            Reason::NotVip,
            frame(&ip(
                &Ip {
                    more: true,
                    ..Ip::default()
                },
                client,
                addr("203.0.113.77"),
                6,
                &[0; 40],
            )),
        ),
        pass(
            "fragment to another address v6",
            Reason::NotVip,
            tcp_with(&chain(&[44]), to("[2001:db8::77]:80"), Flags::Ack, &[]),
        ),
        pass("error to another port's flow", Reason::NotVip, {
            let talk = to("203.0.113.2:81");
            let quote = ip(
                &Ip::default(),
                vip,
                client,
                6,
                &tcp_segment(talk.back(), Flags::Ack, &[]),
            );
            too_big(addr("192.0.2.9"), vip, 1400, &quote)
        }),
    ]
}

#[test]
fn what_is_not_for_a_vip_is_left_as_it_is() {
    let bench = Bench::new();
    let image = bench.commit(&world());
    run(&bench, &image, &rows());
}

/// Before the first commit generation 0 is active, which has no VIP.
#[test]
fn an_empty_generation_passes_everything() {
    let bench = Bench::new();
    let image = bench.image(&world());
    run(
        &bench,
        &image,
        &[
            Row::pass(
                "SYN",
                Reason::NotVip,
                tcp(to("203.0.113.2:80"), Flags::Syn, &[]),
            ),
            Row::pass("ARP-like", Reason::NotIp, vec![0; 60]),
            Row::pass(
                "ping",
                Reason::NotVip,
                echo_request("198.51.100.7", "203.0.113.2", b"x"),
            ),
        ],
    );
}

//! Good configurations drawn from a seed.

use std::fmt::Write as _;

use lb_tests::seeded::Seeded;

/// Sizes that a lookup table may have.
const SIZES: [u32; 4] = [251, 509, 1021, 4099];

/// A VIP, its pool and its backends. Number 0 is IPv6, number 1 is `l2`, the others are `ipip`.
fn service(random: &mut Seeded, number: u64) -> String {
    let (forward, v6) = match number {
        0 => ("ipip", true),
        1 => ("l2", false),
        _ => ("ipip", false),
    };
    let address = if v6 {
        "2001:db8::10".to_owned()
    } else {
        format!("203.0.113.{}", 10 + number)
    };
    let size = SIZES[random.index(SIZES.len())];
    let protocol = ["tcp", "udp"][random.index(2)];
    let port = [0, 53, 80, 443][random.index(4)];
    let mut text = format!(
        "[[vip]]\nname = \"s{number}\"\nservice = \"s{number}\"\naddress = \"{address}\"\n\
         port = {port}\nprotocol = \"{protocol}\"\npool = \"s{number}\"\n\
         [[pool]]\nname = \"s{number}\"\nservice = \"s{number}\"\nforward = \"{forward}\"\n\
         table_size = {size}\n"
    );
    let first = random.below(4);
    for backend in first..first + 2 + random.below(6) {
        let host = if v6 {
            format!("fd00::{:x}", backend + 1)
        } else {
            format!("10.0.{number}.{}", backend + 1)
        };
        let weight = 1 + random.below(200);
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"{host}\"\nweight = {weight}\n"
        );
    }
    text
}

/// A good configuration: the two special services, and some of the others.
pub fn good(random: &mut Seeded) -> String {
    let mut text = String::from("version = 1\n");
    for number in 0..10 {
        if number < 3 || random.below(2) == 0 {
            text += &service(random, number);
        }
    }
    text
}

/// A small step from a good configuration: as it is, with one backend of another weight, or, if none
/// is, with one drained.
pub fn nearby(text: &str, random: &mut Seeded) -> String {
    let weights: Vec<usize> = text.match_indices("weight = ").map(|(at, _)| at).collect();
    let at = weights[random.index(weights.len())];
    let (before, rest) = text.split_at(at);
    let (_, after) = rest.split_once('\n').expect("a line");
    match random.below(4) {
        0 => text.to_owned(),
        1 if !text.contains("drain") => format!("{before}weight = 100\nstate = \"drain\"\n{after}"),
        _ => format!("{before}weight = {}\n{after}", 1 + random.below(200)),
    }
}

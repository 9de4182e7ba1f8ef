//! What the datagrams tell: that none is lost or comes twice, and by whom each was decided.

use std::collections::{HashMap, HashSet};

use lb_common::wire::ip_proto;

use crate::model::{Client, Family, Pair};
use crate::sender::is_established;
use crate::servers::{Arrival, PORT};

/// Asserts that of the numbers `0..sent` each has come once.
pub fn each_once(sent: u64, all: &[Arrival]) {
    let mut came = vec![false; usize::try_from(sent).unwrap()];
    for (client, number, _) in all {
        let came = &mut came[usize::try_from(*number).unwrap()];
        assert!(!*came, "packet {number} of {client:?} twice");
        *came = true;
    }
    let missing = came.iter().filter(|came| !**came).count();
    assert_eq!(missing, 0, "of {sent} packets never came");
}

/// What the packets tell.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Packets judged.
    pub packets: u64,
    /// Of these, over IPv6.
    pub v6: u64,
    /// Flows among them.
    pub flows: u64,
    /// Packets at a backend that neither generation gives their flow, nor the flow had before.
    pub mixed: u64,
    /// Moves of established flows whose backend is in both generations.
    pub moved: u64,
    /// Moves that had to be: the backend was not in both.
    pub followed: u64,
    /// New flows by the generation that chose, where they differ.
    pub chosen: [u64; 2],
}

impl Verdicts {
    /// Judges the packets of one run, in the order in which each flow sent them. `known` is who
    /// had the flows before; flows that come and go are judged from their first packet on.
    pub fn judge(&mut self, pair: &Pair, known: &mut HashMap<Client, u8>, mut all: Vec<Arrival>) {
        all.sort_unstable();
        let mut begun = HashSet::new();
        for (client, _, backend) in all {
            self.packets += 1;
            self.v6 += u64::from(client.family == Family::V6);
            let choices = pair.choices(client, ip_proto::UDP, PORT);
            let before = known.insert(client, backend);
            let sure = !begun.insert(client) || is_established(client);
            match before {
                Some(before) if before == backend => continue,
                Some(before) if sure && pair.in_both(before) => self.moved += 1,
                Some(_) => self.followed += 1,
                None => {
                    self.flows += 1;
                    if choices[0] != choices[1] {
                        self.chosen[usize::from(choices[1] == backend)] += 1;
                    }
                }
            }
            self.mixed += u64::from(!choices.contains(&backend));
        }
    }
}

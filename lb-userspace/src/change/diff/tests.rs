use super::*;
use crate::config::{BackendState, Forward, OnDead, Protocol};

pub fn backend_of(name: &str, address: &str) -> Backend {
    Backend {
        name: name.into(),
        address: address.parse().unwrap(),
        weight: 100,
        state: BackendState::Active,
        quic_id: None,
    }
}

pub fn vip_of(name: &str, address: &str, pool: &str) -> Vip {
    Vip {
        name: name.into(),
        service: "shop".into(),
        address: address.parse().unwrap(),
        port: 80,
        protocol: Protocol::Tcp,
        pool: pool.into(),
        flags: BTreeSet::new(),
    }
}

pub fn pool_of(name: &str, backends: Vec<Backend>) -> Pool {
    Pool {
        name: name.into(),
        service: "shop".into(),
        forward: Forward::Ipip,
        table_size: 65_537,
        health: None,
        identity: None,
        on_dead: OnDead::Move,
        min_backends: 1,
        max_share_ppm: None,
        slow_start: None,
        idle_timeout: None,
        mtu: None,
        quic_id_bytes: None,
        backends,
    }
}

pub fn shop() -> Config {
    let backends = vec![
        backend_of("web-1", "10.0.1.11"),
        backend_of("web-2", "10.0.1.12"),
    ];
    Config {
        vips: vec![vip_of("shop-v4", "203.0.113.10", "shop-web")],
        pools: vec![pool_of("shop-web", backends)],
    }
}

#[test]
fn equal_configurations_do_not_differ() {
    assert_eq!(diff(&shop(), &shop()), []);
}

#[test]
fn changed_keys_are_named_with_both_values() {
    let mut new = shop();
    new.vips[0].port = 0;
    new.pools[0].mtu = Some(1400);
    new.pools[0].backends[1].weight = 50;
    new.pools[0].backends[1].state = BackendState::Drain;
    let found: Vec<String> = diff(&shop(), &new)
        .iter()
        .map(|d| serde_json::to_string(d).unwrap())
        .collect();
    assert_eq!(
        found,
        [
            r#"{"what":"vip-key","vip":"shop-v4","key":"port","from":"80","to":"0"}"#,
            r#"{"what":"pool-key","pool":"shop-web","key":"mtu","from":"-","to":"1400"}"#,
            r#"{"what":"backend-key","pool":"shop-web","backend":"web-2","key":"weight","from":"100","to":"50"}"#,
            r#"{"what":"backend-key","pool":"shop-web","backend":"web-2","key":"state","from":"active","to":"drain"}"#,
        ]
    );
}

#[test]
fn what_comes_and_goes_comes_and_goes_with_its_parts() {
    let mut new = shop();
    new.vips.push(vip_of("shop-v6", "2001:db8::10", "new"));
    new.pools
        .push(pool_of("new", vec![backend_of("web-9", "10.0.1.19")]));
    new.pools[0].backends.remove(0);
    let there = diff(&shop(), &new);
    let kinds = |list: &[Difference]| -> Vec<String> {
        let word = |d| {
            serde_json::to_value(d).unwrap()["what"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        list.iter().map(word).collect()
    };
    assert_eq!(
        kinds(&there),
        ["vip-in", "pool-in", "backend-in", "backend-out"]
    );
    assert_eq!(
        there[0],
        Difference::VipIn {
            vip: "shop-v6".into(),
            to: "[2001:db8::10]:80/tcp -> new".into(),
        }
    );
    let back = diff(&new, &shop());
    assert_eq!(
        kinds(&back),
        ["vip-out", "pool-out", "backend-out", "backend-in"]
    );
}

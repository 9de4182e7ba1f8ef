//! A plan for people, at 80 columns.

use std::fmt::Write as _;

use super::{Fate, Plan};

/// Parts per million as percent.
pub fn percent(ppm: u32) -> String {
    format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100)
}

// Writing to a String can't fail.
/// The plan as text.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "from generation {}, class R{}", plan.base, plan.class);
    for vip in plan.vips.iter().filter(|vip| vip.fate != Fate::Same) {
        let what = match (vip.fate, &vip.any_port) {
            (Fate::In, None) => "in".to_owned(),
            (Fate::In, Some(from)) => {
                format!(
                    "in, moves {} of its flows from {from}",
                    percent(vip.moved_ppm)
                )
            }
            (Fate::Out, None) => "OUT: its traffic is no longer served".to_owned(),
            (Fate::Out, Some(to)) => format!("OUT: its traffic goes to {to}"),
            _ if vip.encap_changed => {
                format!(
                    "moves {}, with another forwarding mode",
                    percent(vip.moved_ppm)
                )
            }
            _ => format!("moves {} of its table", percent(vip.moved_ppm)),
        };
        let _ = writeln!(text, "  VIP {:<24} {what}", vip.name);
    }
    let same = plan.count(Fate::Same);
    if same > 0 {
        let _ = writeln!(text, "  {same} VIPs stay as they are");
    }
    for name in &plan.cross_service {
        let _ = writeln!(
            text,
            "  CROSS-SERVICE: VIP {name} would use another service's pool"
        );
    }
    let _ = writeln!(text, "plan {}", plan.digest());
    text
}

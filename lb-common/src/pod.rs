//! The host's licence to copy these types out of maps.

use crate::breaker::{BreakerState, Watched};
use crate::control::{Control, ControlRecord};
use crate::counter::{MemberCounters, Reasons, VipCounters};
use crate::evidence::{Evidence, MemberEvidence};
use crate::policy::{HardEvents, Policy};
use crate::room::{FlowLocal, FlowRoom};
use crate::sample::Sample;
use crate::slot::{Member, NextHop, Node, PoolEntry, SlotHeader, TableHeader, VipEntry};

macro_rules! pods {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: the zerocopy derives refuse to compile unless the type is made of plain
            // bytes without padding, for which any bit pattern is valid.
            unsafe impl aya::Pod for $type {}
        )+
    };
}

pods!(
    BreakerState,
    Control,
    ControlRecord,
    Evidence,
    FlowLocal,
    FlowRoom,
    HardEvents,
    Member,
    MemberCounters,
    MemberEvidence,
    NextHop,
    Node,
    Policy,
    PoolEntry,
    Reasons,
    Sample,
    SlotHeader,
    TableHeader,
    VipCounters,
    VipEntry,
    Watched,
);

//! The rules of sense, as data. The functions that look for breaches are in the modules beside.
//!
//! Numbers from LB010: names and references; LB020: addresses; LB030: pools and tables; LB040: a
//! change against what is committed; LB050: features that this version lacks;
//! LB060: what flags and keys make of flows. An id is never used
//! again.

use crate::config::{Rule, Severity};

/// The rules of sense, by id.
pub const SENSE_RULES: &[&Rule] = &[
    &SAME_NAME,
    &SAME_VIP,
    &UNKNOWN_POOL,
    &SERVICE,
    &UNUSED_POOL,
    &NAME_MEANS_TWO,
    &NO_VIP,
    &VIP_ADDRESS,
    &BACKEND_ADDRESS,
    &BACKEND_IS_VIP,
    &SAME_BACKEND,
    &FAMILY,
    &SHARED_ADDRESS,
    &NO_BACKEND,
    &MIN_BACKENDS,
    &TABLE_SIZE,
    &TABLE_TOO_SMALL,
    &MAX_SHARE,
    &ENCAP_SOURCE,
    &TABLES_FULL,
    &NO_ROOM,
    &HEALTH_TIMING,
    &ONE_BACKEND,
    &EMPTY,
    &VIPS_HALVED,
    &POOL_HALVED,
    &POOL_DOUBLED,
    &SERVICE_MOVED,
    &NO_IDENTITY,
    &NO_SLOW_START,
    &FLAGS_CONFLICT,
    &HASH_DPORT_PORT,
    &IDLE_TIMEOUT,
    &MTU_TOO_SMALL,
    &STATELESS_FLOWS,
    &QUIC_PROTOCOL,
    &QUIC_ID_MISSING,
    &QUIC_ID_TAKEN,
    &QUIC_ID_WIDE,
    &QUIC_ID_MOVED,
];

/// The table below: each rule in one block.
macro_rules! rules {
    ($($name:ident = $id:literal, $severity:ident, $forceable:literal, $title:literal;
       why $why:literal; example $example:literal; fix $fix:literal;)+) => {$(
        #[doc = $id]
        pub const $name: Rule = Rule {
            id: $id,
            severity: Severity::$severity,
            forceable: $forceable,
            title: $title,
            why: $why,
            example: $example,
            fix: $fix,
        };
    )+};
}

rules! {
    SAME_NAME = "LB010", Error, false, "Names are unique";
    why "Counters, drains and numbers in the kernel follow the name: two things cannot share it.";
    example "[[pool]]\nname = \"web\"\n\n[[pool]]\nname = \"web\"";
    fix "Rename one of them, or remove it if it is a copy.";

    SAME_VIP = "LB011", Error, false, "An address, port and protocol belong to one VIP";
    why "A packet can go to one pool only; which of the two would be chance.";
    example "two VIPs with address 203.0.113.10, port 80, tcp";
    fix "Remove one of them, or give it another port.";

    UNKNOWN_POOL = "LB012", Error, false, "The pool of a VIP exists";
    why "The VIP would drop every packet.";
    example "[[vip]]\npool = \"shop-wbe\"";
    fix "Correct the name, or add the pool.";

    SERVICE = "LB013", Error, true, "A VIP uses a pool of its own service";
    why "Clients would reach another service's servers, which answer: health checks stay green \
         while every user is out.";
    example "[[vip]]\nservice = \"shop\"\npool = \"blog-web\"   # service = \"blog\"";
    fix "Name a pool of the VIP's service.";

    UNUSED_POOL = "LB014", Warning, true, "Every pool is used by a VIP";
    why "A pool that nothing uses is often what is left of a mistake.";
    example "[[pool]] that no [[vip]] names";
    fix "Point a VIP at it, or remove it.";

    NAME_MEANS_TWO = "LB015", Warning, true, "A backend name means one address";
    why "`lbguard drain NAME` needs a pool then, and who reads the name in a log may think of the wrong server.";
    example "web-1 is 10.0.1.11 in one pool and 10.0.2.11 in another";
    fix "Rename one of them, or correct the address.";

    NO_VIP = "LB016", Warning, true, "There is a VIP";
    why "Without one nothing is forwarded.";
    example "version = 1";
    fix "Add a [[vip]], or leave the file alone if this host shall serve nothing.";

    VIP_ADDRESS = "LB020", Error, false, "A VIP has a unicast address that clients can reach";
    why "No packet could arrive for it, or far too many would.";
    example "address = \"0.0.0.0\"";
    fix "Use the address that clients connect to.";

    BACKEND_ADDRESS = "LB021", Error, false, "A backend has a unicast address";
    why "Packets sent there reach nobody, or this host itself.";
    example "address = \"127.0.0.1\"";
    fix "Use the server's own address.";

    BACKEND_IS_VIP = "LB022", Error, false, "A backend is not one of the VIPs";
    why "The balancer would send packets to itself, round and round.";
    example "[[vip]] and [[pool.backend]] with address 203.0.113.10";
    fix "Use the server's own address, not the one that clients connect to.";

    SAME_BACKEND = "LB023", Error, true, "A server is in a pool once";
    why "It would get twice its share, and draining one name would leave the other.";
    example "web-1 and web-2 both with address 10.0.1.11";
    fix "Correct the address, or remove one and raise the weight of the other.";

    FAMILY = "LB024", Error, false, "The backends' address family suits the VIP and the mode";
    why "The packets cannot be carried there: every one would be dropped.";
    example "IPv6 VIP with IPv4 backends";
    fix "l2: the same family. ipip and gue: IPv4 over either, IPv6 over IPv6.";

    SHARED_ADDRESS = "LB025", Warning, true, "A server belongs to one service";
    why "If it is not meant to run both, one of the services is about to be sent to the wrong \
         servers.";
    example "10.0.1.11 in a pool of shop and in a pool of blog";
    fix "Correct the address, unless the server does run both.";

    NO_BACKEND = "LB030", Error, false, "A pool has a backend that takes new flows";
    why "Every new connection to its VIPs would be dropped.";
    example "all backends with weight = 0 or state = \"drain\"";
    fix "Give at least one backend state = \"active\" and a weight above 0.";

    MIN_BACKENDS = "LB031", Error, false, "A pool keeps its min_backends";
    why "You said that fewer cannot carry the load; the guard in the kernel refuses it too.";
    example "min_backends = 3 with two active backends";
    fix "Bring backends back, or lower min_backends in a change of its own.";

    TABLE_SIZE = "LB032", Error, false, "table_size is a prime from 251 to 1000003";
    why "Only with a prime does each backend's walk reach every entry.";
    example "table_size = 65536";
    fix "Use 65537, or another prime from 251 to 1000003.";

    TABLE_TOO_SMALL = "LB033", Error, true, "The table has an entry for every active backend";
    why "A backend whose share is below one entry would get no traffic, and nobody would notice.";
    example "weights 1 and 1000000 in a table of 65537 entries";
    fix "Bring the weights closer together, or raise table_size.";

    MAX_SHARE = "LB034", Error, false, "No backend holds more than max_share";
    why "You said that one server cannot carry more; the guard in the kernel refuses it too.";
    example "max_share = \"40%\" with two equal backends";
    fix "Add backends, even out the weights, or raise max_share.";

    ENCAP_SOURCE = "LB035", Error, false, "Encapsulation has an outer source address";
    why "The data path cannot build the outer header without it.";
    example "forward = \"ipip\" with no encap_source_v4 in agent.toml";
    fix "Add encap_source_v4 or encap_source_v6 to agent.toml, then restart the agent.";

    TABLES_FULL = "LB036", Error, false, "The configuration fits the kernel tables";
    why "Kernel tables have their size from the agent's start and never grow.";
    example "2000 VIPs with vips = 1024 in agent.toml";
    fix "Raise the size in agent.toml [tables] and reload the program, or use fewer.";

    NO_ROOM = "LB037", Warning, true, "Three generations of lookup tables fit side by side";
    why "Running, last good and next are kept at once: a change of all pools would not fit.";
    example "60 pools of 65537 entries with lookup_entries = 8388608";
    fix "Raise lookup_entries in agent.toml [tables], or use a smaller table_size.";

    HEALTH_TIMING = "LB038", Error, true, "A health check ends before the next begins";
    why "Slow answers would pile up, and a slow server would look dead.";
    example "interval = \"1s\", timeout = \"2s\"";
    fix "Make timeout shorter than interval.";

    ONE_BACKEND = "LB039", Warning, true, "A pool has more than one active backend";
    why "When the only one fails, so does the service.";
    example "a pool with one [[pool.backend]]";
    fix "Add a second backend, if the service should survive a failure.";

    EMPTY = "LB040", Error, true, "A change does not remove every VIP";
    why "It would end all traffic at once: nearly always a wrong or truncated file.";
    example "a file without [[vip]] while VIPs are running";
    fix "Check the file; to stop serving on purpose, use `lbguard unload`.";

    VIPS_HALVED = "LB041", Warning, true, "A change does not remove half of the VIPs";
    why "So many at once is rare on purpose and common after a failed copy.";
    example "10 VIPs running, 5 in the file";
    fix "Check that the file is complete.";

    POOL_HALVED = "LB042", Warning, true, "A change does not halve a pool";
    why "The servers that are left take twice the load, all at once.";
    example "10 active backends running, 5 in the file";
    fix "Check the list; remove servers a few at a time.";

    POOL_DOUBLED = "LB043", Warning, true, "A change does not double a pool";
    why "Half of all flows move, and a wrong list of servers shows like this.";
    example "5 active backends running, 10 in the file";
    fix "Check the list; add servers a few at a time.";

    SERVICE_MOVED = "LB044", Warning, true, "A server or VIP stays with its service";
    why "Relabelling is how a wrong pool gets past LB013.";
    example "10.0.1.11 serves blog now, and is in a pool of shop in the file";
    fix "Check that the server was meant to change service.";

    NO_IDENTITY = "LB053", Warning, true, "Identity is verified by http and https checks only";
    why "Nobody asks whether the right service answers: no other check has a header to look at.";
    example "identity = { header = \"x-service\", value = \"shop\" }, without health";
    fix "Give the pool an http or https health check.";

    NO_SLOW_START = "LB056", Warning, true, "slow_start needs a health check";
    why "It begins when a server comes back, and without a check nobody knows when that is.";
    example "slow_start = \"30s\", without health";
    fix "Give the pool a health check, or remove slow_start.";

    FLAGS_CONFLICT = "LB060", Error, false, "The flags of a VIP do not contradict each other";
    why "hash-dport chooses a backend by the port alone; client-affinity and quic choose it by \
         something else.";
    example "flags = [\"client-affinity\", \"hash-dport\"]";
    fix "Keep the one that is meant.";

    HASH_DPORT_PORT = "LB061", Error, false, "hash-dport is for VIPs with port = 0";
    why "With one port there is one entry of the table, so one backend would get everything.";
    example "port = 443, flags = [\"hash-dport\"]";
    fix "Use port = 0, or remove the flag.";

    IDLE_TIMEOUT = "LB062", Error, false, "idle_timeout is at most 15 minutes";
    why "The flow table counts ages up to 18 minutes; a longer time could not be kept. Without \
         idle_timeout a flow is kept until its place is needed.";
    example "idle_timeout = \"2h\"";
    fix "Use at most 15m, or remove the key.";

    MTU_TOO_SMALL = "LB063", Error, false, "mtu leaves room for the smallest packet of the family";
    why "IPv6 has no packets below 1280 bytes, IPv4 none below 576 that every host takes; with the \
         outer header that is what must fit.";
    example "mtu = 1280 with forward = \"ipip\" and IPv6 VIPs";
    fix "Raise mtu by the bytes of the outer header, or remove it.";

    STATELESS_FLOWS = "LB064", Warning, true, "Keys about flows are for VIPs that remember them";
    why "A stateless VIP's packets go by the lookup table alone, whatever the key says.";
    example "on_dead = \"keep\" in the pool of a VIP with flags = [\"stateless\"]";
    fix "Remove the key or the flag.";

    QUIC_PROTOCOL = "LB065", Error, false, "quic is for UDP VIPs";
    why "TCP has no connection id.";
    example "protocol = \"tcp\", flags = [\"quic\"]";
    fix "Use protocol = \"udp\", or remove the flag.";

    QUIC_ID_MISSING = "LB066", Error, false, "Every backend of a quic VIP has a quic_id";
    why "Connections whose client changes its address would reach another server.";
    example "a [[pool.backend]] without quic_id in the pool of a VIP with flags = [\"quic\"]";
    fix "Add the server id that the server puts into its connection ids: quic_id = 7";

    QUIC_ID_TAKEN = "LB067", Error, false, "A quic_id belongs to one backend of a pool";
    why "Half of the connections would reach the wrong server once their client has moved.";
    example "two backends with quic_id = 7";
    fix "Give each server an id of its own, in its configuration and here.";

    QUIC_ID_WIDE = "LB068", Error, false, "A quic_id fits the pool's quic_id_bytes";
    why "No connection id could carry it.";
    example "quic_id = 300 with quic_id_bytes = 1";
    fix "Use a smaller id, or more bytes, as the servers do.";

    QUIC_ID_MOVED = "LB069", Warning, true, "A backend keeps its quic_id";
    why "Open connections carry the old id and follow it to whoever has it now.";
    example "web-1 had quic_id = 7, and web-2 has it in the file";
    fix "Give a server that is new an id that none had before.";
}

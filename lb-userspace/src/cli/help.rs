//! Longer help texts: examples and the exit codes, kept apart from the flags.

/// `lbguard --help`. A test holds the table against [`ExitCode`](crate::exit::ExitCode).
pub const TOP: &str = "\
A change, start to end:
  lbguard check services.toml                  # is it sane?
  lbguard apply services.toml -m 'add web-3'   # on trial; goes back by itself
  lbguard confirm                              # keep it
  lbguard revert                               # or back, at any time

Exit codes:
  0  done (apply: committed)
  1  internal error
  2  usage error
  3  refused by a check, a rule, the policy or the guard
  4  the change was put back (also: not confirmed in time)
  5  inconclusive, and put back
  6  no agent is running";

/// `lbguard agent --help`.
pub const AGENT: &str = "\
Examples:
  lbguard agent                    # reads /etc/lbguard/agent.toml
  lbguard --root /tmp/lab agent    # a second instance, apart from the first

SIGTERM ends the agent and leaves forwarding as it is. A started agent adopts
what is pinned. Exit: 0 after SIGTERM, 1 when it could not start (also: another
agent of this root is running).";

/// `lbguard check --help`.
pub const CHECK: &str = "\
Examples:
  lbguard check services.toml
  lbguard check services.toml --json | jq .

Tables and outer sources come from agent.toml, where there is one.

Exit: 0 no error found (warnings do not count), 1 agent.toml could not be read,
3 at least one error, or the file could not be read.";

/// `lbguard apply --help`.
pub const APPLY: &str = "\
The new configuration goes on trial and, unless `lbguard confirm` is given in
time, the kernel puts the old one back: with or without this command, with or
without the agent.

Examples:
  lbguard apply services.toml -m 'CHG-1204: add web-3'
  lbguard apply services.toml -m 'CHG-1204' --confirm-within 5m
  lbguard apply services.toml -m 'CHG-1204' --detach --json

Exit: 0 committed (with --detach: on trial), 1 internal error, 2 usage,
3 refused, 4 put back or not confirmed in time, 5 inconclusive and put back,
6 no agent.";

/// `lbguard confirm --help`.
pub const CONFIRM: &str = "\
Examples:
  lbguard confirm                      # keep the configuration on trial
  lbguard confirm --accept-unproven    # keep it although the evidence is thin

Exit: 0 committed, 3 nothing on trial or refused by the guard, 4 too late: the
old configuration is back, 6 no agent.";

/// `lbguard revert --help`.
pub const REVERT: &str = "\
Works on the pinned maps alone: no agent, no file, no network is needed.

Examples:
  lbguard revert        # end the trial; with none, back to the last known good
  lbguard revert 41     # back to what generation 41 was

Exit: 0 the old configuration is in force, 1 internal error, 3 refused.";

/// `lbguard simulate --help`.
pub const SIMULATE: &str = "\
Runs every packet of IN, in order and sharing one flow table, through a copy
of the real XDP program: no interface is touched and no running instance
disturbed. Seed and outer sources come from agent.toml, where there is one.
Every backend is behind the one next hop, with an MTU of 1500. Packets are
numbered from 1, as in Wireshark. Those that the capture cut are `pass` with
reason `runt`, those above 3328 bytes `pass` with reason `too-long` (an
interface with XDP has none such; a capture behind GRO or TSO does).

Examples:
  lbguard simulate --config services.toml --pcap in.pcap
  lbguard simulate --config services.toml --pcap in.pcap --out out.pcap --json

Exit: 0 all packets were run, 1 a file could not be read or written, 3 the
configuration has errors or the capture is of another format or link type.";

/// `lbguard decap --help`.
pub const DECAP: &str = "\
For a backend without a tunnel device: removes the outer header in XDP, so that
the packet to the VIP reaches the stack. The VIP must be on the loopback.

Examples:
  lbguard decap eth0 --source 172.16.0.0/16    # only from the balancers
  lbguard decap eth0 --detach                  # stop

Exit: 0 done, 1 internal error, 3 another XDP program is on the interface.";

/// `lbguard attach --help`.
pub const ATTACH: &str = "\
Works on the pinned program, with or without the agent. Lasts until the next
boot, unless the interface is added to interfaces in agent.toml.

Examples:
  lbguard attach eth1          # asks twice
  lbguard attach eth1 --yes

Exit: 0 attached, 1 nothing is loaded or the driver refused, 2 nobody to ask and
no --yes, 3 not agreed to, no such interface, or another XDP program is on it.";

/// `lbguard detach --help`.
pub const DETACH: &str = "\
Works on the pins alone, with or without the agent.

Example:
  lbguard detach eth1          # asks twice: the interface stops forwarding

Exit: 0 detached, 1 internal error, 2 nobody to ask and no --yes, 3 not attached
or not agreed to.";

/// `lbguard unload --help`.
pub const UNLOAD: &str = "\
Takes every program and pin of this instance off the host: nothing is forwarded
afterwards. Journal and generations stay. Stop the agent first.

Example:
  lbguard unload               # asks twice

Exit: 0 unloaded, or nothing was loaded; 1 internal error, 2 nobody to ask and
no --yes, 3 not agreed to.";

/// `lbguard plan --help`.
pub const PLAN: &str = "\
Examples:
  lbguard plan services.toml
  lbguard apply services.toml -m WHY --plan DIGEST    # refused if it would do
                                                      # anything else by then

Exit: 0 planned, 3 the file would be refused.";

/// `lbguard freeze --help`.
pub const FREEZE: &str = "\
`freeze on` works without an agent, `freeze off` needs one.

Examples:
  lbguard freeze on
  lbguard freeze off

Exit: 0 done, 1 nothing is loaded, 6 no agent is running.";

/// `lbguard ack --help`.
pub const ACK: &str = "\
The breaker in the kernel ends a trial when the new configuration is provably
wrong. No other trial may begin until somebody has looked.

Examples:
  lbguard history -n 1    # what it ended, and why
  lbguard ack

Exit: 0 acknowledged, 3 nothing to acknowledge, 6 no agent is running.";

/// `lbguard drain --help`.
pub const DRAIN: &str = "\
A drained backend keeps its flows and gets no new ones. The drain is recorded,
and outlives changes, the agent and a reboot. services.toml goes before it
(disabled: takes nothing), and it goes before health. The guard refuses what
would leave a pool fewer backends than its minimum or the policy's share.

Examples:
  lbguard drain web-3 -m 'CHG-1300: new kernel'
  lbguard drain web-3 -m 'CHG-1300' --wait             # until no flow is left
  lbguard drain web-3 -m 'CHG-1300' --wait --within 1h
  lbguard undrain web-3                                # back again

Exit: 0 drained (with --wait: and no flow is left), 2 the name is of more than
one pool, 3 refused, 5 flows are left after --within, 6 no agent is running.";

/// `lbguard undrain --help`.
pub const UNDRAIN: &str = "\
Examples:
  lbguard undrain web-3
  lbguard undrain web-3 --pool shop-web -m 'CHG-1300: done'

Exit: 0 done, 2 the name is of more than one pool, 3 no such backend, or not
drained by command, 6 no agent is running.";

/// `lbguard status --help`.
pub const STATUS: &str = "\
Reads the pinned maps; no agent is needed.

Examples:
  lbguard status
  lbguard status --json | jq .

Exit: 0 read, 1 nothing is loaded or the pins can't be read.";

/// `lbguard history --help`.
pub const HISTORY: &str = "\
Examples:
  lbguard history              # the last 20 changes, newest first
  lbguard history -n 0         # all of them
  lbguard history --records    # every journal record instead of every change

Exit: 0 read; 1 the journal can't be read, or a record was altered or is
missing (what comes before it is still shown).";

/// `lbguard show --help`.
pub const SHOW: &str = "\
Examples:
  lbguard show 42
  lbguard show 42 --config > services.toml    # the file as it was given

Exit: 0 read, 1 no such generation on this host.";

/// `lbguard diff --help`.
pub const DIFF: &str = "\
Examples:
  lbguard diff 41 42
  lbguard diff 0 42      # everything: generation 0 is the empty one

Exit: 0 compared, whether or not they differ; 1 no such generation.";

/// `lbguard capture --help`.
pub const CAPTURE: &str = "\
The kernel keeps the first 160 bytes of the last 1,024 packets to VIPs that
were dropped, answered with \"too big\", or for a VIP that the new arm lacks; 64
a CPU and second or so, so that a flood costs nothing. Works without an agent.

Examples:
  lbguard capture
  lbguard capture --follow --reason no-next-hop
  lbguard capture -w /tmp/dropped.pcap && tcpdump -r /tmp/dropped.pcap

Exit: 0 told, also if there were none; 1 they could not be read.";

/// `lbguard explain --help`.
pub const EXPLAIN: &str = "\
Asks the program that forwards, without an agent. Nothing is remembered, and
nothing is counted as traffic.

Examples:
  lbguard explain tcp 198.51.100.7:40000 203.0.113.10:80
  lbguard explain 'udp [2001:db8:c::7]:40000 -> [2001:db8::10]:443'

Exit: 0 explained, wherever it goes; 1 the kernel could not be asked.";

/// `lbguard doctor --help`.
pub const DOCTOR: &str = "\
Examples:
  lbguard doctor
  lbguard doctor --json | jq .

Exit: 0 nothing in the way, 1 the checks could not be run, 3 something keeps
packets from being forwarded.";

#[cfg(test)]
mod tests {
    use crate::exit::ExitCode;

    #[test]
    fn the_exit_codes_in_the_help_are_the_ones_in_the_code() {
        for code in ExitCode::ALL {
            let line = format!("  {}  {}", code.code(), code.meaning());
            assert!(super::TOP.lines().any(|l| l == line), "{line}");
        }
    }
}

"""Each scenario makes what it says: the kernel's own counters and a capture agree, without any BPF."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from holdfast.causes import CAUSES, Direction
from holdfast.errors import KernelUnavailable, UsageError
from holdfast.lab import NOT_MADE, SCENARIOS, Label, Network, find, make
from holdfast.lab.segment import ACK, RST, Datagram

COUNT = 23

# What a RST looks like on the wire tells which kind of sender made it.
ACTIVE = "active"  # RST,ACK with a window: the stack's own decision
PASSIVE = "passive"  # bare RST without window: the answer to a segment with ACK
TO_SYN = "to_syn"  # RST,ACK, number 0, no window: the answer to a segment without ACK


def shape(rst: Datagram) -> str:
    """Which of the shapes above a RST has."""
    if rst.flags == RST:
        return PASSIVE
    return ACTIVE if rst.window else TO_SYN


@dataclass(frozen=True)
class Proof:
    """What must be seen for each connection.

    Attributes:
        out_rsts: RSTs that the TCP stacks of client and server say they sent.
        wire: RSTs on the wire at the label's host, between the label's pairs: shape and number.
        counters: other counters, by host.
    """

    out_rsts: dict[str, int] = field(default_factory=dict)
    wire: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)


def by_server(shape_: str, **counters: int) -> Proof:
    return Proof({"server": 1}, {shape_: 1}, {"server": counters})


def by_client(shape_: str, **counters: int) -> Proof:
    return Proof({"client": 1}, {shape_: 1}, {"client": counters})


SILENT = Proof()
UNREAD = by_server(ACTIVE, TcpExtTCPAbortOnClose=1, TcpEstabResets=1)
ON_DATA = by_server(PASSIVE, TcpExtTCPAbortOnData=1)
GAVE_UP = Proof(counters={"client": {"TcpExtTCPAbortOnTimeout": 1}})

PROOFS = {
    "closed_with_unread_data": UNREAD,
    "dual_stack_closed_with_unread_data": UNREAD,
    "killed_with_unread_data": UNREAD,
    "exited_with_unread_data": UNREAD,
    "linger_zero": by_server(ACTIVE, TcpExtTCPAbortOnData=1),
    "connect_af_unspec": by_client(ACTIVE, TcpEstabResets=1),
    "listener_closed": by_server(ACTIVE, TcpEstabResets=1),
    "socket_destroyed": by_server(ACTIVE, TcpEstabResets=1),
    "data_after_close": by_server(PASSIVE, TcpExtTCPAbortOnData=0),
    "keepalive_race": by_server(PASSIVE, TcpExtTCPAbortOnData=0),
    "data_after_shutdown": ON_DATA,
    "data_after_shutdown_read": ON_DATA,
    "linger2_negative": by_server(ACTIVE, TcpExtTCPAbortOnLinger=1),
    "linger2_on_ack": ON_DATA,
    "closed_while_receiving": ON_DATA,
    "syn_after_close": by_server(TO_SYN),
    "aborted_while_closing": by_client(ACTIVE, TcpExtTCPAbortOnData=1),
    "orderly_end": SILENT,
    "taken_away": SILENT,
    "local_firewall_reject": Proof({}, {PASSIVE: 1}),
    "local_firewall_reject_syn": Proof({}, {TO_SYN: 1}),
    "path_firewall_reject": Proof({}, {PASSIVE: 1}, {"client": {"TcpEstabResets": 1}}),
    "path_firewall_reject_syn": Proof({}, {TO_SYN: 1}, {"client": {"TcpAttemptFails": 1}}),
    "firewall_lost_state": Proof({}, {PASSIVE: 1}, {"client": {"TcpEstabResets": 1}}),
    "icmp_refused": SILENT,
    "icmp_error": SILENT,
    "fastopen_closed_with_unread_data": by_server(ACTIVE, TcpExtTCPAbortOnClose=1),
    "fastopen_timeout": Proof(counters={"server": {"TcpExtTCPAbortOnTimeout": 1}}),
    "closed_port": by_server(TO_SYN),
    "accept_queue_overflow": by_server(PASSIVE, TcpExtListenOverflows=1),
    "segment_to_listener": by_server(PASSIVE),
    "duplicate_syn": by_server(TO_SYN, TcpExtEmbryonicRsts=1),
    "stale_handshake_answer": by_client(PASSIVE),
    "port_reused_after_crash": by_client(PASSIVE),
    "handshake_timestamp_mismatch": by_client(PASSIVE, TcpExtPAWSActive=1),
    "bad_handshake_ack": by_client(PASSIVE),
    "unexpected_syn_ack": by_client(PASSIVE),
    "client_gave_up": by_client(PASSIVE),
    "unknown_connection": by_server(PASSIVE),
    "rebooted_peer": by_server(PASSIVE),
    "late_segment": by_client(PASSIVE),
    "late_after_timeout": by_client(PASSIVE),
    "injected": Proof({"client": 1}, {PASSIVE: 2}),  # the forged one, and the answer to the real peer
    "injected_ladder": Proof({"client": 1}, {PASSIVE: 4}),
    "injected_ladder_down": Proof({}, {PASSIVE: 3}),
    "ignored_in_window": Proof({}, {PASSIVE: 1}, {"client": {"TcpExtTCPChallengeACK": 1}}),
    "ignored_out_of_window": Proof({}, {PASSIVE: 1}, {"client": {"TcpExtTCPChallengeACK": 0}}),
    "unrecognised_sender": Proof({}, {PASSIVE: 1}, {"client": {"TcpEstabResets": 1}}),
    "not_sent_by_tcp": Proof({}, {PASSIVE: 1}, {"client": {"TcpEstabResets": 1}}),
    "handshake_abandoned": Proof({}, {PASSIVE: 1}, {"server": {"TcpExtEmbryonicRsts": 1}}),
    "mptcp_fastclose": by_server(ACTIVE),
    "mptcp_protocol_error": by_server(TO_SYN),
    "mptcp_middlebox": by_server(ACTIVE, MPTcpExtDataCsumErr=1),
    "mptcp_prohibited": by_server(TO_SYN),
    "peer_aborted": UNREAD,
    "peer_had_no_connection": by_server(PASSIVE),
    "peer_closed_then_reset": by_server(PASSIVE),
    "connection_refused": by_server(TO_SYN),
    "keepalive_timeout": by_client(ACTIVE, TcpExtTCPAbortOnTimeout=1),
    "user_timeout": GAVE_UP,
    "retransmission_timeout": GAVE_UP,
    "unreachable_after_retries": GAVE_UP,
    "connect_timeout": GAVE_UP,
    "zero_window_timeout": GAVE_UP,
    "fin_wait2_timeout": by_server(ACTIVE),
}
# The kernel's own timers take whole seconds; one family proves them in the core tests.
SLOW = {"keepalive_timeout", "retransmission_timeout", "unreachable_after_retries", "connect_timeout",
        "fastopen_timeout", "fin_wait2_timeout", "client_gave_up", "icmp_refused", "icmp_error"}  # fmt: skip
CASES = [
    pytest.param(name, family, marks=[pytest.mark.slow] if name in SLOW and family == 6 else [])
    for name, one in SCENARIOS.items()
    if not one.vm_only
    for family in one.families
]


def rsts_between(label: Label, seen: list[tuple[bool, Datagram]]) -> Counter[str]:
    """The RSTs of the label's connections in a capture at its host, by shape."""
    ends = {frozenset(pair) for pair in label.pairs}
    return Counter(shape(one) for _, one in seen if one.flags & RST and frozenset((one.src, one.dst)) in ends)


@pytest.mark.needs_netns
@pytest.mark.parametrize(("name", "family"), CASES)
def test_counters_and_capture_agree_with_the_label(name: str, family: int) -> None:
    proof, one = PROOFS[name], find(name)
    with Network(family) as net:
        hosts = [net.client, net.server]
        for host in hosts:
            host.sniff()
        label = one.make(net, COUNT)
        counters = {"client": net.client.counters(), "server": net.server.counters()}
        seen = {host.netns: host.sniffed() for host in hosts if host in net.hosts}
    assert label.cause == one.cause
    assert len(set(label.pairs)) == COUNT
    # A busy machine makes stacks retransmit, and a retransmission may be answered by one RST more.
    more = any(counters[host]["TcpRetransSegs"] for host in counters)
    out_rsts = {host: counters[host]["TcpOutRsts"] for host in counters}
    assert_counts(out_rsts, {host: proof.out_rsts.get(host, 0) for host in counters}, more)
    for host, expected in proof.counters.items():
        assert_counts({k: counters[host][k] for k in expected}, expected, more)
    if label.netns in seen:  # a server that was replaced had nobody to capture there
        assert_counts(rsts_between(label, seen[label.netns]), proof.wire, more)


def assert_counts(counted: dict[str, int], expected: dict[str, int], more: bool) -> None:
    """Each count is what is expected of every connection; ``more`` forgives extra ones, not missing ones."""
    wanted = {name: times * COUNT for name, times in expected.items()}
    assert counted.keys() == wanted.keys()
    assert counted == wanted or (more and all(counted[name] >= wanted[name] for name in wanted))


def test_every_scenario_has_its_proof() -> None:
    assert set(PROOFS) == {name for name, one in SCENARIOS.items() if not one.vm_only}


def test_every_cause_has_a_scenario_or_a_reason_why_not() -> None:
    made = {one.cause for one in SCENARIOS.values()}
    assert made | set(NOT_MADE) == set(CAUSES)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_says_in_one_sentence_what_happens(name: str) -> None:
    sentence = SCENARIOS[name].sentence
    assert sentence.endswith(".")
    assert ". " not in sentence


@pytest.mark.needs_netns
def test_an_active_reset_carries_the_connections_timestamps() -> None:
    """Linux keeps options in an active RST; a received one can therefore tell an abort (10 + 2 octets)."""
    with Network() as net:
        net.client.sniff()
        find("linger_zero").make(net, 1)
        rsts = [one for _, one in net.client.sniffed() if one.flags & RST]
    assert [(one.flags, len(one.options)) for one in rsts] == [(RST | ACK, 12)]


@pytest.mark.needs_netns
def test_an_injected_rst_has_another_hop_count_than_its_alleged_sender() -> None:
    with Network() as net:
        net.client.sniff()
        label = find("injected").make(net, 1)
        came = [one for out, one in net.client.sniffed() if not out and one.src == label.pairs[0][1]]
    assert {one.ttl for one in came if not one.flags & RST} == {63}
    assert next(one.ttl for one in came if one.flags & RST) == 128


@pytest.mark.needs_netns
def test_the_label_names_the_process_that_held_the_socket() -> None:
    with Network() as net:
        label = find("closed_with_unread_data").make(net, 1)
        server = net.server.apps[0]
        assert (label.owner_pid, label.netns) == (server.pid, net.server.netns)
        assert (label.sender, label.direction) == ("local", Direction.SENT)
        assert label.pairs == server.pairs == ((server.listening, label.pairs[0][1]),)


def test_an_unknown_name_is_refused_and_the_nearest_told() -> None:
    with pytest.raises(UsageError, match="Did you mean linger_zero"):
        find("linger_zer")


@pytest.mark.parametrize("name", [name for name, one in SCENARIOS.items() if one.vm_only])
def test_what_changes_the_machine_refuses_outside_a_virtual_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_LAB_VM", raising=False)
    with pytest.raises(KernelUnavailable, match="virtual machine"):
        make(SCENARIOS[name], 4, 1)

"""What each kernel version can tell of a reset, and what is lost without it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class KernelAbility:
    """One thing that a kernel learnt at some version.

    Attributes:
        name: stable identifier, used by doctor and by the choice of BPF variants.
        since: the first mainline version that has it. Distributions carry some of them back, so this
            says what to expect; what a machine has is read from its BTF.
        found_by: how to see on a running machine that it is there.
        tells: what Holdfast learns from it.
        without: what Holdfast cannot say, or does instead, when it is missing.
    """

    name: str
    since: Version
    found_by: str
    tells: str
    without: str


ABILITIES: tuple[KernelAbility, ...] = (
    KernelAbility(
        "reset_tracepoints",
        (4, 15),
        "tracepoints tcp:tcp_send_reset and tcp:tcp_receive_reset",
        "That a socket sent or received a reset, with both addresses.",
        "Only counters and the end of a socket are seen: that resets happen, not which ones.",
    ),
    KernelAbility(
        "state_tracepoint",
        (4, 16),
        "tracepoint sock:inet_sock_set_state",
        "Who opened the socket, the state before the reset, the lifetime and the bytes still in the queues.",
        "The owner, the state before and the harm stay unknown: closing wipes them before the reset is seen.",
    ),
    KernelAbility(
        "ring_buffer",
        (5, 8),
        "BPF_MAP_TYPE_RINGBUF in enum bpf_map_type",
        "Events reach user space in order, with an exact count of those that did not fit.",
        "BPF is not used; the tracepoints are read through perf_event_open.",
    ),
    KernelAbility(
        "existing_sockets",
        (5, 11),
        "function bpf_sock_from_file and helper bpf_sk_storage_get in tracing programs",
        "The owner of sockets that were open before Holdfast started.",
        "Only sockets that are opened after the start have an owner.",
    ),
    KernelAbility(
        "received_segment",
        (5, 11),
        "function tcp_reset with two arguments (and permission to attach to functions)",
        "The RST segment that ended a connection, at no cost for other traffic.",
        "The segment is picked up by a filter on arriving packets, which looks at the flags of each one.",
    ),
    KernelAbility(
        "error_tracepoint",
        (5, 14),
        "tracepoint sock:inet_sk_error_report",
        "The first error that a socket gets: timeouts and ICMP endings, which are no resets.",
        "Endings without a RST are inferred from the change of state, or not seen.",
    ),
    KernelAbility(
        "drop_reason",
        (5, 17),
        "field reason of tracepoint skb:kfree_skb",
        "Why a segment was dropped: a reset that was ignored, or a firewall rule of this host.",
        "Ignored resets and this host's own firewall are told from packets and counters only.",
    ),
    KernelAbility(
        "resets_without_socket",
        (6, 10),
        "tracepoint tcp:tcp_send_reset with field reason",
        "Resets for closed ports, unknown connections and sockets in TIME_WAIT.",
        "Hooks on the functions that send them (fentry) tell each of them. Where fentry is not allowed they "
        "are only counted (OutRsts). Their cause is inferred.",
    ),
    KernelAbility(
        "passive_reason",
        (6, 10),
        "enum sk_rst_reason",
        "The kernel's own reason for resets that answer a segment.",
        "The cause is inferred from the state of the socket and the flags of the segment.",
    ),
    KernelAbility(
        "active_reason",
        (6, 12),
        "SK_RST_REASON_TCP_ABORT_ON_CLOSE in enum sk_rst_reason",
        "The kernel's own reason for resets that a program or a timer caused.",
        "The cause is inferred from the call path, the state before and the socket's options.",
    ),
    KernelAbility(
        "nullable_arguments",
        (6, 14),
        "struct bpf_raw_tp_null_args",
        "That the kernel itself checks programs for tracepoints that may come without socket or segment.",
        "Raw tracepoints with checked reads are used: typed ones could crash the machine.",
    ),
)

UNTOLD_WITHOUT_REASON: dict[str, str] = {
    "mptcp_protocol_error": "mptcp_unspecified",
    "mptcp_prohibited": "mptcp_unspecified",
    "mptcp_middlebox": "mptcp_unspecified",
    "mptcp_no_resources": "mptcp_unspecified",
    "mptcp_too_much_data": "mptcp_unspecified",
    "mptcp_bad_performance": "mptcp_unspecified",
    "mptcp_unknown_code": "mptcp_unspecified",
}
"""Causes that nothing but the kernel's reason tells, and what is said instead where it gives none."""

BY_NAME: dict[str, KernelAbility] = {ability.name: ability for ability in ABILITIES}


def parse_release(release: str) -> Version:
    """The version in a kernel release string: ``6.1.0-13-amd64`` is ``(6, 1)``.

    Raises:
        ValueError: the string does not start with two numbers.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise ValueError(f"no kernel version in {release!r}")
    return int(match[1]), int(match[2])


def expected(version: Version) -> tuple[KernelAbility, ...]:
    """What a mainline kernel of this version can do."""
    return tuple(ability for ability in ABILITIES if ability.since <= version)


def missing(version: Version) -> tuple[KernelAbility, ...]:
    """What a mainline kernel of this version cannot do."""
    return tuple(ability for ability in ABILITIES if ability.since > version)

"""Frozen facts: what a source saw (:class:`Event`) and what Holdfast concludes (:class:`Reset`)."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from holdfast.causes import Basis, Direction, Ending, Severity, Trigger


class Endpoint(NamedTuple):
    """One end of a connection: textual address (IPv4-mapped shown as IPv4) and port."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the kernel named it; ``comm`` is hostile input (escape before display)."""

    pid: int
    comm: str
    uid: int | None = None
    cgroup_id: int | None = None
    cgroup: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Header fields of one TCP segment as it arrived; ``ip_id`` is None for IPv6."""

    flags: int
    seq: int
    ack: int
    window: int
    ttl: int
    ip_id: int | None
    options_bytes: int
    has_timestamp: bool
    payload_bytes: int
    payload: bytes = b""


class Kind(StrEnum):
    """What a source saw happen."""

    RESET_SENT = "reset_sent"  # the local TCP stack sent a RST
    RESET_RECEIVED = "reset_received"  # a RST was obeyed by a local socket
    RST_ARRIVED = "rst_arrived"  # a RST reached a local socket; obeyed or not
    RST_LEFT = "rst_left"  # a RST left the host and TCP did not send it
    REJECTED = "rejected"  # a local firewall answered a segment with a RST and dropped it
    SELF_RESET = "self_reset"  # tcp_reset() ran although no RST arrived (data after close)
    ERROR = "error"  # a socket got an error (inet_sk_error_report)
    DESTROYED = "destroyed"  # a socket is gone (sock_diag: no cause known)


@dataclass(frozen=True, slots=True)
class Harm:
    """Bytes that the ending put at risk; None where the source cannot see them."""

    unread_bytes: int | None = None
    unsent_bytes: int | None = None
    unacked_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """A connection on the same addresses and ports that this host closed a while ago.

    Attributes:
        closed_ns_ago: how long before the event it was closed.
        owner: who closed it, if that was seen, else who opened it. opener: who opened it, if another did.
        state_before: the state in which it was closed (RFC 9293 spelling).
        bytes_sent, bytes_received: what it carried.
        idle_ns: how long it had been silent when it was closed.
        error: the errno it ended with, 0 for none.
        served: it had carried bytes both ways. was_idle: it had been silent when it was closed.
        exiting: its owner closed it by ending (``do_exit``).
    """

    closed_ns_ago: int
    owner: Process | None = None
    opener: Process | None = None
    state_before: str | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    idle_ns: int | None = None
    error: int = 0
    served: bool = False
    was_idle: bool = False
    exiting: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One fact as a source saw it, before any conclusion; None is "this source cannot see it".

    Attributes:
        kind: what happened.
        mono_ns: CLOCK_MONOTONIC when it happened.
        local, peer: the ends of the socket; for a segment without a socket, ``local`` is its destination
            (for RST_LEFT and REJECTED: the address that the RST claims to come from).
        cookie: the kernel's socket cookie, 0 if there was no socket.
        netns: inode number of the network namespace.
        reason: name in ``enum sk_rst_reason`` without its prefix.
        state, state_before: TCP state now and before the last change, RFC 9293 spelling.
        error: errno latched in the socket, 0 for none.
        segment: the RST that arrived or left, or the segment that provoked a passive reset.
        opener: who connected or listened (nothing tells who accepted). closer: the process whose system call
            did it, or that had shut or closed the socket before, if it did not open it.
        baseline_ttl: TTL of the peer's first segment on this connection.
        min_rtt_us, rtt_us: smallest and smoothed round trip time.
        lifetime_ns: since it was established (or dialled, if it never was).
        send_ago_ns, receive_ago_ns: since data was last sent or received.
        rcv_nxt, rcv_wnd, snd_una, snd_nxt: sequence variables of RFC 9293 3.3.1.
        shutdown: bit 1 receive side shut, bit 2 send side shut (``sk_shutdown``).
        closing: both sides are shut, as close() does first. user_timeout: TCP_USER_TIMEOUT is set.
        unacked: sent bytes were not acknowledged. in_window, exact: where the RST lies in the receive
            window (exact: at RCV.NXT). forwarded: the rejected segment was on its way to another host.
        spoofed: the RST claims an address that its network namespace does not have.
        queue_full: the listener's accept queue had no room. acks_us: the answer acknowledges our SYN.
        linger_zero: SO_LINGER is on with zero seconds. linger2_negative: TCP_LINGER2 is below zero.
        orphaned: no process holds it any more. unaccepted: no process ever held it (accept queue).
        in_process: the stack ran in a system call (not in a timer or a softirq).
        exiting: ``closer`` was in ``do_exit``. established: the handshake had completed.
        user_timeout_ms: TCP_USER_TIMEOUT, 0 for none.
        retransmits, probes: unanswered retransmissions and keep-alive or window probes.
        kernel_stack, user_stack: innermost frame first: symbol names; ``module+0xoffset``.
        earlier: the connection that these addresses had before, if this host closed it recently.
    """

    kind: Kind
    mono_ns: int
    local: Endpoint
    peer: Endpoint
    cookie: int = 0
    netns: int | None = None
    reason: str | None = None
    state: str | None = None
    state_before: str | None = None
    error: int = 0
    segment: Segment | None = None
    opener: Process | None = None
    closer: Process | None = None
    baseline_ttl: int | None = None
    rtt_us: int | None = None
    min_rtt_us: int | None = None
    lifetime_ns: int | None = None
    send_ago_ns: int | None = None
    receive_ago_ns: int | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    harm: Harm = Harm()
    rcv_nxt: int | None = None
    rcv_wnd: int | None = None
    snd_una: int | None = None
    snd_nxt: int | None = None
    shutdown: int | None = None
    linger_zero: bool | None = None
    linger2_negative: bool | None = None
    orphaned: bool | None = None
    unaccepted: bool | None = None
    in_process: bool | None = None
    exiting: bool | None = None
    established: bool | None = None
    closing: bool | None = None
    user_timeout: bool | None = None
    unacked: bool | None = None
    in_window: bool | None = None
    exact: bool | None = None
    user_timeout_ms: int | None = None
    retransmits: int | None = None
    probes: int | None = None
    forwarded: bool | None = None
    spoofed: bool | None = None
    queue_full: bool | None = None
    acks_us: bool | None = None
    mptcp: bool | None = None
    kernel_stack: tuple[str, ...] = ()
    user_stack: tuple[str, ...] = ()
    earlier: Earlier | None = None


class Evidence(NamedTuple):
    """One fact that speaks for (positive weight) or against (negative) the cause that was named."""

    fact: str
    weight: int


@dataclass(frozen=True, slots=True)
class Reset:
    """One explained ending; None is unknown. :meth:`as_json` gives the documented keys.

    Attributes not named in :class:`Event`:
        id, story: identifiers of this record, and of the RST it shares with the other end's record.
        host, time: where, and when (RFC 3339, UTC, nanoseconds).
        sentence: what happened, in plain words, with names as hostile as they came.
        sender: ``local``, ``peer``, ``path`` or ``unknown``. obeyed: ``yes``, ``no`` or ``unknown``.
        owner: whose socket it is or was. idle_s: since data last moved either way.
        noise: usual traffic, folded by default.
    """

    id: str
    host: str
    time: str
    ending: Ending
    direction: Direction
    cause: str
    basis: Basis
    severity: Severity
    noise: bool
    local: Endpoint
    peer: Endpoint
    sentence: str = ""
    sender: str = "unknown"
    story: str | None = None
    trigger: Trigger | None = None
    obeyed: str = "unknown"
    state: str | None = None
    owner: Process | None = None
    netns: int | None = None
    lifetime_s: float | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    rtt_us: int | None = None
    idle_s: float | None = None
    harm: Harm = field(default_factory=Harm)
    call_path: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    remedy: tuple[str, ...] = ()
    kernel_reason: str | None = None

    def as_json(self) -> dict[str, object]:
        """The record with the stable keys of schema 1, ready for ``json.dumps``."""
        owner = None
        if self.owner is not None or self.netns is not None:
            of = self.owner
            owner = {key: getattr(of, key, None) for key in ("pid", "comm", "uid", "cgroup", "container")}
            owner["netns"] = self.netns
        plain = {key: getattr(self, key) for key in _PLAIN_KEYS}
        return {
            "schema": 1,
            **plain,
            "local": str(self.local),
            "peer": str(self.peer),
            "owner": owner,
            "harm": {key: getattr(self.harm, key) for key in self.harm.__slots__},
            "call_path": list(self.call_path),
            "evidence": [{"fact": one.fact, "weight": one.weight} for one in self.evidence],
            "remedy": list(self.remedy),
            "kernel_reason": self.kernel_reason,
        }


_PLAIN_KEYS = (
    "id",
    "host",
    "time",
    "story",
    "ending",
    "direction",
    "trigger",
    "sender",
    "cause",
    "sentence",
    "basis",
    "severity",
    "noise",
    "obeyed",
    "state",
    "lifetime_s",
    "bytes_sent",
    "bytes_received",
    "rtt_us",
    "idle_s",
)

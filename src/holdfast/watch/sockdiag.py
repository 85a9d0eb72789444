"""The source without rights: sockets as they are destroyed, and the rates of the kernel's counters."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from holdfast.errors import KernelUnavailable
from holdfast.events import Endpoint, Event, Harm, Kind
from holdfast.linux import counters
from holdfast.linux.sock_diag import DestroyedSockets, Socket

# What the kernel counts, in our words. One reset can move several of them.
COUNTERS: dict[str, str] = {
    "OutRsts": "resets sent by TCP",
    "EstabResets": "connections that ended without a FIN each way",
    "AttemptFails": "connection attempts that failed",
    "EmbryonicRsts": "resets that hit a handshake",
    "TCPAbortOnClose": "closed with unread data",
    "TCPAbortOnData": "aborted by the application, or data came after close",
    "TCPAbortOnLinger": "aborted in FIN_WAIT_2 (TCP_LINGER2)",
    "TCPAbortOnTimeout": "given up without an answer",
    "TCPAbortOnMemory": "closed for want of memory",
    "TCPAbortFailed": "resets that could not be sent",
    "TCPTimeouts": "retransmission timeouts",
    "ListenOverflows": "accept queue was full",
    "ListenDrops": "handshakes dropped by a listener",
    "TCPChallengeACK": "challenge ACKs sent (resets and SYNs that did not fit)",
    "TCPReqQFullDrop": "SYNs dropped because the queue was full",
    "PAWSActive": "answers with an impossible timestamp",
    "MPRstTx": "Multipath TCP resets sent",
    "MPRstRx": "Multipath TCP resets received",
}

_NEVER_MEASURED_US = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rates:
    """What the kernel counted over an interval, by its own names; only those of :data:`COUNTERS`.

    Attributes:
        interval_s: how long was counted.
        counts: how often; names that did not move are left out.
    """

    interval_s: float
    counts: Mapping[str, int]

    def per_second(self) -> dict[str, float]:
        """The same as rates; empty for an interval of no length."""
        if self.interval_s <= 0:
            return {}
        return {name: count / self.interval_s for name, count in self.counts.items()}


class SockDiagSource:
    """Every socket that one network namespace destroys, without cause or owner; needs no rights.

    Args:
        pid: a process that lives in the namespace (entering it needs CAP_SYS_ADMIN); None is our own.
    """

    name = "sock_diag"

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid
        self._destroyed: DestroyedSockets | None = None
        self._counted: dict[str, int] = {}
        self._counted_s = 0.0

    def start(self) -> None:
        """Begin to listen and to count.

        Raises:
            KernelUnavailable: a kernel without ``sock_diag``, or a namespace we may not enter.
        """
        self._counted, self._counted_s = self._read(), time.monotonic()
        self._destroyed = DestroyedSockets(self._pid)

    def drain(self) -> list[Event]:
        """Sockets destroyed since the last call; never waits.

        The kernel reports them from a queue of work, so the times are those of this call.
        """
        if self._destroyed is None:
            return []
        now_ns = time.monotonic_ns()
        return [event_of(one, now_ns) for one in self._destroyed.drain()]

    def lost(self) -> int:
        """How often notices were lost; the kernel does not tell how many at a time."""
        return 0 if self._destroyed is None else self._destroyed.overflows

    def rates(self) -> Rates:
        """What the kernel counted since the last call, or since the start.

        Raises:
            KernelUnavailable: the namespace's process is gone.
        """
        now, now_s = self._read(), time.monotonic()
        moved = counters.delta(self._counted, now)
        interval_s = now_s - self._counted_s
        self._counted, self._counted_s = now, now_s
        return Rates(interval_s, {name: moved[name] for name in COUNTERS if name in moved})

    def fileno(self) -> int:
        """For ``poll``: readable when a socket was destroyed.

        Raises:
            KernelUnavailable: not started.
        """
        if self._destroyed is None:
            raise KernelUnavailable("Waiting for destroyed sockets", "a source that was started")
        return self._destroyed.fileno()

    def close(self) -> None:
        """Stop listening."""
        if self._destroyed is not None:
            self._destroyed.close()
            self._destroyed = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, int]:
        return counters.read("thread-self" if self._pid is None else self._pid)


def event_of(one: Socket, now_ns: int) -> Event:
    """A destroyed socket as an event.

    A socket that was disconnected before it was destroyed (aborted by SO_LINGER, killed by an
    administrator) has lost its peer's port and its figures: then they are None, and the port is 0.
    """
    local, peer = Endpoint(one.local_ip, one.local_port), Endpoint(one.peer_ip, one.peer_port)
    known = Event(Kind.DESTROYED, now_ns, local, peer, cookie=one.cookie, netns=one.netns, state=one.state)
    info = one.info
    if info is None or not one.peer_port:
        return known
    return replace(
        known,
        rtt_us=info.rtt_us or None,
        min_rtt_us=None if info.min_rtt_us == _NEVER_MEASURED_US else info.min_rtt_us,
        send_ago_ns=_ago(info.last_data_sent_ms, info.data_segs_out),
        receive_ago_ns=_ago(info.last_data_recv_ms, info.data_segs_in),
        bytes_sent=_without(info.bytes_sent, info.bytes_retrans),
        bytes_received=info.bytes_received,
        harm=Harm(
            _data(one.receive_queue, info.data_segs_in),
            info.notsent_bytes,
            _data(_without(one.send_queue, info.notsent_bytes), info.data_segs_out),
        ),
        retransmits=info.retransmits,
        probes=info.probes,
    )


def _ago(since_ms: int | None, segments: int | None) -> int | None:
    # A socket that never sent or received data has a figure too: the age of the machine.
    return since_ms * 1_000_000 if since_ms is not None and segments else None


def _data(waiting: int | None, segments: int | None) -> int | None:
    """Bytes of data: a SYN and a FIN count as one each, and which it was the kernel has forgotten.

    One is none if no data moved, and else either; of more, one may be the FIN (docs/reference/limits.md).
    """
    if waiting != 1:
        return waiting
    return 0 if segments == 0 else None


def _without(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None else max(0, total - part)

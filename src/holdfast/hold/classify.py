"""What an errno means: one table of errno and phase, and the rule that tells timeouts apart."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from errno import (
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EHOSTDOWN,
    EHOSTUNREACH,
    ENETDOWN,
    ENETUNREACH,
    ENONET,
    ENOPROTOOPT,
    EPIPE,
    EPROTO,
    ETIMEDOUT,
)
from typing import NamedTuple

from holdfast.errors import (
    ConnectionAborted,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimedOut,
    ConnectionUnreachable,
)
from holdfast.linux import states
from holdfast.linux.tcp_info import TcpInfo


class Phase(StrEnum):
    """How far a connection had come when the error struck; the kernel's own state is CLOSED by then."""

    CONNECTING = "connecting"  # SYN_SENT: the handshake was not complete
    OPEN = "open"  # both directions open
    PEER_CLOSED = "peer_closed"  # CLOSE_WAIT: the peer's FIN was seen before
    CLOSED_HERE = "closed_here"  # this program had shut its sending side, or was told of an error before


class Verdict(NamedTuple):
    """What an error means in one phase: the class to raise and the cause it names."""

    error: type[ConnectionLost]
    cause: str


# Rule: every errno that ends a connection is a row here; any other is a bug or a shortage and is raised as
# it is. Sources: tcp_reset, tcp_write_err, tcp_v4_err, tcp_abort in Linux net/ipv4.
_UNREACHABLE = (EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN, ENONET, ENOPROTOOPT, EPROTO)
TABLE: dict[tuple[int, Phase], Verdict] = {
    (ECONNRESET, Phase.CONNECTING): Verdict(ConnectionReset, "unrecognised_sender"),
    (ECONNRESET, Phase.OPEN): Verdict(ConnectionReset, "unrecognised_sender"),
    (ECONNRESET, Phase.PEER_CLOSED): Verdict(ConnectionReset, "peer_closed_then_reset"),
    (ECONNRESET, Phase.CLOSED_HERE): Verdict(ConnectionReset, "unrecognised_sender"),
    (ECONNREFUSED, Phase.CONNECTING): Verdict(ConnectionRefused, "connection_refused"),
    # On an open connection it is a soft ICMP error that the kernel passes on when its retries end.
    **{
        (ECONNREFUSED, phase): Verdict(ConnectionUnreachable, "unreachable_after_retries")
        for phase in Phase
        if phase is not Phase.CONNECTING
    },
    (ETIMEDOUT, Phase.CONNECTING): Verdict(ConnectionTimedOut, "connect_timeout"),
    **{
        (ETIMEDOUT, phase): Verdict(ConnectionTimedOut, "retransmission_timeout")
        for phase in Phase
        if phase is not Phase.CONNECTING
    },
    **{(ECONNABORTED, phase): Verdict(ConnectionAborted, "socket_destroyed") for phase in Phase},
    (EPIPE, Phase.CONNECTING): Verdict(ConnectionClosed, "written_after_close"),
    (EPIPE, Phase.OPEN): Verdict(ConnectionClosed, "peer_closed_then_reset"),
    (EPIPE, Phase.PEER_CLOSED): Verdict(ConnectionClosed, "peer_closed_then_reset"),
    (EPIPE, Phase.CLOSED_HERE): Verdict(ConnectionClosed, "written_after_close"),
    **{
        (number, phase): Verdict(
            ConnectionUnreachable,
            "icmp_error" if phase is Phase.CONNECTING else "unreachable_after_retries",
        )
        for number in _UNREACHABLE
        for phase in Phase
    },
}


# Also CLOSED: who writes then was told of an error before, by a call that did not remember it.
_CLOSED_HERE = ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "LAST_ACK", "TIME_WAIT", "CLOSED")


@dataclass(frozen=True, slots=True)
class Figures:
    """What is read off a socket right after it failed; None is not readable.

    Attributes:
        info: its ``TCP_INFO``.
        unsent_bytes, unacked_bytes: from SIOCOUTQ and SIOCOUTQNSD.
        keepalive: SO_KEEPALIVE is on.
        user_timeout_ms: TCP_USER_TIMEOUT, 0 for none.
        cookie: SO_COOKIE.
    """

    info: TcpInfo | None = None
    unsent_bytes: int | None = None
    unacked_bytes: int | None = None
    keepalive: bool | None = None
    user_timeout_ms: int | None = None
    cookie: int | None = None

    @property
    def phase(self) -> Phase:
        """How far the connection had come, where nobody kept account: concluded, not known."""
        info = self.info
        if info is None:
            return Phase.OPEN
        # The handshake gives the first round trip; data arrives or is confirmed only after it.
        if info.rtt_us == 0 and not info.bytes_received and not info.bytes_acked:
            return Phase.CONNECTING
        return Phase.CLOSED_HERE if states.name(info.state or 0) in _CLOSED_HERE else Phase.OPEN

    @property
    def acked_bytes(self) -> int | None:
        """Payload that the peer's kernel confirmed.

        Not ``bytes_acked``: that counts the SYN of the end that dialled.
        """
        info = self.info
        if info is None or info.bytes_sent is None or info.bytes_retrans is None:
            return None
        return max(0, info.bytes_sent - info.bytes_retrans - (self.unacked_bytes or 0))

    def without_fin(self) -> Figures:
        """The same after a FIN of this end, which the kernel counts as a byte until it is acknowledged."""
        # It comes after all payload, so it is unsent if anything is, and unacknowledged if anything is.
        if self.unsent_bytes:
            return replace(self, unsent_bytes=self.unsent_bytes - 1)
        if self.unacked_bytes:
            return replace(self, unacked_bytes=self.unacked_bytes - 1)
        return self

    @property
    def idle_s(self) -> float | None:
        """Since payload last went either way, in seconds."""
        info = self.info
        if info is None or info.last_data_sent_ms is None or info.last_data_recv_ms is None:
            return None
        return min(info.last_data_sent_ms, info.last_data_recv_ms) / 1000


def classify(number: int, phase: Phase, figures: Figures | None = None) -> Verdict | None:
    """What this errno means in this phase; None if it does not end a connection (EBADF, EFAULT, ...).

    Args:
        number: errno.
        phase: how far the connection had come.
        figures: tell the reasons of a timeout apart; without them it is ``retransmission_timeout``.
    """
    verdict = TABLE.get((number, phase))
    if verdict is not None and verdict.cause == "retransmission_timeout" and figures is not None:
        return verdict._replace(cause=_timeout_cause(figures))
    return verdict


def _timeout_cause(seen: Figures) -> str:
    """Which of the kernel's timers gave up (tcp_keepalive_timer, tcp_probe_timer, tcp_retransmit_timer)."""
    outstanding = (seen.unacked_bytes or 0) + (seen.unsent_bytes or 0)
    if not outstanding and seen.keepalive:
        return "keepalive_timeout"
    if outstanding and seen.info is not None and seen.info.snd_wnd_bytes == 0:
        return "zero_window_timeout"
    return "user_timeout" if seen.user_timeout_ms else "retransmission_timeout"

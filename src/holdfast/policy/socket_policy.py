"""The options of one TCP socket as a value, and what the kernel will make of them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.errors import UsageError
from holdfast.policy.bounds import whole
from holdfast.policy.keepalive import MAX_USER_TIMEOUT_MS, KeepAlive

MAX_NOTSENT_BYTES = 2**31 - 1
RETRIES2 = 15
"""The kernel's default of net.ipv4.tcp_retries2."""

# The clock of TCP_USER_TIMEOUT starts with the first retransmission by timer. On a short path that is 0.4 s
# after the data: 0.2 s (TCP_RTO_MIN) to the tail loss probe, and as much again. Measured on Linux 6.18:
# 0.42 to 0.46 s; for the first probe of a closed window 0.31 to 0.34 s.
FIRST_RETRANSMISSION_S = 0.4
RTO_MIN_S, RTO_MAX_S = 0.2, 120.0


def retries_s(retries2: int = RETRIES2) -> float:
    """How long data is retransmitted before the kernel gives up without a user timeout, at the least.

    Source: ``tcp_model_timeout`` of Linux; Documentation/networking/ip-sysctl.rst, tcp_retries2, which gives
    924.6 s for 15. The real end is the first retransmission after it, up to 120 s later.
    """
    doublings = 9  # ilog2(RTO_MAX / RTO_MIN)
    if retries2 <= doublings:
        return float((1 << retries2 + 1) - 1) * RTO_MIN_S
    return ((1 << doublings + 1) - 1) * RTO_MIN_S + (retries2 - doublings) * RTO_MAX_S


@dataclass(frozen=True, slots=True)
class Detection:
    """When a connection is given up, in seconds; None: never.

    The kernel's timers are coarse: each wait may take up to an eighth longer.

    Attributes:
        idle_s: since the dead peer was last heard, with nothing in flight.
        busy_s: since data was sent that nobody acknowledges (without a user timeout, at the least).
        stalled_s: since a living peer closed its window by not reading.
        survived_s: the longest outage after which data in flight still arrives on this connection.
    """

    idle_s: int | None
    busy_s: float
    stalled_s: float | None
    survived_s: float


@dataclass(frozen=True, slots=True)
class SocketPolicy:
    """What one TCP socket is set to; the defaults are what Linux does to a socket left alone.

    Attributes:
        keepalive: when an idle connection is probed; None switches probes off.
        user_timeout_ms: how long sent data may stay unacknowledged, or unsent before a closed window
            (TCP_USER_TIMEOUT, milliseconds); it also takes the place of ``keepalive.count``. 0 leaves it
            to net.ipv4.tcp_retries2.
        notsent_lowat_bytes: unsent bytes above which the socket is not writable (TCP_NOTSENT_LOWAT), so
            that a heartbeat does not wait behind them in the kernel. 0 leaves it to the sysctl: no limit.
        nodelay: send small segments at once (TCP_NODELAY).
        fastopen_connect: put the first bytes into the SYN (TCP_FASTOPEN_CONNECT). They may be delivered
            twice (RFC 7413 §6.1): only for a first message that may.

    Raises:
        UsageError: a number that the kernel would refuse, or a ``keepalive`` that is none.
    """

    keepalive: KeepAlive | None = None
    user_timeout_ms: int = 0
    notsent_lowat_bytes: int = 0
    nodelay: bool = False
    fastopen_connect: bool = False

    def __post_init__(self) -> None:
        if self.keepalive is not None and not isinstance(self.keepalive, KeepAlive):
            raise UsageError(f"keepalive is {self.keepalive!r}: give a KeepAlive, or None for no probes.")
        whole("user_timeout_ms", self.user_timeout_ms, 0, MAX_USER_TIMEOUT_MS, "TCP_USER_TIMEOUT, ms")
        whole("notsent_lowat_bytes", self.notsent_lowat_bytes, 0, MAX_NOTSENT_BYTES, "TCP_NOTSENT_LOWAT")

    def detection(self, retries2: int = RETRIES2) -> Detection:
        """When this socket notices what has happened to its peer.

        Args:
            retries2: the host's net.ipv4.tcp_retries2, which decides where no user timeout is set.

        Source: the Linux timers (``tcp_keepalive_timer``, ``tcp_write_timeout``, ``tcp_probe_timer``) and
        https://blog.cloudflare.com/when-tcp-sockets-refuse-to-die; tests/kernel/test_blackhole.py holds it
        against a real black hole.
        """
        idle_s = self.keepalive.noticed_s(self.user_timeout_ms) if self.keepalive else None
        limit_s = self.user_timeout_ms / 1000 if self.user_timeout_ms else retries_s(retries2)
        noticed_s = FIRST_RETRANSMISSION_S + limit_s
        return Detection(
            idle_s=idle_s,
            busy_s=noticed_s,
            stalled_s=noticed_s if self.user_timeout_ms else None,
            survived_s=_last_retransmission_s(noticed_s),
        )

    def warnings(self, retries2: int = RETRIES2) -> tuple[str, ...]:
        """What contradicts itself or will surprise in these settings, a sentence each with its remedy."""
        return (*self._idle_warnings(), *self._busy_warnings(retries2))

    def _idle_warnings(self) -> Iterator[str]:
        if self.keepalive is None:
            yield (
                "No keep-alive: a peer that dies while the connection is idle is never noticed, whatever "
                "the user timeout. Add KeepAlive(60, 15, 3)."
            )
            return
        probes, count = self.keepalive.probes(self.user_timeout_ms), self.keepalive.count
        mend = f"Set user_timeout_ms to {self.keepalive.matching_user_timeout_ms}."
        if probes == 1:
            yield f"A single lost probe ends an idle connection. {mend if count > 1 else 'Raise count.'}"
        elif probes != count:
            yield f"The user timeout replaces count: {probes} probes are awaited, not {count}. {mend}"

    def _busy_warnings(self, retries2: int) -> Iterator[str]:
        if not self.user_timeout_ms:
            yield (
                "No user timeout: probes stop while data is in flight, so a dead peer is noticed after "
                f"{retries_s(retries2):g} s or later (net.ipv4.tcp_retries2). Set user_timeout_ms."
            )
        else:
            yield (
                "The user timeout also ends the connection of a living peer that does not read for "
                f"{_span(self.user_timeout_ms / 1000)}: let it read always, and limit by the protocol what "
                "may be in flight."
            )
        if self.fastopen_connect:
            yield (
                "Fast Open may deliver the first message twice, and sends nothing before it: only where "
                "the client speaks first and repeating that message is harmless."
            )

    def explain(self, retries2: int = RETRIES2) -> str:
        """In words: when a dead peer is noticed, idle and busy, and every warning; a line each."""
        found = self.detection(retries2)
        lines = [
            f"Idle: {self._idle_words(found)}",
            f"Busy: a dead peer is noticed {'about' if self.user_timeout_ms else 'at the earliest'} "
            f"{_span(found.busy_s)} after data was sent to it; "
            f"an outage of {_span(found.survived_s)} is survived.",
            "Stalled: a peer that answers but does not read is "
            + ("never given up." if found.stalled_s is None else f"given up after {_span(found.stalled_s)}."),
        ]
        return "\n".join([*lines, *(f"Warning: {words}" for words in self.warnings(retries2))])

    def _idle_words(self, found: Detection) -> str:
        if self.keepalive is None or found.idle_s is None:
            return "a dead peer is never noticed."
        probes = self.keepalive.probes(self.user_timeout_ms)
        return (
            f"a dead peer is noticed {found.idle_s} s after it was last heard: {probes} "
            f"probe{'s' if probes > 1 else ''} unanswered, the first after {self.keepalive.idle_s} s, each "
            f"awaited for {self.keepalive.interval_s} s."
        )


def _last_retransmission_s(end_s: float) -> float:
    """When the last retransmission before ``end_s`` leaves: each wait doubles, up to 120 s."""
    at_s = wait_s = FIRST_RETRANSMISSION_S
    while at_s + wait_s < end_s:
        at_s, wait_s = at_s + wait_s, min(2 * wait_s, RTO_MAX_S)
    return at_s


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"

"""TCP keep-alive: when an idle connection is probed, and when it is given up."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

from holdfast.policy.bounds import whole

# MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT of include/net/tcp.h: beyond is EINVAL.
MAX_WAIT_S, MAX_COUNT = 32767, 127
# The kernel keeps TCP_USER_TIMEOUT in an int of milliseconds and refuses what is below 0.
MAX_USER_TIMEOUT_MS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """``KeepAlive(60, 15, 3)``: probe after 60 s of silence, then every 15 s, and give up after three.

    Attributes:
        idle_s: silence before the first probe (TCP_KEEPIDLE), whole seconds, as the kernel counts them.
        interval_s: time between probes (TCP_KEEPINTVL).
        count: unanswered probes after which the peer counts as dead (TCP_KEEPCNT). The kernel ignores
            it wherever a user timeout is set.

    Raises:
        UsageError: a number that the kernel would refuse.

    Source: tcp(7); RFC 9293 §3.8.4, by which one lost probe must not end a connection.
    """

    idle_s: int
    interval_s: int
    count: int

    def __post_init__(self) -> None:
        whole("idle_s", self.idle_s, 1, MAX_WAIT_S, "TCP_KEEPIDLE, seconds")
        whole("interval_s", self.interval_s, 1, MAX_WAIT_S, "TCP_KEEPINTVL, seconds")
        whole("count", self.count, 1, MAX_COUNT, "TCP_KEEPCNT, probes")

    def probes(self, user_timeout_ms: int = 0) -> int:
        """How many probes stay unanswered before the connection is given up.

        Source: ``tcp_keepalive_timer`` of Linux. The kernel looks only when a probe is due. Without a user
        timeout it gives up once ``count`` are out; with one, once that time has passed since the peer
        was last heard and at least one probe is out, whatever ``count`` says.
        """
        if not user_timeout_ms:
            return self.count
        after_first_ms = user_timeout_ms - self.idle_s * 1000
        return max(1, -(-after_first_ms // (self.interval_s * 1000)))

    def noticed_s(self, user_timeout_ms: int = 0) -> int:
        """Seconds from the peer's last sign of life until a dead peer is noticed on an idle connection."""
        return self.idle_s + self.interval_s * self.probes(user_timeout_ms)

    @property
    def matching_user_timeout_ms(self) -> int:
        """The user timeout with which ``count`` means what it says: half an interval before the last look.

        Half an interval of room on either side keeps a late timer from costing or adding a probe.
        """
        # A span that the kernel's int cannot hold (a month) ends at its largest value.
        span_ms = (self.idle_s + self.interval_s * self.count) * 1000 - self.interval_s * 500
        return min(span_ms, MAX_USER_TIMEOUT_MS)

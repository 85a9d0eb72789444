"""Tells of lost connections through ``logging``: structured, and never a flood."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import threading
import time

from holdfast.errors import ConnectionLost
from holdfast.hold.forks import freed, mended_in_child

LOGGER = logging.getLogger("holdfast.hold")
"""Where losses are told: level WARNING, the facts as fields ``holdfast_*`` of the record."""

BURST = 10
PER_SECOND = 1.0


class RateLimit:
    """A token bucket: ``burst`` at once, then ``per_second``; what it refuses, it counts.

    Args:
        burst: how many tokens it holds at most.
        per_second: how many come back each second.
    """

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._tokens = float(burst)
        self._at_s = 0.0
        self._refused = 0
        self._lock = threading.RLock()
        mended_in_child(self, RateLimit.after_fork)

    def allow(self, now_s: float) -> int | None:
        """How many were refused since the last one allowed; None if this one is refused too."""
        with self._lock:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._per_second)
            self._at_s = now_s
            if self._tokens < 1:
                self._refused += 1
                return None
            self._tokens -= 1
            refused, self._refused = self._refused, 0
            return refused

    def after_fork(self) -> None:
        """See :mod:`holdfast.hold.forks`."""
        self._lock = freed(self._lock)


_LIMIT = RateLimit(BURST, PER_SECOND)


def log_loss(error: ConnectionLost) -> None:
    """One warning for a lost connection, unless there were too many just now."""
    if not LOGGER.isEnabledFor(logging.WARNING):
        return
    suppressed = _LIMIT.allow(time.monotonic())
    if suppressed is None:
        return
    fields = {
        "errno": error.errno,
        "cause": error.cause,
        "basis": str(error.basis),
        "local": error.local,
        "peer": error.peer,
        "unsent_bytes": error.unsent_bytes,
        "unacked_bytes": error.unacked_bytes,
        "acked_bytes": error.acked_bytes,
        "idle_s": error.idle_s,
        "suppressed": suppressed,
    }
    LOGGER.warning(
        "connection lost: %s",
        error,
        extra={f"holdfast_{name}": value for name, value in fields.items()},
    )

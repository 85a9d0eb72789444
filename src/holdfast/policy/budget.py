"""A limit on retries as a share of requests, so that retrying cannot multiply an overload."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.policy.bounds import real, whole

SLOTS = 10


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was spent: requests and retries by slot of time, oldest first. Begin with ``Ledger()``.

    Attributes:
        slots: (number of the slot, requests begun, retries made) for each slot in which something was.
    """

    slots: tuple[tuple[int, int, int], ...] = ()

    def added(self, slot: int, requests: int, retries: int) -> Ledger:
        """A ledger with more in one slot, and without what is older than a window."""
        # A clock that went back counts for the newest slot: nothing is forgotten too early.
        slot = max(slot, self.slots[-1][0] if self.slots else slot)
        kept = tuple(row for row in self.slots if slot - SLOTS < row[0])
        if kept and kept[-1][0] == slot:
            _, before_requests, before_retries = kept[-1]
            return Ledger((*kept[:-1], (slot, before_requests + requests, before_retries + retries)))
        return Ledger((*kept, (slot, requests, retries)))


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """At most 20 % of the requests of the last ten seconds may be retries, and three always may.

    A budget belongs to a destination and is shared by all who call it. It is a value without state: keep a
    :class:`Ledger` beside it and replace it by what :meth:`request` and :meth:`retry` give. The two are
    not atomic together with that replacement, so threads that share a ledger need a lock around both.

    Attributes:
        budget_percent: retries per hundred requests.
        min_retries: retries that are allowed in every window even without requests, so that a quiet
            client can retry at all.
        window_s: what counts as recent; it slides in tenths.

    Raises:
        UsageError: a number that makes no sense.

    Source: 20 % and 3 are Envoy's ``budget_percent`` and ``min_retry_concurrency`` (its retry_budget
    compares them with what is in flight, we with the last seconds, as Finagle's RetryBudget does, whose
    ttl of 10 s is our window).
    """

    budget_percent: float = 20.0
    min_retries: int = 3
    window_s: float = 10.0

    def __post_init__(self) -> None:
        real("budget_percent", self.budget_percent, 0, 100)
        whole("min_retries", self.min_retries, 0, 2**31, "retries in every window")
        real("window_s", self.window_s, 0.1)

    def request(self, ledger: Ledger, now_s: float) -> Ledger:
        """The ledger after a request began (its first attempt; a retry is not one)."""
        return ledger.added(self._slot(now_s), 1, 0)

    def retry(self, ledger: Ledger, now_s: float) -> Ledger | None:
        """The ledger after one more retry, or None: the budget is spent, so do not retry."""
        return ledger.added(self._slot(now_s), 0, 1) if self.left(ledger, now_s) else None

    def left(self, ledger: Ledger, now_s: float) -> int:
        """How many retries the budget allows at this moment."""
        recent = ledger.added(self._slot(now_s), 0, 0).slots
        requests, retries = (sum(row[column] for row in recent) for column in (1, 2))
        earned = math.floor(requests * self.budget_percent / 100)
        return max(0, self.min_retries + earned - retries)

    def _slot(self, now_s: float) -> int:
        return math.floor(now_s / (self.window_s / SLOTS))

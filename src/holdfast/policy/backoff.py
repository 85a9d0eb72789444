"""How long to wait before the next attempt: exponential, capped, with full jitter."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.errors import UsageError
from holdfast.policy.bounds import real, whole

_MANY = 2**63


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow; the defaults are for dialling a lost connection again.

    Full jitter draws each wait evenly from zero to the limit, so that clients which lost the same server do
    not come back together. The first one is then at once, but for up to ``first_s``.

    Attributes:
        first_s: the limit of the first wait.
        factor: what the limit grows by with each attempt.
        cap_s: where the limit stops growing.
        stable_s: how long a connection must have lasted before its loss begins the count again. Counting
            from the connect itself would hammer a server that accepts and drops.

    Raises:
        UsageError: a number that makes no sense.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter: full jitter finishes
    the same work with the fewest calls. The defaults are ours: from below one round trip of the internet to
    one attempt in five seconds (half of the cap on average).
    """

    first_s: float = 0.1
    factor: float = 2.0
    cap_s: float = 10.0
    stable_s: float = 10.0

    def __post_init__(self) -> None:
        real("first_s", self.first_s, 0.001)
        real("factor", self.factor, 1)
        real("cap_s", self.cap_s, self.first_s)
        real("stable_s", self.stable_s, 0)

    def limit_s(self, attempt: int) -> float:
        """The longest wait after the ``attempt``-th failure in a row, which is 1 for the first."""
        whole("attempt", attempt, 1, _MANY, "failures in a row")
        growth = math.log(self.cap_s / self.first_s)
        # Compared as logarithms: the power itself overflows a float after a thousand failures.
        if (attempt - 1) * math.log(self.factor) >= growth:
            return self.cap_s
        return float(min(self.cap_s, self.first_s * self.factor ** (attempt - 1)))

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait after the ``attempt``-th failure in a row.

        Args:
            attempt: 1 after the first failure.
            chance: a random number from 0 up to, but not including, 1.

        Raises:
            UsageError: either is outside its range.
        """
        if not 0 <= chance < 1:
            raise UsageError(f"chance is {chance!r}: give a random number in [0, 1).")
        return chance * self.limit_s(attempt)

    def attempt_after(self, attempt: int, lasted_s: float) -> int:
        """The number of the failure that follows number ``attempt`` when the connection between lasted so."""
        return 1 if lasted_s >= self.stable_s else attempt + 1

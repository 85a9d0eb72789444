"""What callers ask for, checked before anything is waited for."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from operator import index

from holdfast.errors import UsageError


def asked_size(n: int) -> int:
    """A number of bytes to receive.

    Raises:
        TypeError: no whole number.
        UsageError: negative.
    """
    if (size := index(n)) < 0:
        raise UsageError(f"{n} bytes were asked for; ask for 0 or more")
    return size


def asked_deadline(deadline: float | None) -> None:
    """Refuse a deadline that would never pass.

    Raises:
        TypeError: neither a number nor None.
        UsageError: nan.
    """
    if deadline is not None and math.isnan(deadline):
        raise UsageError(f"the deadline is {deadline}; give seconds of time.monotonic(), or None")


def moment(deadline: float | None) -> float:
    """The deadline as a number, checked; infinity for None, which is no deadline at all."""
    asked_deadline(deadline)
    return math.inf if deadline is None else deadline

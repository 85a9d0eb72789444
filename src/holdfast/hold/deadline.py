"""The one check of every deadline."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

from holdfast.errors import UsageError


def moment(deadline: float | None) -> float:
    """The deadline as a number; infinity for None, which is no deadline at all.

    Raises:
        UsageError: it is not a number (nan): no clock would ever reach it.
    """
    if deadline is None:
        return math.inf
    if deadline != deadline:
        raise UsageError("the deadline is not a number (nan); give a moment of time.monotonic(), or None")
    return deadline

"""Numbers are checked where a value is made, with a sentence that says how to mend them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

from holdfast.errors import UsageError


def whole(name: str, value: int, low: int, high: int, limit: str) -> None:
    """Refuse what is no whole number from ``low`` to ``high``; ``limit`` says whose limit that is.

    Raises:
        UsageError: it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} is {value!r}: give a whole number from {low} to {high} ({limit}).")


def real(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse what is no finite number from ``low`` to ``high``.

    Raises:
        UsageError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}: give a finite number.")
    if not low <= value <= high:
        top = "" if high == math.inf else f" and at most {high:g}"
        raise UsageError(f"{name} is {value!r}: give at least {low:g}{top}.")

"""Numbers are checked where a value is made, with a sentence that says how to mend them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import reprlib
import sys

from holdfast.errors import UsageError

_MOST = sys.float_info.max  # no infinity, no NaN, and no whole number that no float can hold


def whole(name: str, value: int, low: int, high: int, limit: str) -> None:
    """Refuse what is no whole number from ``low`` to ``high``; ``limit`` says whose limit that is.

    Raises:
        UsageError: it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} is {_shown(value)}: give a whole number from {low} to {high} ({limit}).")


def real(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse what is no finite number from ``low`` to ``high``.

    Raises:
        UsageError: it is not.
    """
    top = "" if high == math.inf else f" and at most {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST <= value <= _MOST:
        raise UsageError(f"{name} is {_shown(value)}: give a finite number, at least {low:g}{top}.")
    if not low <= value <= high:
        raise UsageError(f"{name} is {_shown(value)}: give at least {low:g}{top}.")


def instance(name: str, value: object, kind: type, where: str) -> None:
    """Refuse what is not made by ``kind``; ``where`` says how to get one.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {_shown(value)}: give a {kind.__name__}, {where}.")


def _shown(value: object) -> str:
    """A value in a sentence: it may be of any size, and Python refuses to write very long numbers."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of very many digits"

"""What callers ask for: checked before anything is waited for, and named in errors."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from operator import index

from holdfast.errors import UsageError

SHOWN_BYTES = 32
"""How much of a delimiter an error shows."""


def asked_size(n: int) -> int:
    """A number of bytes to receive.

    Raises:
        TypeError: no whole number.
        UsageError: negative.
    """
    if (size := index(n)) < 0:
        raise UsageError(f"{n} bytes were asked for; ask for 0 or more")
    return size


def asked_deadline(deadline: float | None) -> float:
    """When to stop waiting: infinity for None, which is no deadline at all.

    Raises:
        TypeError: neither a number nor None.
        UsageError: nan, which would never pass.
    """
    if deadline is None:
        return math.inf
    if math.isnan(deadline):
        raise UsageError(f"the deadline is {deadline}; give seconds of time.monotonic(), or None")
    return float(deadline)


def octets(data: bytes | bytearray | memoryview) -> memoryview:
    """The bytes of a buffer of any shape, which must lie in a row.

    Raises:
        TypeError: no buffer.
        BufferError: they do not.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("The bytes to send do not lie in a row: give bytes() of them.")
    return view.cast("B") if view.nbytes else memoryview(b"")  # a shape with zeros cannot be cast


def named_delimiter(delimiter: bytes) -> str:
    """A delimiter in a sentence: its first bytes, if it is long."""
    if len(delimiter) <= SHOWN_BYTES:
        return f"the delimiter {delimiter!r}"
    return f"the delimiter {delimiter[:SHOWN_BYTES]!r}... of {len(delimiter)} bytes"

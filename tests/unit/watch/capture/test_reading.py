# SPDX-License-Identifier: Apache-2.0
"""Rows of all connections are handed over in pieces, whatever comes at once, and not copied before."""

from __future__ import annotations

import tracemalloc
from typing import Any

from holdfast.watch.capture import columns
from holdfast.watch.capture.reading import Reading

ROWS = 300_000


class Ended:
    """A parser of a capture that ends with very many connections open."""

    def __init__(self, rows: bytes) -> None:
        self._rows = rows

    def records(self) -> bytes:
        return b""

    def rows(self) -> bytes:
        return self._rows

    def counts(self) -> bytes:
        return bytes(columns.COUNTS_LAYOUT.size)


class Once(Reading):
    def _step(self) -> None:
        self._done = True

    def _where(self) -> tuple[str, int, int | None]:
        return "", 0, None


def test_what_ends_at_once_is_not_copied() -> None:
    rows = bytes(columns.ROW_LAYOUT.size * ROWS)
    lengths: list[int] = []

    def take(some: Any) -> None:
        lengths.append(len(some))

    reading = Once([""], Ended(rows), None, take)  # type: ignore[arg-type]  # it parses nothing
    tracemalloc.start()
    try:
        assert list(reading) == []
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(lengths) == ROWS and max(lengths) <= 65_536
    assert peak_bytes < len(rows) / 10

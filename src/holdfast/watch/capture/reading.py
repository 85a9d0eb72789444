"""Flows as they become complete: what reading files and listening to an interface share."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from holdfast.errors import UsageError
from holdfast.watch.capture import columns, wire
from holdfast.watch.capture.flow import Damage, Flow, Progress, Summary
from holdfast.watch.capture.parser import Parser

BATCH = 64
"""How many flows are given at once, at most: more of them are not in a processor's cache any more."""

_PROGRESS_S = 0.1
_ROWS_BYTES = 65536 * columns.ROW_LAYOUT.size


class Reading(ABC):
    """The flows of one vantage, one by one; :attr:`summary` is complete when iteration has ended."""

    def __init__(
        self,
        paths: Sequence[str],
        parser: Parser,
        on_progress: Callable[[Progress], None] | None,
        on_connections: Callable[[Any], None] | None,
    ) -> None:
        if on_connections is not None and find_spec("numpy") is None:
            raise UsageError("Columns need numpy: install it (holdfast[capture] has it).")
        self.paths = tuple(paths)
        """Files in the order in which they are read (``Packet.source``), or the interface."""
        self._parser = parser
        self._on_progress, self._on_connections = on_progress, on_connections
        self._ready: deque[memoryview] = deque()
        self._rows: list[bytes] = []
        self._rows_bytes = 0
        self._damage: list[Damage] = []
        self._dropped: int | None = None
        self._stopped = self._done = False
        self._last_progress_s = 0.0

    @property
    def summary(self) -> Summary:
        """What was read so far."""
        counts = dict(zip(columns.COUNTS, columns.COUNTS_LAYOUT.unpack(self._parser.counts()), strict=True))
        if not counts["packets"]:
            counts["first_ns"] = counts["last_ns"] = None
        if not counts.pop("drop_reports"):
            counts["dropped"] = self._dropped
        return Summary(**counts, damage=tuple(self._damage), stopped=self._stopped)

    def stop(self) -> None:
        """Read no further: iteration gives what is open and ends. Safe in a signal handler."""
        self._stopped = True

    def __iter__(self) -> Iterator[Flow]:
        return self

    def __next__(self) -> Flow:
        if not self._read_on():
            raise StopIteration
        return wire.flow(self._ready.popleft())

    def batches(self, least: int = 1) -> Iterator[list[Flow]]:
        """The same, as many at a time as are complete, :data:`BATCH` at most.

        Args:
            least: read on until there are so many of them, or no more; with 1 none waits for others.
        """
        while self._read_on(least):
            yield [wire.flow(self._ready.popleft()) for _ in range(min(BATCH, len(self._ready)))]

    def _read_on(self, least: int = 1) -> bool:
        """Read until so many flows are complete; False if there is none any more."""
        while len(self._ready) < least and not self._done:
            self._step()
            self._take()
            self._progress()
        return bool(self._ready)

    @abstractmethod
    def _step(self) -> None:
        """Feed the parser with one piece of what there is, or finish."""

    @abstractmethod
    def _where(self) -> tuple[str, int, int | None]:
        """For :class:`Progress`: the path, and how much was read of how much."""

    def _take(self) -> None:
        self._ready.extend(wire.split(self._parser.records()))
        if self._on_connections is None:
            return
        rows = self._parser.rows()
        self._rows.append(rows)
        self._rows_bytes += len(rows)
        if self._rows_bytes < _ROWS_BYTES and not self._done:
            return
        # At the end all that is open comes at once, which may be too much to have twice.
        pieces = self._rows if self._rows_bytes > 2 * _ROWS_BYTES else [b"".join(self._rows)]
        self._rows, self._rows_bytes = [], 0
        for piece in pieces:
            view = memoryview(piece)
            for at in range(0, len(view), _ROWS_BYTES):
                self._on_connections(columns.as_array(view[at : at + _ROWS_BYTES]))

    def _progress(self) -> None:
        now_s = time.monotonic()
        if self._on_progress is None or (now_s - self._last_progress_s < _PROGRESS_S and not self._done):
            return
        self._last_progress_s = now_s
        path, read_bytes, total_bytes = self._where()
        summary = self.summary
        self._on_progress(Progress(path, read_bytes, total_bytes, summary.packets, summary.connections))

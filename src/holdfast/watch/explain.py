"""Reads captures and judges them: from files to records, whatever shows them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from holdfast.watch.capture.live import listen
from holdfast.watch.capture.read import read_captures
from holdfast.watch.capture.reading import BATCH, Reading
from holdfast.watch.capture.summary import Progress, Summary
from holdfast.watch.diagnose.across import refine
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.judge import Judged, judge_all
from holdfast.watch.diagnose.vantages import Vantage, join
from holdfast.watch.diagnose.words import files_words
from holdfast.watch.remembered import Connections

WINDOWS = 5_000
"""So many reset connections keep the segments around their RST, for diagrams: about 10 kB each."""

RECORDS = 200_000
"""So many reset connections are told of at most; a capture with more is counted, see ``Told.untold``."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was found: records in the order in which they were found, what each reading told, and the rest.

    ``untold``: reset connections that were judged after :data:`RECORDS` others, and left out.
    ``compared``: whether they could be held against the other connections, for which numpy is needed.
    ``silent``: how many connections of the first reading ended in silence instead, in sentences.
    ``corrected``: those of ``found`` whose cause or sender is another than ``on_found`` was told.
    """

    found: list[Explained]
    reads: list[Summary]
    untold: int
    compared: bool = True
    silent: tuple[str, ...] = ()
    corrected: tuple[Explained, ...] = ()


class Explaining:
    """Explains captures; :meth:`stop` ends the reading early, and what was found by then is told.

    Args:
        vantages: one list of files for each place at which the same traffic was captured; the first is the
            one that is told, the others only testify.
        on_progress: called about ten times a second.
        interface: listen to this one instead, from now on until :meth:`stop`.
        on_found: called with each record as it is found, before others can shed light on it; what those
            change is in ``Told.corrected``.

    Raises:
        KernelUnavailable, UsageError: the interface cannot be listened to.
    """

    def __init__(
        self,
        vantages: Sequence[Sequence[str]],
        on_progress: Callable[[Progress], None] | None = None,
        *,
        interface: str | None = None,
        on_found: Callable[[Explained], None] | None = None,
    ) -> None:
        self._vantages = vantages if interface is None else [[interface]]
        self.on_progress = on_progress
        self._on_found = on_found
        self._heard = Connections()
        self._live = None
        if interface is not None:
            self._live = listen(interface, on_progress=self._progress, on_connections=_taking(self._heard))
        self._reading: Reading | None = None
        self._stopped = False
        self.resets = 0
        """Reset connections found so far."""

    def stop(self) -> None:
        """Read no further. Safe in a signal handler."""
        self._stopped = True
        if self._reading is not None:
            self._reading.stop()

    def run(self) -> Told:
        """Read and judge everything.

        Raises:
            UsageError, MalformedCapture: as :func:`holdfast.watch.capture.read.read_captures`.
        """
        # Listening may go on for days: what little the rest leaves behind would add up.
        with nullcontext() if self._live is not None else _uncollected():
            read = [self._read(paths) for paths in self._vantages]
        ours, connections, summary, untold = read[0]
        told = _refined(ours, connections)
        for paths, (theirs, their_connections, their_summary, _) in zip(
            self._vantages[1:], read[1:], strict=True
        ):
            told = join(
                told, _vantage(paths, _refined(theirs, their_connections), their_connections, their_summary)
            )
        return Told(
            [one.explained for one in told],
            [summary, *(one[2] for one in read[1:])],
            untold,
            _has_numpy(),
            connections.silences.sentences(),
            () if self._on_found is None else _corrected(ours, told),
        )

    def _open(self, paths: Sequence[str], seen: Connections) -> Reading:
        if self._live is not None:
            return self._live
        return read_captures(paths, on_progress=self._progress, on_connections=_taking(seen))

    def _progress(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)

    def _read(self, paths: Sequence[str]) -> tuple[list[Judged], Connections, Summary, int]:
        connections = self._heard if self._live is not None else Connections()
        reading = self._open(paths, connections)
        self._reading = reading
        if self._stopped:
            reading.stop()
        found: list[Judged] = []
        untold = 0
        least = 1 if self._live is not None else BATCH  # who listens wants to hear of each at once
        for one in (one for flows in reading.batches(least) for one in judge_all(flows, reading.paths)):
            if one is None:
                continue
            self.resets += 1
            if self._on_found is not None:
                self._on_found(one.explained)
            if len(found) < RECORDS:
                found.append(one if len(found) < WINDOWS else _without_window(one))
            else:
                untold += 1
        summary = reading.summary
        if self._live is not None:
            summary = dataclasses.replace(summary, stopped=False)  # listening has no other end
        return found, connections, summary, untold


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: flows and records hold none, and it would walk them over and over."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _has_numpy() -> bool:
    return find_spec("numpy") is not None


def _taking(connections: Connections) -> Callable[[Any], None] | None:
    """What remembers all connections, which come as columns; without numpy nothing does."""
    return connections.take if _has_numpy() else None


def _without_window(one: Judged) -> Judged:
    return one._replace(explained=one.explained._replace(window=None))


def _refined(found: list[Judged], connections: Connections) -> list[Judged]:
    refused = [one.explained for one in found if one.refused]
    if not refused:
        return refine(found, {}, ())
    ttls = connections.ttls({one.server.ip for one in refused})
    opened = list(connections.opened({one.server for one in refused}))
    return refine(found, ttls, opened, connections.displaced({(one.client, one.server) for one in refused}))


def _corrected(before: Sequence[Judged], after: Sequence[Judged]) -> tuple[Explained, ...]:
    # What only another vantage saw comes after ours.
    pairs = ((was.explained, now.explained) for was, now in zip(before, after, strict=False))
    return tuple(now for was, now in pairs if (was.cause, was.sender) != (now.cause, now.sender))


def _vantage(paths: Sequence[str], found: list[Judged], seen: Connections, summary: Summary) -> Vantage:
    sightings = seen.sightings()
    return Vantage(
        name=files_words(paths),
        found=found,
        lookup=sightings.get,
        first_ns=summary.first_ns or 0,
        last_ns=summary.last_ns or 0,
        reliable=not (
            summary.dropped or summary.evicted or summary.hurried or summary.damage or summary.stopped
        ),
    )

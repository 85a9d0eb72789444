"""Reads capture files, one after the other, into flows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import MalformedCapture, UsageError
from holdfast.watch.capture import columns, stream
from holdfast.watch.capture.parser import EVIDENCE_BYTES, MAX_FLOWS, RING_BYTES, Parser, new_parser
from holdfast.watch.capture.reading import Reading
from holdfast.watch.capture.summary import Damage, Progress, Summary

_CHUNK_BYTES = 1 << 18  # the kernel's copy is still in the cache when it is parsed
_STEP_BYTES = 8 << 20  # then the parser says what is complete, if not earlier
_HEAD_BYTES = (1 << 20) + (1 << 16)  # more than the longest record, which may be left over

_OVERLAP_NS = 1_000_000_000
"""Rotated files may share so much time: the queues of a network card are not read in order."""


class _Source(Protocol):
    """One file on its way to the parser."""

    raw: stream.RawFile
    compressed: bool

    def advance(self, parser: Parser, most_bytes: int = ..., /) -> int | None:
        """Read on, about so many bytes at most; 0 at the end, None if nothing more came within 0.2 s."""

    @property
    def left_bytes(self) -> int:
        """How many bytes the parser was given and has not taken."""

    def close(self) -> None:
        """Close the file."""


class _Direct:
    """A file that lies there as it is: the parser reads it itself."""

    compressed = False
    left_bytes = 0

    def __init__(self, raw: stream.RawFile) -> None:
        self.raw = raw

    def advance(self, parser: Parser, most_bytes: int = _STEP_BYTES, /) -> int | None:
        return self.raw.read_by(parser.read, most_bytes)

    def close(self) -> None:
        self.raw.close()


class _Pieces:
    """A pipe or what is decompressed, in pieces that begin where the parser stopped.

    The bytes are read to where a page begins: the kernel copies to an odd address up to seven times slower.
    What the parser left is put just before that.
    """

    def __init__(self, raw: stream.RawFile, pieces: stream.Stream, compressed: bool) -> None:
        self.raw, self.compressed = raw, compressed
        self._stream = pieces
        self._memory = mmap.mmap(-1, _HEAD_BYTES + _CHUNK_BYTES)
        self._view = memoryview(self._memory)
        self._into = self._view[_HEAD_BYTES:]
        self._start = self._end = _HEAD_BYTES

    def advance(self, parser: Parser, most_bytes: int = _CHUNK_BYTES, /) -> int | None:
        count = self._stream.readinto(self._into[:most_bytes])
        if not count:
            return count
        self._end = _HEAD_BYTES + count
        taken = parser.feed(self._view[self._start : self._end])
        if not parser.damaged():
            self._keep(taken)
        return count

    def _keep(self, taken: int) -> None:
        """Put what the parser did not take in front of what is read next."""
        left = self._view[self._start + taken : self._end]
        self._start = _HEAD_BYTES - len(left)
        self._end = _HEAD_BYTES
        self._view[self._start : _HEAD_BYTES] = bytes(left)

    @property
    def left_bytes(self) -> int:
        return self._end - self._start

    def close(self) -> None:
        self._stream.close()


def _source(path: str) -> _Source:
    raw = stream.RawFile(path)
    pieces, compressed = stream.decompressed(raw)
    return _Pieces(raw, pieces, compressed) if compressed or not raw.regular else _Direct(raw)


class FileReading(Reading):
    """The flows of capture files, one file after the other."""

    def __init__(
        self,
        paths: Sequence[str],
        parser: Parser,
        on_progress: Callable[[Progress], None] | None,
        on_connections: Callable[[Any], None] | None,
        starts_ns: Mapping[str, int | None],
        repeated: Sequence[str],
    ) -> None:
        super().__init__(paths, parser, on_progress, on_connections)
        self._starts_ns, self._repeated = starts_ns, tuple(repeated)
        self._overlapping: list[str] = []
        self._next_path = 0
        self._source: _Source | None = None
        self._read_bytes = 0  # of the files that are finished
        sizes = [_size(path) for path in self.paths]
        self._total_bytes = None if None in sizes else sum(size for size in sizes if size is not None)

    def _step(self) -> None:
        if self._stopped or (self._source is None and self._next_path == len(self.paths)):
            self._finish()
        elif self._source is None:
            self._note_overlap(self._next_path)
            self._source = _source(self.paths[self._next_path])
            self._parser.begin_file(self._next_path)
            self._next_path += 1
        else:
            self._read(self._source)

    @property
    def summary(self) -> Summary:
        """What was read so far."""
        return dataclasses.replace(
            super().summary, repeated=self._repeated, overlapping=tuple(self._overlapping)
        )

    def _note_overlap(self, at: int) -> None:
        """Notice a file whose packets belong between those that were read before it, or repeat them."""
        if at == 0:
            return
        before_ns, first_ns = (self._starts_ns[path] for path in self.paths[at - 1 : at + 1])
        last_ns = super().summary.last_ns
        if before_ns is None or first_ns is None or last_ns is None:
            return
        # All of a short capture may lie within the slack.
        slack_ns = min(_OVERLAP_NS, (last_ns - before_ns) // 2)
        if first_ns < last_ns - slack_ns:
            self._overlapping.append(self.paths[at])

    def _where(self) -> tuple[str, int, int | None]:
        current = self._source.raw.read_bytes if self._source is not None else 0
        return self.paths[max(0, self._next_path - 1)], self._read_bytes + current, self._total_bytes

    def _read(self, source: _Source) -> None:
        try:
            count = source.advance(self._parser)
        except stream.errors() as why:
            self._end_file(source, str(why) or type(why).__name__)
            return
        if count == 0 or self._parser.damaged():
            self._end_file(source)

    def _end_file(self, source: _Source, broken: str | None = None) -> None:
        damage = self._parser.end_file(source.left_bytes)
        path = source.raw.path
        self._read_bytes += source.raw.read_bytes
        source.close()
        self._source = None
        if damage is None and broken is None:
            return
        offset, what, _ = damage or (0, "", 0)
        if broken is None and source.compressed and not offset and not source.left_bytes:
            broken = "the compressed file ends early"
        if broken is not None:
            what = broken
        else:
            _refuse_hopeless(path, damage)
        self._damage.append(Damage(path, offset, what))

    def _finish(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
        self._done = not self._parser.finish()


def _size(path: str) -> int | None:
    raw = stream.RawFile(path)
    raw.close()
    return raw.total_bytes


def _first_ns(path: str) -> int | None:
    """The time of a file's first packet; None if it has none, or can be read only once.

    Raises:
        MalformedCapture: it is no capture, which is said before the others are read for hours.
    """
    source = _source(path)
    if not source.raw.regular:
        source.close()
        return None
    parser = new_parser(max_flows=1, rows=False)
    parser.begin_file(0)
    try:
        count = source.advance(parser, _CHUNK_BYTES)
        if parser.damaged() or (not count and not source.compressed):
            _refuse_hopeless(path, parser.end_file(0))
    except stream.errors():
        return None  # reading says what is wrong with it
    finally:
        source.close()
    counts = columns.COUNTS_LAYOUT.unpack(parser.counts())
    return counts[2] if counts[0] else None


def _refuse_hopeless(path: str, damage: tuple[int, str, int] | None) -> None:
    if damage is not None and damage[2]:
        raise MalformedCapture(path, *damage[:2])


def each_once(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files, and those that an earlier name means already (a link, another way to write it)."""
    known: set[tuple[int, int]] = set()
    once: list[str] = []
    repeated: list[str] = []
    for path in paths:
        raw = stream.RawFile(path)
        raw.close()
        (repeated if raw.regular and raw.identity in known else once).append(path)
        known.add(raw.identity)
    return once, repeated


def read_captures(
    paths: Sequence[str | Path],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_connections: Callable[[Any], None] | None = None,
    max_flows: int = MAX_FLOWS,
    ring_bytes: int = RING_BYTES,
    evidence_bytes: int = EVIDENCE_BYTES,
) -> Reading:
    """Every connection with a RST or an ICMP error in these files.

    Args:
        paths: files of ONE vantage (rotated ones are read in the order of their first packets, one that is
            named twice is read once); ``-`` is standard input. Two vantages are two readings.
        on_progress: called about ten times a second, in the thread that iterates.
        on_connections: called with a numpy structured array for up to 16,384 finished connections, reset or
            not, with the fields of :data:`holdfast.watch.capture.columns.CONNECTION`; needs numpy.
        max_flows: how many connections may be open at once; more evict the longest silent of a sample.
        ring_bytes: for the last packets of open connections; less means fewer packets each.
        evidence_bytes: for RSTs and the packets around them, of connections that are closed but may still
            show late packets, or go on; less means less waiting for those.

    Raises:
        UsageError: a file cannot be opened, or its compression needs a library that is not installed.
        MalformedCapture: a file is no capture at all; of several, before any is read, else while iterating.
            What is damaged later in a file is in ``summary.damage``.
    """
    names = [str(path) for path in paths]
    if not names:
        raise UsageError("There is nothing to read: name at least one capture.")
    names, repeated = each_once(names)
    starts_ns = {name: _first_ns(name) for name in names} if len(names) > 1 else {}
    if None not in starts_ns.values():  # else as they were given
        names.sort(key=lambda name: starts_ns.get(name) or 0)
    parser = new_parser(max_flows, ring_bytes, evidence_bytes, rows=on_connections is not None)
    return FileReading(names, parser, on_progress, on_connections, starts_ns, repeated)

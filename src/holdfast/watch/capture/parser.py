"""What a parser of captures does, and which one there is: the compiled one, or the same in Python."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Protocol

MAX_FLOWS = 1_000_000
RING_BYTES = 96 << 20
EVIDENCE_BYTES = 128 << 20


class Parser(Protocol):
    """Bytes of files in, records and rows of :mod:`holdfast.watch.capture.columns` out."""

    def begin_file(self, source: int, /) -> None:
        """Expect a file from its first byte."""

    def feed(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take what is complete; gives how many bytes. The rest must come again, with more behind it."""

    def read(self, fd: int, most_bytes: int, /) -> int:
        """Read a file on from its descriptor and take what is complete, keeping the rest for the next call.

        Gives how many bytes were read: about ``most_bytes`` at most, 0 at the end.
        """

    def damaged(self) -> bool:
        """Whether the file stopped making sense: nothing more of it is taken."""

    def end_file(self, left_bytes: int, /) -> tuple[int, str, int] | None:
        """None, or the offset and kind of the damage, and whether it is no capture at all.

        ``left_bytes``: how many were fed and not taken; those that were read by itself it knows.
        """

    def finish(self) -> bool:
        """Give flows that are open, some at a time; whether there are more."""

    def records(self) -> bytes:
        """Flows with evidence that are complete, since the last call."""

    def rows(self) -> bytes:
        """All flows that are complete, since the last call."""

    def counts(self) -> bytes:
        """What was counted so far."""


def new_parser(
    max_flows: int = MAX_FLOWS,
    ring_bytes: int = RING_BYTES,
    evidence_bytes: int = EVIDENCE_BYTES,
    *,
    rows: bool,
) -> Parser:
    """The fastest parser that this installation has."""
    try:
        from holdfast._native import Capture
    except ImportError:
        from holdfast.watch.capture.portable import Capture as Portable

        return Portable(max_flows, ring_bytes, evidence_bytes, rows)
    return Capture(max_flows, ring_bytes, evidence_bytes, rows)

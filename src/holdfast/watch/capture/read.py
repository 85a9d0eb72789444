"""Reads capture files, one after the other, into flows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.watch.capture.flow import Flow, Progress, Summary


class Reading:
    """The flows of one vantage, one by one; :attr:`summary` is complete when iteration has ended."""

    @property
    def summary(self) -> Summary:
        """What was read so far."""
        raise NotImplementedError

    def stop(self) -> None:
        """Read no further: iteration gives what is open and ends. Safe in a signal handler."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Flow]:
        return self

    def __next__(self) -> Flow:
        raise NotImplementedError


def read_captures(
    paths: Sequence[str | Path],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_connections: Callable[[Any], None] | None = None,
    max_flows: int = 1_000_000,
) -> Reading:
    """Every connection with a RST or an ICMP error in these files.

    Args:
        paths: files of ONE vantage (rotated ones are read in the order of their first packets); ``-`` is
            standard input. Two vantages are two readings.
        on_progress: called about ten times a second, in the thread that iterates.
        on_connections: called with a numpy structured array for up to 65,536 finished connections, reset or
            not, with the fields of :data:`holdfast.watch.capture.columns.CONNECTION`; needs numpy.
        max_flows: how many connections may be open at once; more evict the longest silent of a sample.

    Raises:
        MalformedCapture: a file is no capture at all (damage later in a file is in ``summary.damage``).
        UsageError: a file cannot be opened, or its compression needs a library that is not installed.
    """
    raise NotImplementedError

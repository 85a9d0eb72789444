"""Runs a source of events and the diagnosis together: records come out as connections settle."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from holdfast.events import Event, Reset
from holdfast.watch.diagnose.stories import Stories
from holdfast.watch.select import without_names, without_payload

BUSY_S, IDLE_S = 0.01, 0.1
"""Pause between two looks at the source, after something happened and after nothing did."""


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock, now.

    The best of three readings: whoever waits for a core between two clocks sees them apart.
    """
    best_ns, offset_ns = None, 0
    for _ in range(3):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if best_ns is None or after_ns - before_ns < best_ns:
            best_ns, offset_ns = after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2
    return offset_ns


class Source(Protocol):
    """Where events come from: BPF, tracepoints without BPF, or sock_diag."""

    name: str

    def drain(self) -> Sequence[Event]:
        """What happened since the last call."""

    def lost(self) -> int:
        """Events whose detail was lost so far."""

    def close(self) -> None:
        """Let go of the kernel."""


class Session:
    """One source and its stories. Not for several threads at once; see :class:`Background`.

    Attributes:
        source: the source in use.
    """

    def __init__(
        self,
        source: Source,
        payload: bool = True,
        names: bool = True,
        tap: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        """``payload`` False forgets at once what RSTs carried; ``names`` False also who took part.

        ``tap`` sees every event, after that.
        """
        self.source = source
        self._tap = tap
        self._payload, self._names = payload, names
        self._stories = Stories(platform.node(), wall_offset_ns())
        self._busy = False

    def poll(self) -> list[Reset]:
        """Take in what happened; returns the records that have settled."""
        events = self.source.drain()
        if not self._payload or not self._names:
            events = [without_payload(event) for event in events]
        if not self._names:
            events = [without_names(event) for event in events]
        if self._tap is not None and events:
            self._tap(events)
        # Anew each time: a suspend or a clock that was set changes it.
        self._stories.wall_offset_ns = wall_offset_ns()
        now_ns = time.monotonic_ns()
        told = self._stories.feed(events, now_ns) + self._stories.settle(now_ns)
        self._busy = bool(events or told)
        return told

    def finish(self) -> list[Reset]:
        """The records of everything seen so far, settled or not."""
        return self.poll() + self._stories.flush()

    def pause_s(self) -> float:
        """How long to sleep before the next poll."""
        return BUSY_S if self._busy else IDLE_S

    @property
    def hurried(self) -> int:
        """Connections judged before their neighbours had time to come, for want of room."""
        return self._stories.hurried


class Background:
    """A session in a thread of its own, for those who make resets meanwhile.

    ``on_reset`` is called in that thread with each record.
    """

    def __init__(self, session: Session, on_reset: Callable[[Reset], None]) -> None:
        self.session = session
        self._on_reset = on_reset
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failed is not None and error is None:
            raise self._failed

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.session.pause_s()):
                self._tell(self.session.poll())
            self._tell(self.session.finish())
        except Exception as error:  # noqa: BLE001  raised again by __exit__, in the thread that waits for us
            self._failed = error

    def _tell(self, resets: list[Reset]) -> None:
        for reset in resets:
            self._on_reset(reset)

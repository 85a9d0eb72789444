"""A watch by BPF for tests: records, every event by namespace, and exact totals, with one program load."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from holdfast.events import Endpoint, Event, Kind, Reset
from holdfast.lab.matrix import Records
from holdfast.watch.kernel.programs import HookReport
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.session import Background, Session

T = TypeVar("T")
Pair = tuple[Endpoint, Endpoint]
POLL_S = 0.01
AWAIT_S = 10.0


def await_that(ask: Callable[[], T], good: Callable[[T], bool], wait_s: float = AWAIT_S) -> T:
    """The first answer that is good, or the last one when the time is up: assert it, to see what differs."""
    deadline_s = time.monotonic() + wait_s
    while not good(answer := ask()) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return answer


class SharedSource(KernelSource):
    """The source, drained in one thread and asked for totals in others."""

    def __init__(self, ring_bytes: int | None = None) -> None:
        super().__init__(ring_bytes=ring_bytes)
        self._lock = threading.Lock()

    def drain(self) -> list[Event]:
        """See KernelSource."""
        with self._lock:
            return super().drain()

    def totals(self) -> list[tuple[Event, int]]:
        """See KernelSource."""
        with self._lock:
            return super().totals()


class Watch:
    """What a running watch has seen so far.

    Attributes:
        source: the source in use. records: what it concluded.
    """

    def __init__(self, source: SharedSource) -> None:
        self.source = source
        self.records = Records()
        self._events: list[Event] = []
        self._told: list[Reset] = []

    def add(self, reset: Reset) -> None:
        """Take a record in."""
        self._told.append(reset)
        self.records.add(reset)

    def tap(self, events: Sequence[Event]) -> None:
        """Take events in."""
        self.records.tap(events)
        self._events.extend(events)

    def events(self, netns: int, *kinds: Kind) -> list[Event]:
        """The events of a namespace, of these kinds or of any, in the order they were drained."""
        return [
            event
            for event in tuple(self._events)
            if event.netns == netns and (not kinds or event.kind in kinds)
        ]

    def await_events(self, count: int, netns: int, *kinds: Kind) -> list[Event]:
        """The same, as soon as there are so many."""
        return await_that(lambda: self.events(netns, *kinds), lambda found: len(found) >= count)

    def told(self, *ends: Pair) -> list[Reset]:
        """The records of these connections, seen from either end."""
        both = {*ends, *((peer, local) for local, peer in ends)}
        return [reset for reset in tuple(self._told) if (reset.local, reset.peer) in both]

    def await_told(self, count: int, *ends: Pair) -> list[Reset]:
        """The same, as soon as there are so many."""
        return await_that(lambda: self.told(*ends), lambda found: len(found) >= count)

    def total(self, netns: int, kind: Kind) -> int:
        """How often this happened in a namespace, exactly."""
        return sum(
            times for event, times in self.source.totals() if event.netns == netns and event.kind is kind
        )


@contextmanager
def watching(ring_bytes: int | None = None) -> Iterator[Watch]:
    """A watch that runs in the background."""
    with SharedSource(ring_bytes) as source:
        watch = Watch(source)
        with Background(Session(source, tap=watch.tap), watch.add):
            yield watch


def each_of(hooks: Iterable[HookReport]) -> tuple[Kind, ...]:
    """What one refused connection over loopback makes; fentry tells of no RST that was obeyed apart."""
    packets = any(hook.name == "segment_arrived" and hook.attached for hook in hooks)
    arrived = (Kind.RST_ARRIVED,) if packets else ()
    return (Kind.RESET_SENT, *arrived, Kind.RESET_RECEIVED, Kind.ERROR)

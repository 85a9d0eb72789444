"""Collects events until their neighbours have had time to come, then concludes: pure, time passed in."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from holdfast.events import Endpoint, Event, Kind, Reset
from holdfast.watch.diagnose.conclude import conclude
from holdfast.watch.diagnose.noise import NoiseFilter
from holdfast.watch.diagnose.record import record

SETTLE_NS = 250_000_000
"""Silence on a pair of addresses after which its events are judged."""

LONGEST_NS = 2_000_000_000
"""They are judged after this time even if more keep coming."""

MOST_EVENTS = 256
"""A pair with so many is judged with the drain that brought them: whoever resets from one port over and over
must not have us collect for seconds, nor keep others waiting."""

AT_ONCE = 512
"""So many pairs are judged in one call, the others in the next: what comes meanwhile must not be lost."""

_Pair = tuple[Endpoint, Endpoint]


class _Story:
    __slots__ = ("begun_ns", "events", "last_ns")

    def __init__(self, now_ns: int) -> None:
        self.events: list[Event] = []
        self.begun_ns = self.last_ns = now_ns


class Stories:
    """Joins events of one connection, seen from both ends or only one, into records.

    Args:
        host: name put into the records.
        wall_offset_ns: wall clock minus monotonic clock; set it anew when that changes.
        capacity: pairs of addresses waiting at once; beyond it the oldest is judged early.
    """

    def __init__(self, host: str, wall_offset_ns: int, capacity: int = 4096) -> None:
        self._host = host
        self.wall_offset_ns = wall_offset_ns
        self._capacity = capacity
        self._waiting: OrderedDict[_Pair, _Story] = OrderedDict()
        self._reset: OrderedDict[int, None] = OrderedDict()
        self._noise = NoiseFilter()
        self.hurried = 0
        """Pairs judged before their time, for want of room or because they had too many events."""

    def feed(self, events: Iterable[Event], now_ns: int) -> list[Reset]:
        """Take events in; what comes out was pushed out for want of room, or has :data:`MOST_EVENTS`."""
        early: list[Reset] = []
        full: dict[_Pair, None] = {}
        for event in events:
            if self._repeats(event):
                continue
            pair = (event.local, event.peer) if event.local <= event.peer else (event.peer, event.local)
            story = self._waiting.get(pair)
            if story is None:
                story = self._waiting[pair] = _Story(now_ns)
                if len(self._waiting) > self._capacity:
                    self.hurried += 1
                    early += self._judge(self._waiting.popitem(last=False)[1])
            story.events.append(event)
            story.last_ns = now_ns
            if len(story.events) >= MOST_EVENTS:
                full[pair] = None
        for pair in full:
            if pair in self._waiting:
                self.hurried += 1
                early += self._judge(self._waiting.pop(pair))
        return early

    def _repeats(self, event: Event) -> bool:
        """Whether this is the error of a reset that has its own event.

        tcp_disconnect() has wiped the peer's port by the time the error is reported, so the addresses
        would not join the two; the cookie does.
        """
        if not event.cookie:
            return False
        if event.kind is Kind.ERROR:
            return event.cookie in self._reset
        if event.kind in (Kind.RESET_SENT, Kind.RESET_RECEIVED) and event.state != "LISTEN":
            self._reset[event.cookie] = None
            if len(self._reset) > self._capacity:
                self._reset.popitem(last=False)
        return False

    def settle(self, now_ns: int) -> list[Reset]:
        """Records of the pairs that have been silent long enough: the sender's before the receiver's.

        At most :data:`AT_ONCE` pairs: call it again soon while it tells something.
        """
        due = (
            pair
            for pair, story in self._waiting.items()
            if now_ns - story.last_ns >= SETTLE_NS or now_ns - story.begun_ns >= LONGEST_NS
        )
        return [
            reset for pair in list(islice(due, AT_ONCE)) for reset in self._judge(self._waiting.pop(pair))
        ]

    def flush(self) -> list[Reset]:
        """Records of everything that still waits."""
        stories = list(self._waiting.values())
        self._waiting.clear()
        return [reset for story in stories for reset in self._judge(story)]

    def _judge(self, story: _Story) -> list[Reset]:
        return [
            record(one, self._host, self.wall_offset_ns, self._noise.noise_class(one))
            for one in conclude(story.events)
        ]

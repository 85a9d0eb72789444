# SPDX-License-Identifier: Apache-2.0
"""When a transport's timer is due: soon enough for whatever may be due, and seldom otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.hold.drivers import wire as module
from holdfast.hold.drivers.wire import Wire
from holdfast.hold.session.frames import Buffer
from holdfast.hold.session.terms import ACK_DELAY_S


class Quiet:
    """A link with nothing to send; it has to be looked at so long after it last was asked to send."""

    over = more = up = False

    def __init__(self, after_s: float) -> None:
        self.after_s, self.due_s, self.asked, self.looked = after_s, 0.0, 0, 0

    def pull(self, room: int, now_s: float) -> list[Buffer]:
        self.due_s = now_s + self.after_s
        return []

    def next_s(self) -> float:
        self.asked += 1
        return self.due_s

    def look(self, now_s: float) -> None:
        self.looked += 1

    def lost(self, now_s: float) -> None:
        """The wire is given up."""


class Nowhere(asyncio.Transport):
    """A transport with nothing below it."""

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass


class Clock:
    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(module, "now_s", lambda: found.now_s)
    yield found


def run(work: Callable[[Wire, Quiet], Any], after_s: float = 30.0) -> None:
    async def inside() -> None:
        wire, link = Wire(lambda wire: None), Quiet(after_s)
        wire.connection_made(Nowhere())
        wire.carry(link)  # type: ignore[arg-type]  # as much of a link as a wire needs
        work(wire, link)
        wire.give_up()

    asyncio.run(inside())


def test_an_idle_transports_timer_moves_along(clock: Clock) -> None:
    """Else it would wake the process between any two PINGs, and find nothing to do."""

    def work(wire: Wire, link: Quiet) -> None:
        wire.flush()
        assert wire._due_s == 1030
        clock.now_s = 1027
        wire.flush()
        assert wire._due_s == 1057

    run(work)


def test_a_busy_transport_asks_once_for_many_flushes(clock: Clock) -> None:
    def work(wire: Wire, link: Quiet) -> None:
        for _ in range(100):
            wire.flush()
            clock.now_s += 0.0001
        assert link.asked == 1
        assert 1000 < wire._due_s <= clock.now_s + ACK_DELAY_S  # nothing can be due before

    run(work)


def test_a_timer_that_is_early_is_set_again(clock: Clock) -> None:
    def work(wire: Wire, link: Quiet) -> None:
        wire.flush()
        clock.now_s = 1000.5
        wire.flush()
        assert wire._due_s == 1030  # not worth the while
        clock.now_s = 1030
        wire._look()
        assert link.looked == 0 and wire._due_s == 1030.5
        clock.now_s = 1030.5
        wire._look()
        assert link.looked == 1

    run(work)


def test_what_is_due_sooner_sets_the_timer_back(clock: Clock) -> None:
    def work(wire: Wire, link: Quiet) -> None:
        wire.flush()
        clock.now_s = 1010
        link.after_s = 2
        wire.flush()
        assert wire._due_s == 1012

    run(work)

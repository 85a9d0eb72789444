"""Events in, records out: alone, and in a thread beside those who make resets."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from datetime import datetime

import pytest
from unit.watch.samples import RST, SERVER, received, segment, sent

from holdfast.events import Endpoint, Event, Reset
from holdfast.watch.session import BUSY_S, IDLE_S, Background, Session

WAIT_S = 10.0


class Source:
    """Gives one batch of events after the other; an exception among them is raised."""

    name = "test"

    def __init__(self, *batches: Sequence[Event] | Exception) -> None:
        self.batches = list(batches)
        self.empty = threading.Event()

    def drain(self) -> Sequence[Event]:
        if not self.batches:
            self.empty.set()
            return []
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def lost(self) -> int:
        return 0

    def close(self) -> None:
        pass


def one_now(port: int = 51000) -> Event:
    """A reset that happened just now."""
    return sent("TCP_ABORT_ON_CLOSE", mono_ns=time.monotonic_ns(), peer=Endpoint("10.2.0.2", port))


def ports(resets: Sequence[Reset]) -> list[int]:
    return sorted(reset.peer.port for reset in resets)


def test_finish_tells_what_has_not_settled() -> None:
    session = Session(Source([one_now()]))
    assert (ports(session.poll()), ports(session.finish())) == ([], [51000])


def test_finish_takes_in_what_came_last() -> None:
    assert ports(Session(Source([one_now(1)])).finish()) == [1]


def test_nothing_is_told_twice() -> None:
    session = Session(Source([one_now()]))
    session.finish()
    assert session.finish() == []


def test_a_record_comes_by_itself_once_its_connection_is_silent() -> None:
    session = Session(Source([one_now()]))
    deadline_s = time.monotonic() + WAIT_S
    told = session.poll()
    while not told and time.monotonic() < deadline_s:
        time.sleep(session.pause_s())
        told = session.poll()
    assert ports(told) == [51000]


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_a_clock_that_was_set_meanwhile_is_followed(step_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a suspend, in which the monotonic clock stands still."""
    session = Session(Source([one_now(1)], [one_now(2)]))
    [before] = [datetime.fromisoformat(one.time) for one in session.finish()]
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + step_s * 10**9)
    [after] = [datetime.fromisoformat(one.time) for one in session.finish()]
    assert abs((after - before).total_seconds() - step_s) < WAIT_S


def test_it_looks_often_while_something_happens() -> None:
    session = Session(Source([one_now()], []))
    session.poll()
    busy = session.pause_s()
    session.poll()
    assert (busy, session.pause_s()) == (BUSY_S, IDLE_S)


def with_text() -> Event:
    rst = dataclasses.replace(segment(RST, data=6), payload=b"secret")
    return received(rst, opener=SERVER)


@pytest.mark.parametrize(
    ("options", "payload", "comm"),
    [
        ({}, b"secret", "nginx"),
        ({"payload": False}, b"", "nginx"),
        ({"names": False}, b"", "process"),
    ],
)
def test_what_is_not_wanted_is_forgotten_at_once(options: dict[str, bool], payload: bytes, comm: str) -> None:
    tapped: list[Event] = []
    Session(Source([with_text()]), **options, tap=tapped.extend).poll()  # type: ignore[arg-type]
    (event,) = tapped
    assert event.segment is not None
    assert event.opener is not None
    assert (event.segment.payload, event.opener.comm) == (payload, comm)


def test_the_tap_is_called_for_events_only() -> None:
    batches: list[Sequence[Event]] = []
    session = Session(Source([], [one_now()], []), tap=batches.append)
    for _ in range(3):
        session.poll()
    assert [len(batch) for batch in batches] == [1]


def test_a_background_tells_of_all_that_came_while_it_ran() -> None:
    told: list[Reset] = []
    source = Source([one_now(1)], [one_now(2)], [one_now(3)])
    with Background(Session(source), told.append):
        assert source.empty.wait(WAIT_S)
    assert ports(told) == [1, 2, 3]


class Broken(Exception):
    """What a source raises here."""


def test_an_error_of_the_source_is_raised_where_the_background_ends() -> None:
    background = Background(Session(Source(Broken("lost the ring"))), lambda reset: None)
    with pytest.raises(Broken, match="lost the ring"), background:
        pass


def test_an_error_of_the_receiver_is_raised_too() -> None:
    def refuse(reset: Reset) -> None:
        raise Broken("full")

    with pytest.raises(Broken, match="full"), Background(Session(Source([one_now()])), refuse):
        pass


def test_an_error_in_the_block_is_not_hidden_by_one_of_the_source() -> None:
    with pytest.raises(ValueError, match="mine"), Background(Session(Source(Broken())), lambda reset: None):
        raise ValueError("mine")

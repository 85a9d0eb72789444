# SPDX-License-Identifier: Apache-2.0
"""What a session has to say on a transport: in which order, how much at a time, and each thing once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.pair import TERMS

from holdfast.hold.session import outbox
from holdfast.hold.session.allowance import Allowance
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import ACK, ASK, Frame, Kind, Parser
from holdfast.hold.session.keys import Seal
from holdfast.hold.session.outbox import Outbox
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.session_pb2 import Reset

ROOM = 1 << 16


class Saying:
    """A session that is open, and the frames that it puts on a transport."""

    def __init__(self, limit: int = 4000, sealed: bool = False) -> None:
        self.session = Session(replace(TERMS, frame_bytes=500), Memory(1 << 22), 4096)
        self.session.attach(None, 7, 1, None)  # type: ignore[arg-type]  # carried by whatever
        self.session.peer_frame_bytes = 600
        self.session.out.limit = limit
        self.outbox, self.allowance = Outbox(), Allowance(1 << 20, 10_000)
        self.outbox.seal = Seal(bytes(32)) if sealed else None
        self._parser = Parser()
        self._parser.open = Seal(bytes(32)).open if sealed else None

    def say(self, room: int = ROOM) -> tuple[int, list[Frame]]:
        size = self.outbox.put_all(7, self.session, room, self.allowance)
        self._parser.feed(b"".join(self.outbox.take()))
        frames = list(iter(self._parser.next, None))
        assert {frame.handle for frame in frames} <= {7}
        return size, [frame._replace(payload=bytes(frame.payload)) for frame in frames]

    def sizes(self, room: int = ROOM) -> list[tuple[int, int]]:
        """Where the DATA belongs that is said, and how much it is."""
        size, frames = self.say(room)
        data = [(frame.offset, len(frame.payload)) for frame in frames if frame.kind == Kind.DATA]
        assert size == sum(length for _, length in data)
        return data


@pytest.mark.parametrize("sealed", [False, True])
def test_data_goes_in_frames_that_both_ends_take(sealed: bool) -> None:
    saying = Saying(sealed=sealed)
    saying.session.write(bytes(1100))
    assert saying.sizes() == [(0, 500), (500, 500), (1000, 100)]
    assert saying.sizes() == [] and saying.allowance.went == 1100
    saying.session.peer_frame_bytes = 100
    saying.session.write(bytes(150))
    assert saying.sizes() == [(1100, 100), (1200, 50)]


def test_no_more_goes_than_there_is_room_credit_and_allowance_for() -> None:
    saying = Saying(limit=300)
    saying.session.write(bytes(4000))
    assert saying.sizes(120) == [(0, 120)]
    assert saying.sizes() == [(120, 180)]
    saying.session.told(0, 4000)
    saying.allowance = Allowance(1 << 20, 70)
    assert saying.sizes() == [(300, 70)] and saying.sizes() == []
    saying.allowance.told(70, 170)
    assert saying.sizes(-1000) == []
    assert saying.sizes() == [(370, 100)]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_question_follows_the_data_that_it_is_about(sealed: bool) -> None:
    saying = Saying(sealed=sealed)
    saying.session.write(bytes(600))
    saying.session.ask()
    assert [frame.kind for frame in saying.say(500)[1]] == [Kind.DATA]
    assert [(frame.kind, frame.flags) for frame in saying.say()[1]] == [(Kind.DATA, 0), (ACK, ASK)]
    assert saying.say() == (0, []), "it was asked"


def test_the_end_follows_all_data_once() -> None:
    saying = Saying()
    saying.session.write(bytes(600))
    saying.session.finish()
    assert [frame.kind for frame in saying.say(500)[1]] == [Kind.DATA]
    size, (_, end) = saying.say()
    assert (size, end.kind, end.payload) == (100, Kind.FIN, (600).to_bytes(8, "big"))
    assert saying.say() == (0, [])


@pytest.mark.parametrize("code", [0, 77])
def test_last_words_are_said_once(code: int) -> None:
    saying = Saying()
    saying.session.write(b"in vain")
    saying.session.abort(code, 0.0)
    assert saying.session.state is State.RESETTING
    for expected in ([(Kind.RESET, Reset(code=code).SerializeToString())], []):
        size, frames = saying.say()
        assert (size, [(frame.kind, frame.payload) for frame in frames]) == (0, expected)
    saying = Saying()
    saying.session.close(0.0)
    saying.say()
    saying.session.fin_arrived(0)
    saying.session.told(1, 0)
    assert saying.session.state is State.CLOSING
    assert [frame.kind for frame in saying.say()[1]] == [Kind.CLOSE]
    assert saying.say() == (0, [])


def test_a_session_that_has_ended_says_nothing() -> None:
    saying = Saying()
    saying.session.write(b"in vain")
    saying.session.ask()
    saying.session.abort(77, 0.0)
    saying.session.event(Event.RESET_CONFIRMED)
    assert saying.session.ended and saying.say() == (0, [])


def test_what_is_reserved_in_a_header_is_zero() -> None:
    box = Outbox()
    box.put(Kind.PING, 0, b"")
    box.put_data(7, 0, [b"data"], 4)
    ping, header, _ = box.take()
    assert ping[2:4] == header[2:4] == bytes(2)


def test_who_asks_and_does_not_read_is_answered_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_ANSWERS", 3)
    box = Outbox()
    for _ in range(3):
        box.answer(Kind.PONG, 0, b"")
    with pytest.raises(Violation) as caught:
        box.answer(Kind.PONG, 0, b"")
    assert caught.value.code is Code.UNHEARD and len(box.take()) == 3
    box.answer(Kind.PONG, 0, b"")
    assert len(box.take()) == 1 and box.take() == []

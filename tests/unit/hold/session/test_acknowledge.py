"""When an end says what it has: in time, along with data, and at once when asked."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from simulation.pair import Joined, Pair

from holdfast.hold.session.frames import ACK, ASK, Kind, Parser
from holdfast.hold.session.terms import ACK_DELAY_S


def opened() -> tuple[Pair, Joined]:
    """Frames that a test can read, and nothing left to say."""
    pair = Pair(sealed=False)
    joined = pair.opened()
    joined.settle()
    return pair, joined


def said(joined: Joined, side: int) -> list[tuple[int, int]]:
    """Kind and flags of all that a side has said since this was last asked."""
    data, joined.said[side] = joined.said[side], b""
    parser, frames = Parser(), []
    parser.feed(data)
    while (frame := parser.next()) is not None:
        frames.append((frame.kind, frame.flags))
    return frames


def test_what_came_is_acknowledged_in_time_without_being_asked() -> None:
    pair, joined = opened()
    pair.client.write(b"data")
    joined.forth()
    assert joined.back() == 0
    pair.now_s += ACK_DELAY_S
    joined.far.look(pair.now_s)
    joined.back()
    assert pair.client.out.all_confirmed


@pytest.mark.parametrize("sealed", [True, False])
def test_who_asks_is_told_at_once(sealed: bool) -> None:
    pair = Pair(sealed=sealed)
    joined = pair.opened()
    joined.settle()
    pair.client.write(b"data")
    pair.client.ask()
    assert joined.forth() and joined.back()
    assert pair.client.out.all_confirmed
    assert joined.forth() == joined.back() == 0, "an answer asks for nothing"


def test_it_asks_once_and_behind_the_last_byte() -> None:
    pair, joined = opened()
    pair.client.write(bytes(600))  # two frames
    pair.client.ask()
    pair.client.ask()
    said(joined, 0)
    joined.settle()
    pair.client.ask()
    assert joined.forth() == 0, "nothing was written since"
    assert said(joined, 0) == [(Kind.DATA, 0), (Kind.DATA, 0), (ACK, ASK)]


def test_it_asks_only_when_credit_has_let_everything_out() -> None:
    pair, joined = opened()
    window = pair.server.window
    assert pair.client.write(bytes(window)) == window
    joined.settle()
    pair.client.write(bytes(100))
    pair.client.ask()
    said(joined, 0)
    joined.settle()
    assert (ACK, ASK) not in said(joined, 0)
    assert pair.server.read(1 << 16) == bytes(window)
    joined.settle()
    assert (ACK, ASK) in said(joined, 0) and pair.client.out.all_confirmed


def test_a_question_that_was_lost_is_asked_on_the_next_transport() -> None:
    pair, joined = opened()
    pair.client.write(b"data")
    pair.client.ask()
    joined.forth(0)
    joined.cut()
    after = pair.join()
    after.settle()
    assert pair.client.out.all_confirmed
    assert (ACK, ASK) in said(after, 0)


def test_a_reply_confirms_what_it_replies_to() -> None:
    pair, joined = opened()
    pair.client.write(b"question")
    joined.forth()
    pair.server.write(b"answer")
    joined.back()
    assert said(joined, 1)[-2:] == [(ACK, 0), (Kind.DATA, 0)] and pair.client.out.all_confirmed

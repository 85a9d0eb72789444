# SPDX-License-Identifier: Apache-2.0
"""Many sessions on one transport: each has its credit, the transport has its own, and no byte is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.pair import TERMS, Joined, Pair
from simulation.shared import Shared

from holdfast.hold.drivers.policy import SessionPolicy
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import DATA_HEADER, PAIR, Kind, header
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Terms

SMALL = replace(TERMS, transport_bytes=1000)


def opened(pair: Pair, count: int) -> tuple[Joined, list[Session]]:
    """A transport with so many sessions."""
    joined, sessions = Joined(pair, None), [pair.session(SMALL) for _ in range(count)]
    for session in sessions:
        joined.near.open(session, pair.now_s)
    joined.settle()
    return joined, sessions


def test_no_byte_is_lost_and_no_more_waits_than_was_allowed() -> None:
    worlds = [Shared(seed).run() for seed in range(200)]
    assert sum(world.resumes for world in worlds) > 200
    assert sum(world.waited for world in worlds) > 1000


def test_a_transport_brings_no_more_than_its_own_credit() -> None:
    pair = Pair(terms=SMALL)
    joined, sessions = opened(pair, 3)
    for session in sessions:
        session.write(b"x" * 900)
    joined.settle()
    waiting = [session.into.held_bytes for session in pair.met]
    assert sum(waiting) == 1000 and sum(one.out.sendable() for one in sessions) == 1700


def test_what_is_taken_is_granted_again_to_whichever_session() -> None:
    """Each reads less than a quarter of its own window, so only the transport has something to grant."""
    pair = Pair(terms=SMALL)
    joined, sessions = opened(pair, 3)
    for session in sessions:
        session.write(b"x" * 900)
        session.finish()
    joined.settle()
    got = 0
    for _ in range(200):
        for session in pair.met:
            got += len(session.read(10))
            if session.ack_now:  # the driver sends on that alone
                joined.settle()
    assert got == 2700


@pytest.mark.parametrize("window_bytes", [4 << 20, 32 << 20])
def test_a_transport_takes_what_its_largest_session_may(window_bytes: int) -> None:
    """Unless it was told otherwise: a session's window would be promised in vain."""
    for terms in (Terms(window_bytes=window_bytes), replace(Terms(), window_bytes=window_bytes),
                  SessionPolicy(window_bytes=window_bytes).terms()):  # fmt: skip
        assert terms.credit_bytes == max(16 << 20, window_bytes)
        pair = Pair(terms=terms)
        assert pair.opened().near._allowance.limit == terms.credit_bytes
    assert replace(terms, transport_bytes=1000).credit_bytes == 1000


def test_sessions_take_turns_where_there_is_little_room() -> None:
    """One that always has something to say must not keep the others from saying anything."""
    pair = Pair(sealed=False)
    joined, sessions = opened(pair, 3)
    for session in sessions:
        assert session.write(b"x" * 600) == 600
    for _ in range(3):
        joined.far.receive(b"".join(joined.near.pull(200, pair.now_s)), pair.now_s)
    assert [session.into.held_bytes for session in pair.met] == [200, 200, 200]


def test_more_than_was_allowed_ends_the_transport() -> None:
    pair = Pair(sealed=False, terms=SMALL)
    joined, _ = opened(pair, 2)
    for handle in (1, 2):
        frame = DATA_HEADER.pack(Kind.DATA, 0, 0, handle, 8 + 500, 0) + b"x" * 500
        joined.far.receive(frame, pair.now_s)
    with pytest.raises(Violation) as caught:
        joined.far.receive(DATA_HEADER.pack(Kind.DATA, 0, 0, 1, 8 + 1, 500) + b"x", pair.now_s)
    assert caught.value.code is Code.OVER_CREDIT and joined.far.over


def test_what_was_never_sent_cannot_be_confirmed() -> None:
    pair = Pair(sealed=False, terms=SMALL)
    joined, _ = opened(pair, 1)
    with pytest.raises(Violation) as caught:
        joined.near.receive(header(Kind.ACK, 0, PAIR.size) + PAIR.pack(1, 5000), pair.now_s)
    assert caught.value.code is Code.BAD_ACK


def test_a_handle_is_never_used_twice() -> None:
    pair = Pair(sealed=False)
    joined = pair.opened()
    again = Pair(seed=5, sealed=False).join()
    with pytest.raises(Violation) as caught:
        joined.far.receive(b"".join(again.near.pull(1 << 16, pair.now_s)), pair.now_s)
    assert caught.value.code is Code.OUT_OF_PLACE


def test_a_session_that_is_resumed_where_it_is_leaves_its_handle() -> None:
    """A handle stands for one epoch: what comes on the one before is dropped."""
    pair = Pair(sealed=False)
    joined = pair.opened()
    joined.near.open(pair.client, pair.now_s)
    joined.settle()
    assert (pair.server.epoch, pair.server.handle) == (2, 2)
    assert (joined.near.changed(), joined.far.changed()) == ([pair.client], [pair.server])
    joined.far.receive(DATA_HEADER.pack(Kind.DATA, 0, 0, 1, 8 + 3, 0) + b"old", pair.now_s)
    assert pair.server.into.next == 0
    assert pair.client.write(b"new") == 3
    joined.settle()
    assert pair.server.read(9) == b"new"
    pair.client.abort(Code.ABORTED, pair.now_s)
    joined.settle()
    assert joined.near.over and joined.far.over, "it was the last"


def test_a_session_that_is_reset_leaves_the_others_alone() -> None:
    pair = Pair(terms=SMALL)
    joined, sessions = opened(pair, 3)
    sessions[1].write(b"y" * 900)
    joined.settle()
    sessions[1].abort(Code.ABORTED, pair.now_s)
    joined.settle()
    assert [session.state for session in sessions] == [State.OPEN, State.RESET, State.OPEN]
    # What waited of it holds up nobody: the others have the whole transport.
    sessions[0].write(b"z" * 1000)
    joined.settle()
    assert pair.met[0].into.held_bytes == 1000

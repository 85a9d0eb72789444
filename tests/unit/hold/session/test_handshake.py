# SPDX-License-Identifier: Apache-2.0
"""Handshakes, byte by byte: what is lost changes nothing, what is played back does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.pair import TERMS, Pair

from holdfast.hold.heartbeat import Life
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import Kind, header
from holdfast.hold.session.states import State
from holdfast.hold.wire.session_pb2 import Welcome

BOTH = pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])


def resume_ok_bytes(sealed: bool) -> int:
    """How many bytes the server answers to a RESUME."""
    pair = Pair(sealed=sealed)
    pair.opened().cut()
    second = pair.join()
    second.forth()
    return second.back()


@BOTH
def test_a_session_opens_in_three_flights(sealed: bool) -> None:
    pair = Pair(sealed=sealed)
    joined = pair.join()
    joined.forth()
    joined.back()
    assert pair.met == [] and pair.client.state is State.OPENING
    joined.forth()
    assert pair.server.state is State.OPEN
    joined.back()
    assert pair.client.state is State.OPEN
    assert pair.client.id == pair.server.id and pair.client.key == pair.server.key


@BOTH
def test_nothing_is_written_before_the_server_has_the_session(sealed: bool) -> None:
    pair = Pair(sealed=sealed)
    pair.client.write(b"early")
    joined = pair.join()
    joined.forth()
    joined.back()
    joined.forth()
    assert pair.server.into.next == 0
    joined.settle()
    assert pair.server.read(100) == b"early"


@BOTH
def test_resume_ok_may_be_lost_at_every_byte_twice_running(sealed: bool) -> None:
    """The server keeps the key of before until the client shows the next one."""
    size = resume_ok_bytes(sealed)
    assert size > 150
    for first in range(size + 1):
        for second in (first, size - first, size):
            pair = Pair(sealed=sealed)
            pair.opened().cut()
            pair.client.write(b"from the client")
            pair.server.write(b"from the server")
            for lost_at in (first, second):
                again = pair.join()
                again.forth()
                again.back(lost_at)
                again.cut()  # before the confirmation, if there was one, went out
            pair.opened().settle()
            assert pair.server.read(100) == b"from the client", (first, second)
            assert pair.client.read(100) == b"from the server", (first, second)
            assert pair.client.generation in (pair.server.generation, pair.server.generation + 1)


@BOTH
def test_a_confirmation_may_be_lost_at_every_byte(sealed: bool) -> None:
    for lost_at in range(80):
        pair = Pair(sealed=sealed)
        pair.opened().cut()
        pair.client.write(b"x" * 10)
        again = pair.join()
        again.forth()
        again.back()
        again.forth(lost_at)
        again.cut()
        pair.opened().settle()
        assert pair.server.read(100) == b"x" * 10, lost_at


@BOTH
def test_a_first_flight_that_comes_again_does_nothing(sealed: bool) -> None:
    pair = Pair(sealed=sealed)
    first = pair.opened()
    first.cut()
    second = pair.join()
    second.settle()
    before = (pair.server.epoch, pair.server.generation, pair.server.link, pair.server.into.next)
    for flight in (first.said[0], second.said[0]):
        replayed = pair.join()
        replayed.near.pull(1 << 16, pair.now_s)
        try:
            replayed.far.receive(flight, pair.now_s)
        except Violation as error:
            assert error.code in (Code.BAD_PROOF, Code.BAD_SEAL)
        replayed.far.lost(pair.now_s)
    assert (pair.server.epoch, pair.server.generation, pair.server.link, pair.server.into.next) == before
    assert len(pair.met) == 1
    pair.client.write(b"still")
    second.settle()
    assert pair.server.read(10) == b"still"


def test_the_older_transport_is_released_only_when_the_newer_is_proven() -> None:
    pair = Pair()
    old = pair.opened()
    new = pair.join()
    new.forth()
    new.back()
    assert pair.server.link is old.far and not old.far.over
    new.forth()
    assert pair.server.link is new.far and old.far.over


@pytest.mark.parametrize("wrong", ["another instance", "an old epoch"])
def test_an_offer_that_makes_no_sense_is_not_confirmed(wrong: str) -> None:
    """It is proven, so that only a mistake of the server's or a restored snapshot can have made it."""
    pair = Pair()
    pair.opened().cut()
    pair.opened().cut()
    if wrong == "another instance":
        pair.host.instance_id = bytes(16)
    else:
        pair.server.epoch = pair.server._offered = 1
    joined = pair.join()
    before = (pair.client.generation, pair.client.epoch)
    with pytest.raises(Violation, match=wrong):
        joined.settle()
    assert (pair.client.generation, pair.client.epoch, pair.client.link) == (*before, None)


@BOTH
@pytest.mark.parametrize("sizes", [(64, 512), (512, 64)])
def test_neither_end_sends_larger_frames_than_the_other_takes(sealed: bool, sizes: tuple[int, int]) -> None:
    pair = Pair(sealed=sealed, terms=replace(TERMS, frame_bytes=sizes[1]))
    pair.client = pair.session(replace(TERMS, frame_bytes=sizes[0]))
    for _ in range(2):  # a resume does not say it again
        joined = pair.opened()
        pair.client.write(b"x" * 400)
        pair.server.write(b"y" * 400)
        joined.settle()
        assert (pair.server.read(400), pair.client.read(400)) == (b"x" * 400, b"y" * 400)


def test_both_ends_keep_a_session_for_the_smaller_of_their_times() -> None:
    for ours, theirs in ((3.0, 7.0), (7.0, 3.0)):
        pair = Pair(terms=replace(TERMS, keep_s=theirs))
        pair.client = pair.session(replace(TERMS, keep_s=ours))
        pair.opened()
        assert (pair.client.keep_s, pair.server.keep_s) == (3.0, 3.0)


def test_a_version_that_nobody_asked_for_is_refused() -> None:
    pair = Pair(sealed=False)
    joined = pair.join()
    joined.near.pull(1 << 16, pair.now_s)
    offer = Welcome(
        version=2, nonce=bytes(32), public_key=bytes(32), instance_id=bytes(16), session_id=bytes(16)
    ).SerializeToString()
    with pytest.raises(Violation, match="version 2"):
        joined.near.receive(header(Kind.WELCOME, 1, len(offer)) + offer, pair.now_s)


def test_a_session_that_was_lost_on_another_transport_says_no_more_on_this_one() -> None:
    pair = Pair()
    old = pair.opened()
    assert pair.client.write(b"never") == 5
    pair.client.finish()
    old.near.life = Life.SUSPECT
    pair.host = Pair(seed=2).host
    new = pair.join()
    new.settle()
    assert pair.client.state is State.LOST and pair.client.link is old.near
    assert old.near.pull(1 << 16, pair.now_s) == []


@BOTH
def test_a_session_that_ended_meanwhile_is_not_taken_back(sealed: bool) -> None:
    """Its time was up, or its handler gave it up, while the offer and the confirmation were on their way."""
    pair = Pair(sealed=sealed)
    pair.opened().cut()
    joined = pair.join()
    joined.forth()
    joined.back()
    pair.server.look(pair.now_s + pair.server.keep_s)
    assert pair.server.state is State.LOST
    with pytest.raises(Violation) as caught:
        joined.forth()
    assert caught.value.code is Code.SUPERSEDED and joined.far.over
    assert pair.server.state is State.LOST and pair.server.link is None


def test_an_old_confirmation_loses_against_a_newer_one() -> None:
    pair = Pair()
    pair.opened().cut()
    late = pair.join()
    late.forth()
    late.back()
    held = b"".join(late.near.pull(1 << 16, pair.now_s))
    late.near.lost(pair.now_s)
    newer = pair.opened()
    with pytest.raises(Violation, match="newer transport"):
        late.far.receive(held, pair.now_s)
    assert pair.server.link is newer.far


@BOTH
@pytest.mark.parametrize("resuming", [False, True])
def test_a_session_that_has_ended_is_not_confirmed(sealed: bool, resuming: bool) -> None:
    """Its application left, or its time was up, while the offer was on its way."""
    pair = Pair(sealed=sealed)
    if resuming:
        pair.opened().cut()
    joined = pair.join()
    joined.forth()
    if resuming:
        pair.client.look(pair.now_s + pair.client.keep_s)
    else:
        pair.client.abort(1, pair.now_s)
    assert pair.client.ended
    met = len(pair.met)
    with pytest.raises(Violation) as caught:
        joined.back()
    assert caught.value.code is Code.SUPERSEDED
    assert joined.near.pull(1 << 16, pair.now_s) == [] and len(pair.met) == met


def test_many_sessions_share_a_transport() -> None:
    pair = Pair()
    joined = pair.opened()
    others = [pair.session() for _ in range(5)]
    for other in others:
        joined.near.open(other, pair.now_s)
    joined.settle()
    assert len(pair.met) == 6
    for number, other in enumerate(others):
        other.write(b"number %d" % number)
    joined.settle()
    told = {session.id: session.read(100) for session in pair.met}
    assert [told[other.id] for other in others] == [b"number %d" % number for number in range(5)]
    joined.cut()
    again = pair.join()
    for other in others:
        again.near.open(other, pair.now_s)
    again.settle()
    assert {session.state for session in pair.met} == {State.OPEN}

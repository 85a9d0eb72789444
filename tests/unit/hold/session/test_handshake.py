# SPDX-License-Identifier: Apache-2.0
"""Handshakes, byte by byte: what is lost changes nothing, what is played back does nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation.pair import TERMS, Pair

from holdfast.hold.heartbeat import Life
from holdfast.hold.session import initiator
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Why
from holdfast.hold.session.frames import Kind, header
from holdfast.hold.session.host import Host
from holdfast.hold.session.responder import Responder
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.session_pb2 import BUSY, DRAINING, EXPIRED, GAP, STRANGER, UNKNOWN, VERSION, Welcome

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


@pytest.mark.parametrize("life", [Life.ALIVE, Life.SUSPECT])
def test_another_servers_refusal_does_not_end_what_is_carried_well(life: Life) -> None:
    """Behind a load balancer a second transport may lead elsewhere."""
    pair = Pair()
    old = pair.opened()
    old.near.life = life
    pair.host = Host(TERMS, Memory(1 << 22), b"another process".ljust(48))
    pair.join().settle()
    if life is Life.SUSPECT:  # or the server was restarted, and the transport has not noticed yet
        assert pair.client.why is Why.RESTARTED
        return
    pair.client.write(b"still here")
    old.settle()
    assert pair.server.read(20) == b"still here"
    old.cut()
    pair.join().settle()
    assert pair.client.why is Why.RESTARTED


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


@pytest.mark.parametrize("restarted", [False, True])
def test_a_busy_server_is_asked_again_unless_it_has_forgotten_the_session(
    monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    pair = Pair()
    pair.opened().cut()
    if restarted:
        pair.host = Pair(seed=2).host
    monkeypatch.setattr(Responder, "_resume", lambda self, *_: self._refuse(BUSY))
    denied = pair.opened().near.denied
    assert denied is not None and (denied.reason, denied.retry_after_s) == (BUSY, 1)
    assert (pair.client.state, pair.client.why) == (
        (State.LOST, Why.RESTARTED) if restarted else (State.SUSPENDED, None)
    )


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


@pytest.mark.parametrize(
    ("reason", "why"),
    [(EXPIRED, Why.EXPIRED), (GAP, Why.GAP), (VERSION, Why.REFUSED), (STRANGER, Why.STRANGER),
     (99, Why.REFUSED), (BUSY, None), (DRAINING, None), (UNKNOWN, None)],
)  # fmt: skip
def test_a_session_begins_anew_only_where_the_server_never_had_it(reason: Any, why: Why | None) -> None:
    """Its handler may have run already: to begin anew for any other reason would run it twice."""
    pair = Pair()
    first = pair.join()
    first.forth()
    first.back()
    first.forth()  # the server has it now; the client never hears
    first.cut()
    session_id, key = pair.client.id, pair.client.key
    assert (pair.client.state, pair.server.state) == (State.OPENING, State.SUSPENDED)
    pair.host.refuses = reason
    pair.join().settle()
    assert (pair.client.why, pair.client.ended) == (why, why is not None)
    if why is None:
        begun = (pair.client.id, pair.client.key) != (session_id, key)
        assert begun == (reason == UNKNOWN)
        pair.host.refuses = None
        pair.opened()
        assert pair.client.state is State.OPEN
        assert len(pair.met) == (2 if begun else 1)


def test_unknown_and_wrong_are_answered_alike() -> None:
    """The same frames of the same size, and no word of which it was."""
    answers = []
    for spoil in ("id", "key"):
        pair = Pair()
        pair.opened().cut()
        if spoil == "id":
            pair.client.id = bytes(16)
        else:
            pair.client.key = bytes(32)
        joined = pair.join()
        joined.forth()
        answers.append(b"".join(joined.far.pull(1 << 16, pair.now_s)))
        joined.near.receive(answers[-1], pair.now_s)
        assert joined.near.denied is not None and joined.near.denied.reason == UNKNOWN
        assert pair.server.state is State.SUSPENDED
        assert pair.client.why is Why.UNKNOWN
    # All but the proof, which covers what was asked, is the same.
    assert len(answers[0]) == len(answers[1])
    assert answers[0][:-32] == answers[1][:-32]


def test_a_restarted_server_is_noticed_at_once() -> None:
    pair = Pair()
    pair.opened().cut()
    other = Pair(seed=2)
    pair.host = other.host
    joined = pair.join()
    joined.settle()
    assert pair.client.state is State.LOST and pair.client.why is Why.RESTARTED


def test_a_session_that_was_away_too_long_says_what_had_arrived() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.client.write(b"x" * 100)
    joined.forth()
    joined.cut()
    pair.client.write(b"y" * 100)
    pair.now_s += pair.server.keep_s + 1
    pair.client.suspended_s = pair.now_s  # its own clock was asleep
    pair.join().settle()
    assert pair.client.why is Why.EXPIRED
    assert pair.client.confirmed_bytes == 100


def forgetful(sealed: bool, who: str) -> Pair:
    """One end went back to an older state of itself, as a restored snapshot does; both are suspended."""
    pair = Pair(sealed=sealed)
    joined = pair.opened()
    pair.server.write(b"x" * 100)
    joined.settle()
    assert pair.client.read(200) == b"x" * 100
    pair.now_s += 1
    joined.near.look(pair.now_s)
    joined.settle()  # acknowledged, so the server has forgotten those bytes
    joined.cut()
    if who == "client":
        pair.client.into.next -= 50
    else:
        pair.server.out._sent = pair.server.out.first = pair.server.out.end = 40
    return pair


@BOTH
def test_a_gap_in_resume_ok_is_final(sealed: bool) -> None:
    """The server proves that it has the session, and that it cannot send what the client lacks."""
    pair = forgetful(sealed, "client")
    joined = pair.join()
    with pytest.raises(Violation, match="in RESUME_OK") as caught:
        joined.settle()
    assert caught.value.code is Code.GAP and joined.near.over
    assert pair.client.state is State.LOST and pair.client.why is Why.GAP
    # The client says no more there, and nothing has changed at the server.
    assert joined.near.pull(1 << 16, pair.now_s) == []
    assert (pair.server.state, pair.server.epoch, pair.server.generation) == (State.SUSPENDED, 1, 1)


@BOTH
def test_a_gap_in_resume_is_refused_for_good(sealed: bool) -> None:
    pair = forgetful(sealed, "server")
    joined = pair.join()
    joined.settle()
    assert joined.near.denied is not None and joined.near.denied.reason == GAP
    assert pair.client.state is State.LOST and pair.client.why is Why.GAP


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


def test_a_session_that_begins_anew_may_be_told_to_wait_by_another_instance() -> None:
    """It was never heard that the first one had it, so nothing is lost with that one."""
    pair = Pair()
    joined = pair.join()
    joined.forth()
    joined.back()
    joined.near.pull(1 << 16, pair.now_s)
    joined.cut()
    pair.host = Host(TERMS, Memory(1 << 20), pair.chance.randbytes(48))
    assert pair.opened().near.denied is not None
    pair.host.draining = True
    denied = pair.opened().near.denied
    assert denied is not None and denied.reason == DRAINING and denied.retry_after_s == 1
    assert pair.client.state is State.OPENING
    pair.host.draining = False
    pair.opened()
    assert pair.client.state is State.OPEN


@BOTH
def test_a_session_that_begins_anew_keeps_no_credit_of_the_first_offer(sealed: bool) -> None:
    """The server was restarted before it was confirmed, and gives less now: more would end each transport."""
    pair = Pair(sealed=sealed)
    joined = pair.join()
    joined.forth()
    joined.back()
    joined.near.pull(1 << 16, pair.now_s)  # the confirmation is lost
    joined.cut()
    pair.host = Host(replace(TERMS, window_bytes=1000), Memory(1 << 20), pair.chance.randbytes(48))
    pair.opened()  # refused
    assert pair.client.write(b"x" * 3000) == 3000
    joined = pair.opened()
    assert pair.client.state is State.OPEN and not joined.far.over
    assert pair.server.read(3000) == b"x" * 1000


def test_a_refusal_without_proof_ends_nothing() -> None:
    pair = Pair()
    pair.opened().cut()
    joined = pair.join()
    joined.forth()
    forger = Pair(seed=3)
    forger.channel = type(pair.channel)(
        "psk", b"", bytes(32), pair.channel.agreement, forger.chance.randbytes
    )
    forged = forger.join()
    forged.near.pull(1 << 16, forger.now_s)
    forged.far.receive(joined.said[0], forger.now_s)
    with pytest.raises(Violation, match="a proof is wrong"):
        joined.near.receive(b"".join(forged.far.pull(1 << 16, forger.now_s)), pair.now_s)
    assert pair.client.state is State.SUSPENDED
    pair.opened()
    assert pair.client.state is State.OPEN


def test_a_session_keeps_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    pair.opened().cut()
    monkeypatch.setattr(initiator, "VERSIONS", (2,))
    pair.join().settle()
    assert (pair.client.state, pair.client.why) == (State.LOST, Why.REFUSED)
    assert pair.server.state is State.SUSPENDED


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

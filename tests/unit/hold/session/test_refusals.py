# SPDX-License-Identifier: Apache-2.0
"""Handshakes that are refused: by whom it is believed, what it ends, and what begins anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation.pair import TERMS, Pair
from unit.hold.session.test_handshake import BOTH

from holdfast.hold.heartbeat import Life
from holdfast.hold.session import initiator
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Why
from holdfast.hold.session.host import Host
from holdfast.hold.session.responder import Responder
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.session_pb2 import BUSY, DRAINING, EXPIRED, GAP, STRANGER, UNKNOWN, VERSION


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

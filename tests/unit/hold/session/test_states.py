# SPDX-License-Identifier: Apache-2.0
"""The table is all that may happen to a session: the rest raises, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from simulation.pair import TERMS, Pair

from holdfast.errors import UsageError
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session, Why
from holdfast.hold.session.frames import DATA_HEADER, LARGEST_BYTES, OFFSET, PAIR, Kind, header
from holdfast.hold.session.states import ENDED, FROM_PEER, TRANSITIONS, Event, State, diagram, following
from holdfast.hold.session.terms import ACK_DELAY_S


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_only_what_is_in_the_table_happens(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert following(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(Violation if event in FROM_PEER else UsageError):
        following(state, event)


def test_nothing_happens_after_an_end() -> None:
    assert not [row for row in TRANSITIONS if row[0] in ENDED]


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) | {State.OPENING} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - ENDED


def test_the_diagram_has_every_row() -> None:
    drawn = diagram().splitlines()
    for (before, event), after in TRANSITIONS.items():
        assert f"    {before} --> {after}: {event}" in drawn


def facts(session: Session) -> tuple[object, ...]:
    out, into = session.out, session.into
    return (
        session.state, session.epoch, session.generation, session.window, session.link,
        out.first, out.end, out.cursor, out.limit, into.next, into.limit, into.held_bytes, into.ended,
    )  # fmt: skip


ILLEGAL = {
    "data after a gap": (Kind.DATA, OFFSET.pack(500) + b"x", Code.GAP),
    "data over the credit": (Kind.DATA, OFFSET.pack(0) + b"x" * 400, Code.OVER_CREDIT),
    "an ACK of what was not sent": (Kind.ACK, PAIR.pack(10**6, 10**7), Code.BAD_ACK),
    "an ACK of the wrong size": (Kind.ACK, b"x" * 15, Code.MALFORMED),
    "FIN after a gap": (Kind.FIN, OFFSET.pack(77), Code.GAP),
    "CLOSE before the FINs": (Kind.CLOSE, b"", Code.OUT_OF_PLACE),
    "CLOSE_OK to nothing": (Kind.CLOSE_OK, b"", Code.OUT_OF_PLACE),
    "RESET_OK to nothing": (Kind.RESET_OK, b"", Code.OUT_OF_PLACE),
    "no RESET": (Kind.RESET, b"\xff\xff", Code.MALFORMED),
    "no PING": (Kind.PING, b"\xff\xff", Code.MALFORMED),
    "a PING that confirms what was not sent": (Kind.PING, b"\x08\x01\x10\x90\x4e\x18\x90\x4e", Code.BAD_ACK),
    "DATA without data": (Kind.DATA, OFFSET.pack(0), Code.MALFORMED),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_input_raises_and_changes_nothing(name: str) -> None:
    kind, payload, code = ILLEGAL[name]
    pair = Pair(sealed=False)
    joined = pair.opened()
    pair.server.into.limit = 300
    before = facts(pair.server)
    with pytest.raises(Violation) as caught:
        joined.far.receive(header(kind, 1, len(payload)) + payload, pair.now_s)
    assert caught.value.code is code
    assert facts(pair.server) == before
    joined.cut()
    pair.client.write(b"and it goes on")
    pair.opened()
    assert pair.server.read(100) == b"and it goes on"


@pytest.mark.parametrize("sealed", [True, False])
def test_bytes_that_nothing_seals_do_not_wait_for_their_frame(sealed: bool) -> None:
    pair = Pair(sealed=sealed)
    joined = pair.opened()
    pair.client.write(b"x" * 300)
    joined.forth(200)
    assert pair.server.into.held_bytes == (0 if sealed else 200 - DATA_HEADER.size)


def test_an_acknowledgement_waits_a_little_or_goes_along_with_data() -> None:
    pair = Pair()
    joined = pair.opened()
    for answered in (False, True):
        pair.client.write(b"question")
        joined.forth()
        assert joined.far.pull(1 << 16, pair.now_s) == [] and not pair.client.out.all_confirmed
        assert joined.far.next_s() == pair.now_s + ACK_DELAY_S
        if answered:
            pair.server.write(b"answer")
        else:
            pair.now_s += ACK_DELAY_S
            joined.far.look(pair.now_s)
        joined.back()
        assert pair.client.out.all_confirmed


@pytest.mark.parametrize(("told", "taken"), [(1, 16), (40, 40), (2**31, LARGEST_BYTES)])
def test_what_a_peer_says_it_takes_is_kept_within_reason(told: int, taken: int) -> None:
    pair = Pair()
    terms = replace(TERMS)
    object.__setattr__(terms, "frame_bytes", told)  # ours could not be asked for that
    pair.client = pair.session(terms)
    pair.opened()
    assert pair.server.peer_frame_bytes == taken


def test_half_close_waits_for_its_acknowledgement() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.client.write(b"last")
    pair.client.finish()
    joined.forth()
    assert not pair.client.out.all_confirmed
    joined.cut()
    pair.opened()
    assert pair.server.read(9) == b"last" and pair.server.into.ended and pair.client.out.all_confirmed
    pair.server.write(b"answer after the FIN")
    pair.opened()
    assert pair.client.read(99) == b"answer after the FIN"


def test_both_ends_close_once_everything_arrived() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.client.close(pair.now_s)
    joined.settle()
    assert pair.client.state is State.OPEN  # the server may still have something to say
    pair.server.close(pair.now_s)
    joined.settle()
    assert (pair.client.state, pair.server.state) == (State.CLOSED, State.CLOSED)
    assert joined.near.over and joined.far.over
    assert pair.memory.promised_bytes == 0


def test_what_crosses_the_end_of_a_session_is_no_violation() -> None:
    """All had arrived, so giving up while CLOSE is on its way ends it; the peer cannot know."""
    pair = Pair()
    joined = pair.opened()
    pair.client.close(pair.now_s)
    joined.settle()
    pair.server.close(pair.now_s)
    joined.back()  # the server's FIN
    assert pair.client.state is State.CLOSING
    joined.forth()
    pair.client.abort(Code.ABORTED, pair.now_s)
    assert pair.client.state is State.CLOSED
    joined.settle()
    assert pair.server.state is State.CLOSED and joined.near.over and joined.far.over


def test_unread_bytes_make_closing_a_reset() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.client.write(b"unread")
    joined.settle()
    pair.server.close(pair.now_s)
    joined.settle()
    assert (pair.client.state, pair.client.code) == (State.RESET, Code.CLOSED_UNREAD)
    assert pair.server.state is State.RESET


def test_bytes_that_come_after_closing_make_it_a_reset() -> None:
    """Nobody will read them: whoever sent them must not take that for success."""
    pair = Pair()
    joined = pair.opened()
    pair.server.close(pair.now_s)
    pair.client.write(b"too late")
    joined.settle()
    assert (pair.client.state, pair.client.code) == (State.RESET, Code.CLOSED_UNREAD)
    assert pair.server.state is State.RESET


def test_the_server_numbers_every_offer_anew() -> None:
    """Two that are under way at once must not be taken for each other."""
    pair = Pair()
    pair.opened().cut()
    epochs = [pair.server.offer_epoch() for _ in range(3)]
    assert epochs == [2, 3, 4]


def test_a_reset_is_repeated_until_it_is_confirmed() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.server.abort(77, pair.now_s)
    joined.back(5)
    joined.cut()
    assert pair.server.state is State.RESETTING
    pair.opened()
    assert (pair.client.state, pair.client.code, pair.server.state) == (State.RESET, 77, State.RESET)


def test_a_session_is_given_up_with_the_first_code_only() -> None:
    """The peer was told that one already; closing with bytes unread is no second reason."""
    pair = Pair()
    joined = pair.opened()
    pair.client.write(b"unread")
    joined.settle()
    pair.server.abort(300, pair.now_s)
    joined.back()
    pair.server.close(pair.now_s)
    pair.server.abort(301, pair.now_s)
    joined.settle()
    assert (pair.client.code, pair.server.code) == (300, 300)


def test_a_suspended_session_expires() -> None:
    pair = Pair()
    pair.opened().cut()
    pair.now_s += pair.server.keep_s - 1
    assert pair.host.look(pair.now_s) == []
    pair.now_s += 1
    assert pair.host.look(pair.now_s) == [pair.server]
    assert pair.server.why is Why.EXPIRED and pair.host.memory.promised_bytes == 0


def test_an_idle_session_with_a_transport_does_not_age() -> None:
    pair = Pair()
    pair.opened()
    assert pair.host.look(pair.now_s + 10**6) == []

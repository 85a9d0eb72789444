# SPDX-License-Identifier: Apache-2.0
"""The handshakes of one transport: how many at once, until when, and what the first one's failure ends."""

from __future__ import annotations

from math import inf

import pytest
from simulation.pair import TERMS, Joined, Pair

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.entry import MOST_HANDSHAKES
from holdfast.hold.session.frames import Kind, header
from holdfast.hold.session.states import State
from holdfast.hold.wire.session_pb2 import BUSY, DRAINING, STRANGER, Refusal


def opening(pair: Pair, count: int) -> Joined:
    """A transport that is up, on which so many more sessions have been asked for."""
    joined = pair.opened()
    for _ in range(count):
        joined.near.open(pair.session(), pair.now_s)
    return joined


def test_a_handshake_has_its_time_and_no_more() -> None:
    pair = Pair()
    joined = pair.join()
    for link in (joined.near, joined.far):
        due_s = link._entry.due_s
        assert due_s == link.next_s() == pair.now_s + TERMS.handshake_s
        link.look(due_s - 0.01)
        assert not link.over
        link.look(due_s)
        assert link.over


def test_the_oldest_of_several_handshakes_is_due_first() -> None:
    pair = Pair()
    joined = pair.opened()
    assert (joined.near._entry.due_s, joined.far._entry.due_s) == (inf, inf)
    begun_s = pair.now_s
    for _ in range(2):
        joined.near.open(pair.session(), pair.now_s)
        pair.now_s += 1
    assert joined.near._entry.due_s == begun_s + TERMS.handshake_s
    assert len(joined.near._entry) == 2
    joined.settle()
    assert (len(joined.near._entry), joined.near._entry.due_s) == (0, inf)


def test_more_sessions_than_handshakes_at_once_come_one_after_the_other() -> None:
    pair = Pair()
    joined = opening(pair, 2 * MOST_HANDSHAKES + 3)
    assert len(joined.near._entry) == MOST_HANDSHAKES
    joined.settle()
    assert len(pair.met) == 2 * MOST_HANDSHAKES + 4 and len(joined.near._entry) == 0
    assert {session.state for session in pair.met} == {State.OPEN}


def test_the_first_handshake_is_alone_and_then_all_begin() -> None:
    pair = Pair()
    joined = pair.join()
    for _ in range(3):
        joined.near.open(pair.session(), pair.now_s)
    assert len(joined.near._entry) == 1
    joined.forth()
    joined.back()
    assert len(joined.near._entry) == 3
    joined.settle()
    assert len(pair.met) == 4


def test_where_the_first_is_refused_no_other_begins() -> None:
    """Nothing has proven the transport: what would be asked next has to be asked on another one."""
    pair = Pair()
    pair.host.refuses = DRAINING
    joined = pair.join()
    joined.near.open(pair.session(), pair.now_s)
    joined.forth()
    joined.back()
    assert joined.near.over and joined.near.denied is not None
    assert joined.near.pull(1 << 16, pair.now_s) == []


def test_the_host_counts_the_handshakes_of_transports_that_are_up() -> None:
    """As long as they are under way, and whether they end well, badly or with their transport."""
    pair = Pair()
    joined = opening(pair, 3)
    assert pair.host.later == 0, "the first one has a place of its own"
    joined.forth()
    assert pair.host.later == 3
    joined.settle()
    assert pair.host.later == 0
    pair.host.refuses = DRAINING
    joined.near.open(pair.session(), pair.now_s)
    joined.settle()
    assert pair.host.later == 0
    pair.host.refuses = None
    for _ in range(2):
        joined.near.open(pair.session(), pair.now_s)
    joined.forth()
    assert pair.host.later == 2
    joined.cut()
    assert pair.host.later == 0


@pytest.mark.parametrize(("refuses", "told"), [(None, BUSY), (STRANGER, STRANGER)])
def test_a_busy_host_refuses_for_the_better_of_its_reasons(refuses: Refusal | None, told: Refusal) -> None:
    """Who is told that it is busy comes again; a stranger need not."""
    pair = Pair()
    joined = pair.opened()
    pair.host.later, pair.host.refuses = pair.host.half_open.most, refuses
    joined.near.open(pair.session(), pair.now_s)
    joined.settle()
    assert joined.near.denied is not None and joined.near.denied.reason == told
    assert not joined.near.over and not joined.far.over


@pytest.mark.parametrize("up", [False, True])
def test_nobody_opens_a_session_at_a_client(up: bool) -> None:
    pair = Pair(sealed=False)
    near = (pair.opened() if up else pair.join()).near
    with pytest.raises(Violation) as caught:
        near.receive(header(Kind.HELLO, 9, 0), pair.now_s)
    assert caught.value.code is Code.OUT_OF_PLACE and near.over

# SPDX-License-Identifier: Apache-2.0
"""When records come out, that the way in changes nothing of them, and what is counted when room runs out."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transcripts import stories as scenes
from transcripts.stories import ABORT, SUFFERED, TRANSCRIPTS, Step, at_port
from unit.watch.samples import active_rst

from holdfast.events import Endpoint, Event, Reset
from holdfast.watch.diagnose.stories import AT_ONCE, LONGEST_NS, MOST_EVENTS, SETTLE_NS, Stories

MS = 1_000_000


def stories(capacity: int = 4096) -> Stories:
    return Stories("here", 0, capacity)


def brief(records: list[Reset]) -> list[tuple[str, str]]:
    return [(str(one.direction), one.cause) for one in records]


@pytest.mark.parametrize("steps", TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_transcript(steps: list[Step]) -> None:
    kept = stories()
    for at_ms, act, events, expected in steps:
        if act == "feed":
            told = kept.feed(events, at_ms * MS)
        else:
            told = kept.settle(at_ms * MS) if act == "settle" else kept.flush()
        assert brief(told) == expected, f"at {at_ms} ms"
    assert kept.hurried == 0


def test_the_waits_are_these() -> None:
    assert (SETTLE_NS, LONGEST_NS) == (250 * MS, 2000 * MS)


def test_both_records_of_one_story_share_its_name_and_others_do_not() -> None:
    kept = stories()
    kept.feed([SUFFERED, at_port(SUFFERED, 1), ABORT, at_port(ABORT, 1)], 0)
    by_peer: dict[frozenset[Endpoint], set[str | None]] = {}
    for one in kept.flush():
        by_peer.setdefault(frozenset((one.local, one.peer)), set()).add(one.story)
    assert [len(names) for names in by_peer.values()] == [1, 1]
    assert len(set.union(*by_peer.values())) == 2


def test_namesakes_in_other_namespaces_are_told_apart_by_their_numbers() -> None:
    """Containers often share addresses; the number of the RST says which end belongs to which."""
    other = [
        dataclasses.replace(ABORT, netns=50, cookie=70, snd_nxt=5000, snd_una=5000),
        dataclasses.replace(SUFFERED, netns=51, cookie=71, segment=active_rst(seq=5000)),
    ]
    kept = stories()
    kept.feed([ABORT, SUFFERED, *other], 0)
    names = {one.netns: one.story for one in kept.flush() if one.direction == "received"}
    assert names[40] != names[51]
    kept.feed([*other, SUFFERED, ABORT], 0)
    assert {one.netns: one.story for one in kept.flush() if one.direction == "received"} == names


SCENE: list[Event] = [
    scenes.SUFFERED, scenes.ERROR, scenes.ABORT, at_port(scenes.SUFFERED, 1), at_port(scenes.ABORT, 1),
    scenes.REFUSED, scenes.TIMEOUT, at_port(scenes.SELF, 2), at_port(scenes.AFTER_SHUTDOWN, 2),
    at_port(scenes.FORGED, 3), at_port(scenes.TALKS_ON, 3),
]  # fmt: skip


def whole(records: list[Reset]) -> list[Reset]:
    return sorted(records, key=lambda one: one.id)


def in_order() -> list[Reset]:
    kept = stories()
    kept.feed(SCENE, 0)
    return whole(kept.flush())


@given(st.permutations(SCENE), st.lists(st.integers(0, len(SCENE)), max_size=5), st.integers(0, 40))
def test_any_interleaving_gives_the_same_records(order: list[Event], cuts: list[int], pause_ms: int) -> None:
    """However the events are ordered and cut into drains, as long as neighbours come within the wait."""
    kept = stories()
    told: list[Reset] = []
    edges = sorted({0, len(order), *cuts})
    now_ns = 0
    for start, end in itertools.pairwise(edges):
        told += kept.feed(order[start:end], now_ns) + kept.settle(now_ns)
        now_ns += pause_ms * MS
    told += kept.settle(now_ns) + kept.settle(now_ns + SETTLE_NS)
    assert whole(told) == in_order()
    assert kept.flush() == []


@given(st.permutations(SCENE))
def test_each_record_is_told_once_at_any_pace(order: list[Event]) -> None:
    """Even when every neighbour comes too late, nothing is told twice or lost."""
    kept = stories()
    told: list[Reset] = []
    for n, one in enumerate(order):
        told += kept.feed([one], n * 1000 * MS) + kept.settle(n * 1000 * MS)
    told += kept.flush()
    assert len({one.id for one in told}) == len(told)
    assert {one.id for one in in_order()} <= {one.id for one in told}


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_beyond_its_capacity_the_oldest_is_judged_early_and_counted(capacity: int) -> None:
    kept = stories(capacity)
    told = [brief(kept.feed([at_port(scenes.REFUSED, port)], port)) for port in range(1, 10)]
    assert told == [[]] * capacity + [scenes.REFUSAL] * (9 - capacity)
    assert kept.hurried == 9 - capacity
    assert brief(kept.flush()) == scenes.REFUSAL * capacity


def test_what_belongs_to_a_waiting_pair_needs_no_room() -> None:
    kept = stories(1)
    assert kept.feed([SUFFERED, ABORT, scenes.ERROR], 0) == []
    assert kept.hurried == 0
    assert brief(kept.flush()) == scenes.BOTH_ENDS


def test_a_pair_with_very_many_events_is_judged_with_the_drain_that_brought_them() -> None:
    """Whoever resets from one port without a pause is not collected for two seconds, and hides nobody."""
    kept = stories()
    drain = [dataclasses.replace(scenes.REFUSED, mono_ns=n) for n in range(100)]
    told = [len(kept.feed([*drain, at_port(scenes.REFUSED, 9)], n)) for n in range(6)]
    assert told == [0, 0, 300, 0, 0, 300]
    assert kept.hurried == 2
    assert brief(kept.flush()) == scenes.REFUSAL * 6
    assert (MOST_EVENTS, kept.settle(LONGEST_NS * 2)) == (256, [])


def test_the_other_end_in_the_same_drain_is_not_cut_off() -> None:
    """The bound comes in the middle of a drain, and what belongs together is judged together."""
    kept = stories()
    filler = [dataclasses.replace(scenes.ERROR, mono_ns=n, cookie=500 + n) for n in range(MOST_EVENTS - 1)]
    assert brief(kept.feed([*filler, SUFFERED, ABORT], 0)) == scenes.BOTH_ENDS


def test_what_settles_at_once_is_told_in_parts() -> None:
    """Judging thousands in one go would keep us from the ring for longer than it takes events."""
    kept = stories()
    kept.feed([at_port(scenes.REFUSED, port) for port in range(1, 2 * AT_ONCE)], 0)
    told = [len(kept.settle(SETTLE_NS)) for _ in range(3)]
    assert told == [AT_ONCE, AT_ONCE - 1, 0]

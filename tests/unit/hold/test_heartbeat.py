# SPDX-License-Identifier: Apache-2.0
"""A heartbeat notices a dead peer in time, and blames nobody for its own sleep."""

from __future__ import annotations

import pytest

from holdfast.errors import UsageError
from holdfast.hold.heartbeat import (
    DEAD_AFTER,
    LONGEST_S,
    NEVER,
    Beats,
    Heartbeat,
    Life,
    Rhythm,
    RoundTrip,
    interval_s,
)
from holdfast.hold.wire.heartbeat_pb2 import Beat, Ping, Pong


def agreed(ours: Rhythm, theirs: Rhythm) -> tuple[Heartbeat, Heartbeat]:
    one, other = Heartbeat(ours, 0.0), Heartbeat(theirs, 0.0)
    one.agree(theirs.wire())
    other.agree(ours.wire())
    return one, other


@pytest.mark.parametrize(
    ("can", "want", "interval"),
    [(1000, 5000, 5.0), (5000, 1000, 5.0), (0, 1000, NEVER), (1000, 0, NEVER), (0, 0, NEVER),
     (2**32 - 1, 1000, LONGEST_S), (1000, 2**32 - 1, LONGEST_S)],
)  # fmt: skip
def test_a_direction_takes_the_slower_of_what_can_and_what_is_wanted(
    can: int, want: int, interval: float
) -> None:
    assert interval_s(can, want) == interval


def test_both_ends_agree() -> None:
    one, other = agreed(Rhythm(1, 10), Rhythm(20, 5))
    assert (one.send_every_s, one.hear_every_s) == (5.0, 20.0)
    assert (other.send_every_s, other.hear_every_s) == (20.0, 5.0)


def test_round_trips_are_smoothed_as_rfc_6298_says() -> None:
    trip = RoundTrip()
    trip.measured(0.1)
    assert (trip.srtt_s, trip.rttvar_s) == (0.1, 0.05)
    trip.measured(0.2)
    assert trip.srtt_s == pytest.approx(0.1 * 7 / 8 + 0.2 / 8)
    assert trip.rttvar_s == pytest.approx(0.05 * 3 / 4 + 0.1 / 4)


def watch(heart: Heartbeat, until_s: float, from_s: float = 0.0) -> list[tuple[float, Life]]:
    """What is thought of a peer that says nothing, at each moment at which it changes."""
    changes, life, now_s = [], Life.ALIVE, from_s
    while now_s < until_s:
        now_s = max(now_s + 0.01, min(heart.next_s(), until_s))
        found = heart.look(now_s)
        if found is not life:
            changes.append((now_s, found))
            life = found
        if heart.ping_due(now_s):
            heart.ping(now_s)
    return changes


def test_silence_is_first_suspect_and_then_death() -> None:
    heart, _ = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.1)
    changes = watch(heart, 60)
    assert [life for _, life in changes] == [Life.SUSPECT, Life.DEAD]
    (suspect_s, _), (dead_s, _) = changes
    assert 10 <= suspect_s <= 10.4
    assert DEAD_AFTER * 10 <= dead_s <= DEAD_AFTER * 10 + 0.4


def test_an_unanswered_request_is_suspicious_long_before_an_interval() -> None:
    heart, _ = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.trip.measured(0.01)
    heart.awaiting(True, 0.0)
    changes = watch(heart, 3)
    assert changes and changes[0][0] < 1 and changes[0][1] is Life.SUSPECT


def test_any_byte_is_a_sign_of_life() -> None:
    heart, _ = agreed(Rhythm(10, 10), Rhythm(10, 10))
    for second in range(1, 100):
        heart.heard(float(second))
        assert heart.look(second + 0.5) is Life.ALIVE


def test_a_peer_that_promises_nothing_never_dies() -> None:
    heart, _ = agreed(Rhythm(10, 10), Rhythm(0, 10))
    assert watch(heart, 5000) == []


@pytest.mark.parametrize("asleep_s", [40, 100_000])
def test_own_sleep_is_noticed_and_the_peer_gets_another_chance(asleep_s: float) -> None:
    """Stopped by a debugger, or a laptop that slept: nobody looked when it was time to."""
    heart, _ = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.1)
    heart.look(5.0)
    woke_s = 5.0 + asleep_s
    assert heart.look(woke_s) is Life.ALIVE
    assert heart.stalls == 1
    assert heart.ping_due(woke_s)
    heart.ping(woke_s)
    assert [life for _, life in watch(heart, woke_s + 60, woke_s)] == [Life.SUSPECT, Life.DEAD]


def test_a_sleep_before_the_answer_was_read_is_no_round_trip() -> None:
    """The laptop slept for an hour between PING and PONG, which the path had brought long before."""
    heart, other = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.01)
    pong = other.pong(heart.ping(9.0), 9.005)
    heart.heard(3609.0)
    heart.ponged(pong, 3609.0)
    heart.awaiting(True, 3609.0)
    assert heart.look(3609.0) is Life.ALIVE
    assert watch(heart, 3613, 3609.0)[0][1] is Life.SUSPECT


def test_a_path_that_has_become_long_is_learnt_in_a_few_round_trips() -> None:
    heart, other = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.01)
    for turn in range(5):
        pong = other.pong(heart.ping(turn * 10.0), turn * 10.0 + 1.5)
        heart.ponged(pong, turn * 10.0 + 3)
    assert heart.trip.allowance_s > 3


def test_idle_ends_ping_as_often_as_agreed() -> None:
    heart, _ = agreed(Rhythm(10, 30), Rhythm(10, 30))
    pings, now_s = 0, 0.0
    while now_s < 300:
        now_s = max(now_s + 0.001, heart.next_s())
        heart.heard(now_s)
        heart.look(now_s)
        if heart.ping_due(now_s):
            heart.ping(now_s)
            pings += 1
    assert 9 <= pings <= 11


def test_too_many_pings_are_answered_by_asking_for_fewer() -> None:
    pushy, calm = agreed(Rhythm(0.1, 10), Rhythm(10, 5, least_s=1.0))
    for turn in range(1, 9):  # it does not keep what was agreed
        now_s = turn / 10
        pushy.ponged(calm.pong(pushy.ping(now_s), now_s), now_s)
    assert pushy.slowed == 7
    assert pushy.send_every_s == 5, "longer than what the peer waits for, and it would be given up"


@pytest.mark.parametrize("want_s", [0.01, 0.3, 2.0])
def test_who_keeps_the_interval_is_neither_slowed_nor_given_up(want_s: float) -> None:
    quick, other = agreed(Rhythm(0.01, want_s), Rhythm(0.01, want_s))
    now_s = 0.0
    while now_s < 20 * want_s:
        now_s += quick.send_every_s
        other.heard(now_s)
        quick.ponged(other.pong(quick.ping(now_s), now_s), now_s)
        assert other.look(now_s) is Life.ALIVE
    assert quick.slowed == 0 and quick.send_every_s == want_s


def test_an_answer_to_nothing_measures_nothing() -> None:
    heart, other = agreed(Rhythm(), Rhythm())
    heart.ponged(other.pong(Ping(id=77), 1.0), 1.0)
    assert heart.trip.srtt_s is None


def test_alone_on_a_stream_of_frames() -> None:
    one, other = Beats(Rhythm(1, 1), 0.0), Beats(Rhythm(1, 1), 0.0)
    assert other.received(one.opening(), 0.0) is None
    assert one.received(other.opening(), 0.0) is None
    assert one.due(0.5) is None
    ping = one.due(1.0)
    assert ping is not None
    pong = other.received(ping, 1.05)
    assert pong is not None and one.received(pong, 1.1) is None
    assert one.heart.trip.srtt_s == pytest.approx(0.1)


@pytest.mark.parametrize("message", [b"", b"\xff" * 9, b"\x0a\x02\x08\x80", Beat().SerializeToString()])
def test_nonsense_is_passed_over(message: bytes) -> None:
    beats = Beats(Rhythm(), 0.0)
    assert beats.received(message, 1.0) is None


def test_unknown_fields_are_kept() -> None:
    ping = Ping.FromString(Ping(id=5).SerializeToString() + b"\xa2\x06\x03new")
    assert b"new" in ping.SerializeToString()


def test_a_rhythm_is_checked() -> None:
    with pytest.raises(UsageError, match="want_s"):
        Rhythm(want_s=-1)


def test_a_question_is_asked_at_once_and_its_answer_is_awaited() -> None:
    """The machine's routes have changed: an idle path of 30 s is in doubt after half a second."""
    heart, _ = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.trip.measured(0.01)
    heart.ask(5.0)
    assert heart.next_s() == 5.0 and heart.ping_due(5.0)
    heart.ping(5.0)
    heart.awaiting(False, 5.0)
    assert watch(heart, 6, 5.0) == [(5.5, Life.SUSPECT)]


def test_an_answered_question_is_over() -> None:
    heart, other = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.trip.measured(0.01)
    heart.ask(5.0)
    pong = other.pong(heart.ping(5.0), 5.01)
    heart.heard(5.02)
    heart.ponged(pong, 5.02)
    heart.awaiting(False, 5.02)
    assert watch(heart, 30, 5.02) == []


def test_what_was_under_way_answers_no_question() -> None:
    """Bytes that came before the change, or a Pong to an earlier Ping, say nothing about the new route."""
    heart, other = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.trip.measured(0.01)
    earlier = other.pong(heart.ping(2.0), 2.0)
    heart.ask(5.0)
    heart.ping(5.0)
    heart.heard(5.1)
    heart.ponged(earlier, 5.1)
    heart.awaiting(False, 5.1)
    assert [life for _, life in watch(heart, 6, 5.1)] == [Life.SUSPECT]


def test_without_its_address_a_path_is_suspect_until_it_is_heard() -> None:
    heart, _ = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.trip.measured(0.01)
    heart.ask(5.0, gone=True)
    heart.awaiting(False, 5.0)
    assert heart.look(5.0) is Life.SUSPECT
    heart.ping(5.0)
    heart.heard(5.1)
    assert heart.look(5.1) is Life.ALIVE


def test_a_storm_of_questions_is_one_ping_in_the_least_interval() -> None:
    """Two a second would be answered by asking for a longer interval."""
    heart, other = agreed(Rhythm(30, 30, 1.0), Rhythm(30, 30, 1.0))
    heart.trip.measured(0.01)
    pings = 0
    for turn in range(1000):
        now_s = 5 + turn / 100
        heart.ask(now_s)
        heart.look(now_s)
        if heart.ping_due(now_s):
            pings += 1
            pong = other.pong(heart.ping(now_s), now_s)
            assert pong.slower_ms == 0
            heart.heard(now_s)
            heart.ponged(pong, now_s)
    assert pings == 10


def test_who_was_asked_for_less_asks_less() -> None:
    heart, _ = agreed(Rhythm(30, 30), Rhythm(30, 30))
    heart.ponged(Pong(id=heart.ping(5.0).id, slower_ms=4000), 5.0)
    heart.ask(6.0)
    assert not heart.ping_due(8.9) and heart.ping_due(9.0)


def test_a_question_after_our_own_sleep_blames_nobody() -> None:
    """A laptop wakes, and its routes change before anybody has looked."""
    heart, _ = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.01)
    heart.look(5.0)
    heart.ask(3600.0)
    assert heart.look(3600.0) is Life.ALIVE
    assert heart.stalls == 1 and heart.ping_due(3600.0)


def test_without_its_address_a_path_is_suspect_after_our_own_sleep_too() -> None:
    """The sleep was ours, and is forgiven; the address is gone all the same."""
    heart, _ = agreed(Rhythm(10, 10), Rhythm(10, 10))
    heart.trip.measured(0.01)
    heart.look(5.0)
    heart.ask(3600.0, gone=True)
    assert heart.look(3600.0) is Life.SUSPECT
    assert heart.stalls == 1


def test_nobody_is_doubted_for_a_question_that_has_not_been_asked() -> None:
    """It has to wait until the next Ping may go: until then no answer can come."""
    heart, other = agreed(Rhythm(30, 30, 2.0), Rhythm(30, 30, 2.0))
    heart.trip.measured(0.01)
    heart.ponged(other.pong(heart.ping(5.0), 5.0), 5.0)
    heart.heard(5.0)
    heart.ask(5.1)
    heart.awaiting(False, 5.1)
    assert heart.look(6.9) is Life.ALIVE and not heart.ping_due(6.9)
    assert heart.ping_due(7.0)

# SPDX-License-Identifier: Apache-2.0
"""The moments at which a heartbeat speaks, doubts, gives up and asks for less, as specified."""

from __future__ import annotations

import pytest

from holdfast.errors import UsageError
from holdfast.hold.heartbeat import LEAST_S, LONGEST_S, NEVER, Beats, Heartbeat, Life, Rhythm, RoundTrip
from holdfast.hold.wire.heartbeat_pb2 import Beat, Ping, Pong

RTT_S, ALLOWANCE_S = 0.1, 0.3
"""A first round trip, and it with four variations of half of it."""


def heart(send_every_s: float, hear_every_s: float, rtt_s: float | None = RTT_S) -> Heartbeat:
    """One end at 0 s, which has agreed on these intervals; its least is one second."""
    one = Heartbeat(Rhythm(0.01, 0.01, least_s=1.0), 0.0)
    one.agree(Rhythm(can_s=hear_every_s, want_s=send_every_s).wire())
    if rtt_s is not None:
        one.trip.measured(rtt_s)
    return one


def silence(one: Heartbeat, until_s: float) -> tuple[list[float], dict[Life, float], int]:
    """Nothing comes: when it sends a Ping, when it begins to think what, and how often it had to look."""
    pings, thinks, looks, now_s = list[float](), dict[Life, float](), 0, 0.0
    while (now_s := max(now_s + 1e-9, one.next_s())) <= until_s and looks < 1000:
        looks += 1
        thinks.setdefault(one.look(now_s), round(now_s, 3))
        if one.ping_due(now_s):
            one.ping(now_s)
            pings.append(round(now_s, 3))
        if Life.DEAD in thinks:
            break
    return pings, thinks, looks


def test_the_allowance_is_a_round_trip_and_four_variations() -> None:
    trip = RoundTrip()
    assert trip.allowance_s == 1.0
    trip.measured(0.1)
    assert trip.allowance_s == pytest.approx(0.3)
    trip.measured(0.2)
    assert trip.allowance_s == pytest.approx(0.1125 + 4 * 0.0625)
    for _ in range(200):
        trip.measured(0.2)
    assert trip.allowance_s == pytest.approx(0.201), "never less than the clock can tell"


@pytest.mark.parametrize(
    ("rtt_s", "allowance_s", "every_s"), [(0.1, 0.3, 1.0), (0.8, 2.4, 2.4)], ids=["near", "far"]
)
def test_silence_is_asked_about_and_then_believed(rtt_s: float, allowance_s: float, every_s: float) -> None:
    """After an interval a Ping, an allowance later doubt, after two and a half the end."""
    pings, thinks, looks = silence(heart(1000, 10, rtt_s), 60)
    dead_s = 25 + allowance_s
    assert thinks == {
        Life.ALIVE: 10.0,
        Life.SUSPECT: pytest.approx(10 + allowance_s),
        Life.DEAD: pytest.approx(dead_s),
    }
    expected = [10 + turn * every_s for turn in range(20) if 10 + turn * every_s < dead_s]
    assert pings == pytest.approx(expected)
    assert looks <= len(pings) + 4, "it was woken in vain"


def test_an_answer_that_does_not_come_is_asked_for_and_then_doubted() -> None:
    one = heart(1000, 1000)
    one.awaiting(True, 0.0)
    pings, thinks, _ = silence(one, 3)
    assert thinks == {Life.ALIVE: ALLOWANCE_S, Life.SUSPECT: 2 * ALLOWANCE_S}
    assert pings == pytest.approx([0.3, 1.3, 2.3])
    near = heart(1000, 1000, 0.01)
    near.awaiting(True, 0.0)
    assert near.doubt_s() == 0.5


def test_bytes_are_expected_anew_whenever_some_came() -> None:
    one = heart(1000, 10)
    one.awaiting(True, 1.0)
    one.awaiting(True, 1.2)
    assert one.doubt_s() == pytest.approx(1.6), "what is asked first counts"
    one.heard(1.4)
    assert one.doubt_s() == pytest.approx(2.0)
    one.awaiting(False, 1.5)
    assert one.doubt_s() == pytest.approx(1.4 + 10 + ALLOWANCE_S)


def test_it_speaks_when_it_was_silent_for_its_interval() -> None:
    one = heart(10, 1000)
    assert (one.ping_due(9.99), one.ping_due(10)) == (False, True)
    one.sent(4)
    assert (one.next_s(), one.ping_due(13.99), one.ping_due(14)) == (14, False, True)
    one.pong(Ping(id=1), 5)
    assert (one.next_s(), one.ping_due(14.99), one.ping_due(15)) == (15, False, True)


def test_who_has_not_agreed_yet_owes_and_expects_nothing() -> None:
    for wire in (None, b"\xff" * 9):
        one = Heartbeat(Rhythm(), 0.0)
        if wire is not None:
            one.agree(wire)
        assert (one.send_every_s, one.hear_every_s) == (NEVER, NEVER)
        assert not one.ping_due(1e9) and one.look(1e9) is Life.ALIVE


@pytest.mark.parametrize(
    ("send_s", "hear_s", "borne_s"),
    [(10, 10, 10), (10, 100, 10), (100, 10, 10), (100, 100, 30), (0.1, 0.1, 0.5)],
)
def test_own_lateness_is_borne_for_an_interval(send_s: float, hear_s: float, borne_s: float) -> None:
    """Half a second at least, half a minute at most; what is longer is no fault of the peer's."""
    for late_s, stalls in ((borne_s - 0.05, 0), (borne_s + 0.05, 1)):
        one = heart(send_s, hear_s)
        one.look(one.next_s() + late_s)
        assert one.stalls == stalls


def test_after_own_sleep_it_asks_at_once_and_waits_as_if_it_had_just_heard() -> None:
    for awaits, doubt_s in ((True, 50 + 2 * ALLOWANCE_S), (False, 60 + ALLOWANCE_S)):
        one = heart(10, 10)
        one.awaiting(awaits, 5.0)
        one.look(5.0)
        one.sent(49.9)  # the application was quicker
        assert one.look(50.0) is Life.ALIVE and one.stalls == 1
        assert one.ping_due(50.0)
        assert one.doubt_s() == pytest.approx(doubt_s)


@pytest.mark.parametrize(
    ("least_s", "hear_every_s", "asked_ms"),
    [
        (1.0, 10, [2000, 4000, 8000, 10000, 10000]),
        (0.25, 10, [500, 1000, 2000, 4000, 8000]),
        (1.0, 0.5, [500, 500]),
        (20.0, 3600, [40000, 60000]),
    ],
)
def test_pings_that_come_too_soon_are_asked_to_come_ever_later(
    least_s: float, hear_every_s: float, asked_ms: list[int]
) -> None:
    """Too soon is half of the least interval; later than the peer is expected they are never asked for."""
    one = Heartbeat(Rhythm(0.01, 0.01, least_s=least_s), 0.0)
    one.agree(Rhythm(hear_every_s, 1).wire())
    half_s, now_s = min(least_s, hear_every_s) / 2, 1024.0
    assert one.pong(Ping(id=1), now_s).slower_ms == 0
    assert one.pong(Ping(id=2), now_s + half_s).slower_ms == 0
    now_s += half_s
    for expected in asked_ms:
        now_s += 0.9 * half_s
        assert one.pong(Ping(id=3), now_s).slower_ms == expected
    assert one.pong(Ping(id=4), now_s + half_s + 0.01).slower_ms == 0, "that one kept to it"


def test_who_is_asked_for_less_speaks_less() -> None:
    one = heart(5, 10)
    for slower_ms, every_s in ((8000, 8.0), (6000, 8.0), (2**32 - 1, 600.0)):
        one.ponged(Pong(slower_ms=slower_ms), 1.0)
        assert one.send_every_s == every_s
    assert one.slowed == 3
    silent = Heartbeat(Rhythm(), 0.0)
    silent.ponged(Pong(slower_ms=8000), 1.0)
    assert (silent.slowed, silent.send_every_s) == (0, NEVER)


def test_only_the_first_answer_to_the_last_ping_is_measured() -> None:
    one = heart(10, 10, None)
    one.ponged(Pong(id=0), 0.5)
    assert one.trip.srtt_s is None, "nothing was asked"
    earlier, last = one.ping(1.0), one.ping(2.0)
    one.ponged(Pong(id=earlier.id), 2.1)
    assert one.trip.srtt_s is None
    one.ponged(Pong(id=last.id), 2.2)
    one.ponged(Pong(id=last.id), 2.9)
    assert (one.trip.srtt_s, one.trip.rttvar_s) == (pytest.approx(0.2), pytest.approx(0.1))


@pytest.mark.parametrize("message", [b"\xff" * 9, Beat(pong=Pong(id=9)).SerializeToString()])
def test_any_message_is_a_sign_of_life(message: bytes) -> None:
    beats = Beats(Rhythm(1, 1), 0.0)
    beats.heart.agree(Rhythm(1, 1).wire())
    before_s = beats.heart.doubt_s()
    beats.received(message, 0.75)
    assert beats.heart.doubt_s() == before_s + 0.75


@pytest.mark.parametrize("name", ["can_s", "want_s", "least_s"])
def test_what_would_travel_as_never_is_refused(name: str) -> None:
    for value in (LEAST_S / 2, LONGEST_S + 1):
        with pytest.raises(UsageError, match=name):
            Rhythm(**{name: value})
    for value in (0, LEAST_S, LONGEST_S):
        assert getattr(Rhythm(**{name: value}), name) == value


@pytest.mark.parametrize("mine", [Rhythm(0, 30), Rhythm(30, 30), Rhythm(0, 0)])
@pytest.mark.parametrize("peers", [Rhythm(30, 30), Rhythm(30, 0), Rhythm(0, 0)])
def test_after_a_sleep_there_is_still_a_time_to_look_again(mine: Rhythm, peers: Rhythm) -> None:
    """Also of an end that sends nothing by itself: else a path that died meanwhile would never be doubted."""
    one = Heartbeat(mine, 0.0)
    one.agree(peers.wire())
    now_s, looks = 1000.0, 0
    while one.look(now_s) is not Life.DEAD and looks < 200 and one.hear_every_s != NEVER:
        if one.ping_due(now_s):
            one.ping(now_s)
        now_s, looks = max(now_s + 1e-3, one.next_s()), looks + 1
    assert one.next_s() == one.next_s() and looks < 200  # the first is no number if they differ

# SPDX-License-Identifier: Apache-2.0
"""Whoever has proven nothing takes no place from whoever comes from elsewhere."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest

from holdfast.hold.session.half_open import HalfOpen, Place
from holdfast.hold.transports.target import origin


class Crowd:
    """Newcomers, and who of them was sent away again, in order."""

    def __init__(self, most: int) -> None:
        self.places, self.sent_away = HalfOpen(most), list[str]()
        self.held: dict[str, Place] = {}

    def come(self, name: str) -> bool:
        """One whose origin is the first letter of his name."""
        place = self.places.enter(name[0], lambda: self._go(name))
        if place is not None:
            self.held[name] = place
        return place is not None

    def _go(self, name: str) -> None:
        del self.held[name]
        self.sent_away.append(name)

    @property
    def shares(self) -> Counter[str]:
        return Counter(name[0] for name in self.held)


def test_while_there_are_places_one_origin_may_have_all() -> None:
    crowd = Crowd(8)
    assert [crowd.come(f"a{number}") for number in range(10)] == [True] * 8 + [False] * 2
    assert (len(crowd.places), crowd.sent_away) == (8, [])


def test_a_newcomer_gets_the_oldest_of_the_largest() -> None:
    crowd = Crowd(4)
    for name in ("b1", "a1", "a2", "a3"):
        crowd.come(name)
    assert crowd.come("c1") and crowd.sent_away == ["a1"]
    assert crowd.come("d1") and crowd.sent_away == ["a1", "a2"]
    assert not any(crowd.come(name) for name in ("a4", "b2", "e1"))  # nobody has more than he would
    assert crowd.shares == {"a": 1, "b": 1, "c": 1, "d": 1} and len(crowd.places) == 4


def test_it_ends_with_even_shares() -> None:
    crowd = Crowd(12)
    for number in range(100):
        crowd.come(f"a{number}")
    for number in range(100):
        crowd.come(f"b{number}")
        crowd.come(f"c{number}")
    assert crowd.shares == {"a": 4, "b": 4, "c": 4}


def test_a_place_is_given_back_once() -> None:
    crowd = Crowd(1)
    crowd.come("a1")
    for _ in range(2):
        crowd.places.leave(crowd.held["a1"])
    assert len(crowd.places) == 0
    assert crowd.come("b1") and not crowd.come("a2")


def test_one_that_was_sent_away_gives_nothing_back() -> None:
    crowd = Crowd(2)
    crowd.come("a1")
    evicted = crowd.held["a1"]
    crowd.come("a2")
    assert crowd.come("b1")
    crowd.places.leave(evicted)
    assert len(crowd.places) == 2


def test_whatever_happens_the_places_are_counted_right() -> None:
    chance, crowd = random.Random(7), Crowd(9)
    for number in range(5000):
        if crowd.held and chance.random() < 0.3:
            crowd.places.leave(crowd.held.pop(chance.choice(list(crowd.held))))
        else:
            crowd.come(f"{chance.choice('aaaaabbc')}{number}")
        assert len(crowd.places) == len(crowd.held) <= 9


def test_nothing_is_kept_of_an_origin_whose_places_were_given_back() -> None:
    """Of IPv6 addresses there are enough to fill any memory with what is left of them."""
    places = HalfOpen(4)
    tracemalloc.start()
    try:
        for number in range(2000):
            place = places.enter(f"origin {number}", lambda: None)
            assert place is not None
            places.leave(place)
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_what_one_host_is_taken_to_have(one: str, other: str, same: bool) -> None:
    assert (origin(one) == origin(other)) is same

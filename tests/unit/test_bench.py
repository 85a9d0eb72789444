"""The arithmetic behind published figures. What measures needs a kernel and is run by `make bench`."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import pytest

from bench.frames import SYN, frame
from bench.numbers import Estimate, estimate, ratio, rotations
from bench.soak import GROWTH_BYTES, growth


def test_one_value_is_its_own_interval() -> None:
    assert estimate([3.0]) == Estimate(3.0, 3.0, 3.0)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        estimate([])


def test_the_same_values_give_the_same_interval() -> None:
    values = [1.0, 1.1, 0.9, 1.05, 0.95]
    assert estimate(values) == estimate(values)


def test_the_interval_lies_within_the_values_and_holds_the_median() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    found = estimate(values)
    assert found.value == 3.0
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


@pytest.mark.slow
def test_95_of_100_intervals_hold_the_true_median() -> None:
    """Of a skewed population, as times are; the bootstrap is a little too sure of few values."""
    chance = random.Random(2)
    true_median = 0.6931471805599453
    held = 0
    for _ in range(60):
        found = estimate([chance.expovariate(1) for _ in range(15)], chance.random)
        held += found.low <= true_median <= found.high
    assert held >= 52


def test_what_disturbs_a_whole_round_cancels() -> None:
    plain = [100.0, 50.0, 200.0]
    assert ratio([value * 0.9 for value in plain], plain) == Estimate(0.9, 0.9, 0.9)


def test_rounds_must_be_paired() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0, 2.0], [1.0, 2.0, 3.0])


def test_each_arm_comes_at_each_place_equally_often() -> None:
    orders = rotations(["a", "b", "c"], 6)
    assert [sorted(place) for place in zip(*orders, strict=True)] == [["a", "a", "b", "b", "c", "c"]] * 3
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_a_cache_that_fills_once_is_no_growth() -> None:
    assert growth([10, 20, 30, 40, 50] + [90] * 15) == 0


def test_a_leak_is_growth() -> None:
    leak = [sample * GROWTH_BYTES for sample in range(20)]
    assert growth(leak) > GROWTH_BYTES


def test_the_frame_of_a_syn() -> None:
    """RFC 1071: with a right checksum in it, the sum over all is all ones."""
    made = frame(1234, 9, 1, 0, SYN)
    assert len(made) == 54
    assert _sum(made[14:34]) == 0xFFFF
    pseudo = made[26:34] + bytes([0, 6, 0, 20])
    assert _sum(pseudo + made[34:]) == 0xFFFF


def _sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total

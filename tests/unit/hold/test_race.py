"""Which address is dialled when."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket

import pytest

from holdfast.errors import UsageError
from holdfast.hold.race import Address, Race, interleave

V4, V6 = socket.AF_INET, socket.AF_INET6
A, B, C, D, E = (Address(V6, (name, 1)) for name in "abcde")
R, S, T = (Address(V4, (name, 1)) for name in "rst")
LOSS = OSError("lost")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([A, B, R, S], [A, R, B, S]),
        ([R, S, A, B], [R, A, S, B]),
        ([A, B, C, R], [A, R, B, C]),
        ([A, R, S, T], [A, R, S, T]),
        ([A, B], [A, B]),
        ([R], [R]),
        ([], []),
    ],
)
def test_families_take_turns_and_the_first_one_begins(given: list[Address], expected: list[Address]) -> None:
    assert interleave(given) == expected


#   at,  what happened since   dialled now, the next is due in
TRANSCRIPTS: dict[str, list[tuple[float, str, list[Address], float | None]]] = {
    "each has a head start": [
        (0.0, "", [A], 0.25),
        (0.2, "", [], 0.05),
        (0.25, "", [R], 0.25),
        (0.5, "", [B], None),
    ],
    "a loss makes the next one due at once": [
        (0.0, "", [A], 0.25),
        (0.1, "lost", [R], 0.25),
        (0.1, "lost", [B], None),
    ],
    "several losses at once start one address": [
        (0.0, "", [A], 0.25),
        (0.3, "", [R], 0.25),
        (0.4, "lost lost", [B], None),
    ],
    "a late look starts one address": [(0.0, "", [A], 0.25), (9.0, "", [R], 0.25)],
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(name: str) -> None:
    race = Race([A, R, B])
    for at_s, happened, expected, due_s in TRANSCRIPTS[name]:
        for _ in happened.split():
            race.lost(LOSS)
        taken = []
        while (address := race.take(at_s)) is not None:
            taken.append(address)
        wait_s = race.wait_s(at_s)
        assert (taken, wait_s if wait_s is None else round(wait_s, 9)) == (expected, due_s), f"at {at_s}"


def test_it_is_over_when_all_have_failed() -> None:
    race = Race([A, R])
    seen = [race.over]
    for _ in range(2):
        race.take(0.0)
        seen.append(race.over)
        race.lost(LOSS)
        seen.append(race.over)
    assert (seen, race.losses) == ([False, False, False, False, True], [LOSS, LOSS])


def test_a_race_of_nobody_is_over() -> None:
    race = Race([])
    assert (race.over, race.take(0.0), race.wait_s(0.0)) == (True, None, None)


@pytest.mark.parametrize("delay_s", [0.0, 0.009, 2.001, -1.0, float("nan")])
def test_a_delay_outside_the_standard_is_refused(delay_s: float) -> None:
    with pytest.raises(UsageError, match=r"from 0\.01 to 2"):
        Race([A], delay_s)


def test_what_is_added_waits_behind_the_others_and_for_their_head_start() -> None:
    race = Race([A])
    assert race.take(0.0) == A and race.wait_s(0.0) is None
    race.add([R, B])
    assert (race.take(0.1), race.wait_s(0.1)) == (None, pytest.approx(0.15))
    assert (race.take(0.25), race.take(0.25), race.take(0.5)) == (R, None, B)
    race = Race([A])
    race.take(0.0)
    race.lost(LOSS)
    race.add([R])
    assert race.take(0.1) == R

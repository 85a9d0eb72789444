# SPDX-License-Identifier: Apache-2.0
"""A value that makes no sense is refused where it is given, with a sentence that says what is allowed."""

from __future__ import annotations

from itertools import product
from math import inf, nan
from typing import Any

import pytest

from holdfast import SessionPolicy, UsageError
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.host import Host
from holdfast.hold.session.terms import Memory, Terms
from holdfast.policy import DEFAULT_PROFILE, Backoff, RetryBudget

NO_NUMBERS = (True, False, nan, "5", b"5", [], {}, 5j)
WHOLE = (*NO_NUMBERS, None, -1, 0, 15, 1.5, 4096.0, inf, -inf, 1 << 60, 10**400, 10**5000)
SECONDS = (*NO_NUMBERS, None, -1, -0.5, 0, 1e-9, inf, -inf, 1e300, 10**400, 10**5000)
BOTH = (Terms, SessionPolicy)

# What is refused: of which class, in which field, the values, what the sentence says is allowed.
REFUSED: list[tuple[type, str, tuple[Any, ...], str]] = [
    *((kind, "window_bytes", WHOLE, "from 16 to 1073741824") for kind in BOTH),
    *((kind, "frame_bytes", WHOLE, "from 16 to 1048512") for kind in BOTH),
    (Terms, "transport_bytes", tuple(one for one in WHOLE if one is not None), "from 16 to"),
    *((kind, "keep_s", SECONDS, "at least 0.001 and at most 604800") for kind in BOTH),
    *((kind, "handshake_s", SECONDS, "at least 0.001 and at most 300") for kind in BOTH),
    (Terms, "rhythm", (None, 5, "30", Rhythm), "a Rhythm"),
    (SessionPolicy, "rhythm", (5, "30", Rhythm), "a Rhythm"),
    (SessionPolicy, "profile", (None, 5, "lan", type(DEFAULT_PROFILE)), "a Profile"),
    (SessionPolicy, "backoff", (None, 5, "1", Backoff), "a Backoff"),
    (SessionPolicy, "budget", (None, 5, "1", RetryBudget), "a RetryBudget"),
    (SessionPolicy, "follow_location", (None, 0, 1, "yes", nan), "True or False"),
    *(
        (Rhythm, name, (*NO_NUMBERS, None, -1, 1e-9, 0.0009, inf, 3601, 10**400), "at most 3600")
        for name in ("can_s", "want_s", "least_s")
    ),
]
ROWS = [
    pytest.param(kind, name, value, said, id=f"{kind.__name__} {name} {type(value)!s} {number}")
    for kind, name, values, said in REFUSED
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("kind", "name", "value", "said"), ROWS)
def test_what_makes_no_sense_is_refused(kind: type, name: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**{name: value})
    assert str(caught.value).startswith(f"{name} is ") and len(str(caught.value)) < 300
    assert said in str(caught.value)


def test_every_field_has_its_rows() -> None:
    for kind in (*BOTH, Rhythm):
        assert {name for one, name, _, _ in REFUSED if one is kind} == set(kind.__match_args__)


@pytest.mark.parametrize("kind", BOTH)
def test_the_ends_of_each_range_are_taken(kind: type) -> None:
    for window, frame in product((16, 1 << 30), (16, 1048512)):
        kind(window_bytes=window, frame_bytes=frame, keep_s=0.001, handshake_s=300)
    kind(keep_s=604800, handshake_s=0.001, rhythm=Rhythm(0, 0.001, 3600))


@pytest.mark.parametrize("name", ["most_sessions", "most_half_open"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, None, -1, 1.5, inf, 1 << 60])
def test_a_server_of_no_size_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*: give a"):
        Host(Terms(), Memory(), bytes(48), **{name: value})

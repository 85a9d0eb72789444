# SPDX-License-Identifier: Apache-2.0
"""Kernel state numbers are spelled as RFC 9293 spells them."""

from __future__ import annotations

import pytest

from holdfast.linux import states


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "ESTABLISHED"),
        (2, "SYN_SENT"),
        (3, "SYN_RECEIVED"),
        (4, "FIN_WAIT_1"),
        (5, "FIN_WAIT_2"),
        (6, "TIME_WAIT"),
        (7, "CLOSED"),
        (8, "CLOSE_WAIT"),
        (9, "LAST_ACK"),
        (10, "LISTEN"),
        (11, "CLOSING"),
        (12, "NEW_SYN_RECV"),
        (13, "BOUND_INACTIVE"),
        (0, None),
        (14, None),
        (-1, None),
    ],
)
def test_names(number: int, name: str | None) -> None:
    assert states.name(number) == name


def test_numbers_are_the_names_turned_round() -> None:
    assert {number: name for name, number in states.NUMBERS.items()} == states.STATES

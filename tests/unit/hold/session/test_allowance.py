# SPDX-License-Identifier: Apache-2.0
"""The credit of a transport: given when it is worth a frame, and never taken back."""

from __future__ import annotations

import pytest

from holdfast.hold.session.allowance import Allowance
from holdfast.hold.session.codes import Code, Violation


def test_what_was_allowed_once_stays_allowed() -> None:
    allowance = Allowance(1000, 500)
    allowance.told(0, 700)
    allowance.told(0, 600)  # an older word, or a mistake
    assert allowance.left == 700


def test_a_peer_that_sets_no_limit_sets_none_later() -> None:
    allowance = Allowance(1000, 0)
    allowance.told(0, 10)
    assert allowance.left > 1 << 40


def test_nothing_is_granted_that_is_not_worth_a_frame() -> None:
    allowance = Allowance(1000, 0)
    allowance.arrived(600)
    assert not allowance.grant(351) and allowance.limit == 1000
    assert allowance.grant(350) and allowance.limit == 1250


def test_anything_is_worth_a_frame_to_a_peer_that_has_nothing_left() -> None:
    allowance = Allowance(1000, 0)
    allowance.arrived(1000)
    assert not allowance.grant(1000)
    assert allowance.grant(999) and allowance.limit == 1001


def test_a_peer_is_short_when_half_of_it_is_used() -> None:
    """Soon enough for a grant to reach it before it has to wait."""
    allowance = Allowance(1000, 0)
    allowance.arrived(500)
    assert not allowance.short
    allowance.arrived(1)
    assert allowance.short


def test_the_limit_itself_may_be_reached_and_not_passed() -> None:
    allowance = Allowance(1000, 0)
    allowance.arrived(1000)
    with pytest.raises(Violation) as caught:
        allowance.arrived(1)
    assert caught.value.code is Code.OVER_CREDIT

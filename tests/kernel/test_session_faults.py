# SPDX-License-Identifier: Apache-2.0
"""A session in the lab's networks goes on through what a real kernel does to it, and loses nothing."""

from __future__ import annotations

import pytest

from bench.session_faults import FAULTS, Fault, restart, suffer

pytestmark = pytest.mark.needs_netns

RESETS = ("nftables", "raw socket", "ss -K")


def resets(fault: Fault) -> bool:
    return any(word in fault.name for word in RESETS)


def unhurt(fault: Fault, times: int) -> float:
    """Hurt it so often; the longest silence after the path was well again."""
    found = suffer(fault, times)
    assert (found.missing, found.wrong, found.lost) == (0, 0, None)
    assert found.sent > 100
    if resets(fault):
        assert found.resumes >= times
    return max(found.after_s)


QUICK = [fault for fault in FAULTS if fault.name == "`ss -K`"]


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_resets(fault: Fault) -> None:
    assert unhurt(fault, 2) < 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault(fault: Fault) -> None:
    assert unhurt(fault, min(fault.times, 2)) < 5


@pytest.mark.slow
def test_a_restarted_server_is_noticed_and_not_looped_on() -> None:
    after_s, why = restart()
    assert why == "the server was restarted and has forgotten it"
    assert after_s < 2

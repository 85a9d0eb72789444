# SPDX-License-Identifier: Apache-2.0
"""Every scenario, made now and captured at three places, is explained as well as each place can know."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_captures import PLACES, captured, true_sender, write
from lab_known import KNOWN, agrees

from holdfast.lab import SCENARIOS
from holdfast.lab.scenario import Scenario
from holdfast.watch.explain import Explaining

MADE = [
    pytest.param(scenario, family, id=f"{name}-ipv{family}")
    for name, scenario in SCENARIOS.items()
    if not scenario.vm_only
    for family in scenario.families
]


@pytest.mark.slow
@pytest.mark.needs_netns
@pytest.mark.parametrize(("scenario", "family"), MADE)
def test_each_place_says_what_it_can_know(scenario: Scenario, family: int, tmp_path: Path) -> None:
    scenario.check()
    label, seen, client_ip = captured(scenario, family)
    files = write(tmp_path, scenario.name, {place: seen[place] for place in PLACES if seen.get(place)})
    for place, file in files.items():
        found = Explaining([[str(file)]]).run().found
        told = [(one.cause, one.sender) for one in found]
        assert agrees(KNOWN[scenario.name].at(place), found), (place, told)
        if place == "client":
            assert {sender for _, sender in told} <= {true_sender(label, client_ip), "unknown"}

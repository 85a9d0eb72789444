"""Make every kind of reset for real, in private networks that leave nothing behind."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.lab.label import Label, ScenarioFailed
from holdfast.lab.network import Network, NoNetwork
from holdfast.lab.runner import Made, make, run
from holdfast.lab.scenario import Needs, Scenario, find
from holdfast.lab.scenarios import NOT_MADE, SCENARIOS

__all__ = [
    "NOT_MADE",
    "SCENARIOS",
    "Label",
    "Made",
    "Needs",
    "Network",
    "NoNetwork",
    "Scenario",
    "ScenarioFailed",
    "find",
    "make",
    "run",
]

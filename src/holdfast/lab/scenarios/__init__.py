"""All scenarios, by theme; importing this package registers them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.causes import CAUSES
from holdfast.lab.scenario import SCENARIOS
from holdfast.lab.scenarios import (
    closing,
    fastopen,
    firewall,
    forged,
    handshake,
    machine,
    mptcp,
    received,
    timers,
)

__all__ = [
    "NOT_MADE",
    "SCENARIOS",
    "closing",
    "fastopen",
    "firewall",
    "forged",
    "handshake",
    "machine",
    "mptcp",
    "received",
    "timers",
]

NOT_MADE: dict[str, str] = {
    cause.id: cause.not_made
    for cause in CAUSES.values()
    if cause.not_made and cause.id not in {made.cause for made in SCENARIOS.values()}
}
"""Causes without a scenario, each with the reason."""

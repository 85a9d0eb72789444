# SPDX-License-Identifier: Apache-2.0
"""Two ends and a hostile network, 2,000 seeds: not one byte lost, doubled or reordered, and an end to it."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
from simulation.mutants import MUTANTS, caught
from simulation.world import run

SEEDS = 2_000
BATCH = 100


def survive(first: int) -> tuple[int, int]:
    """How many transports and resumes a batch of seeds took; it raises when one breaks the promise."""
    worlds = [run(seed) for seed in range(first, first + BATCH)]
    resumes = sum(world.client.session.resumes for world in worlds if world.client.session)
    return sum(world.transports for world in worlds), resumes


def test_no_byte_is_lost_doubled_or_reordered() -> None:
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        transports, resumes = map(sum, zip(*pool.map(survive, range(0, SEEDS, BATCH)), strict=True))
    # So many times was it put to the test: a simulator that breaks nothing proves nothing.
    assert transports > 3 * SEEDS
    assert resumes > SEEDS


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protocol_with_a_known_mistake_is_caught(name: str) -> None:
    found = next(filter(None, map(partial(caught, name), range(400))), None)
    assert found is not None, f"{name} went unnoticed"

"""What may be said of repeated measurements: a middle, and how far it can be trusted."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median, with the interval that holds the true one with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def estimate(values: Sequence[float], chance: Callable[[], float] | None = None) -> Estimate:
    """The median of ``values``, its interval by bootstrap (percentiles of the medians of resamples).

    Args:
        values: at least one; alike in everything but chance.
        chance: returns numbers in [0, 1); by default the same sequence at each call.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    draw = chance or random.Random(1).random
    count = len(values)
    middles = sorted(
        median([values[int(draw() * count)] for _ in range(count)])
        for _ in range(RESAMPLES if count > 1 else 1)
    )
    edge = int(len(middles) * 0.025)
    return Estimate(median(values), middles[edge], middles[-1 - edge])


def ratio(
    ours: Sequence[float], plain: Sequence[float], chance: Callable[[], float] | None = None
) -> Estimate:
    """How ``ours`` compares with ``plain``: the median of the ratios, round by round.

    What disturbs a whole round (other work on the machine) disturbs both and cancels.

    Raises:
        ValueError: not the same number of rounds, or none.
    """
    return estimate([a / b for a, b in zip(ours, plain, strict=True)], chance)


def rotations(arms: Sequence[str], rounds: int) -> list[list[str]]:
    """The order of the arms in each round: every arm comes first, second, ... equally often."""
    count = len(arms)
    return [[arms[(turn + place) % count] for place in range(count)] for turn in range(rounds)]

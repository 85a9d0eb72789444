# SPDX-License-Identifier: Apache-2.0
"""What one seed does to two ends and what lies between them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Plan:
    """What one seed does.

    Attributes:
        cut_at: after how many bytes each transport breaks, by direction; None: it does not.
        moves: when the client dials although its transport is well, as after a change of address.
        stalls: when and for how long an end stands still: (end, at, for).
        jumps: when an end's clock leaps forward: (end, at, by), as when a laptop slept.
    """

    seed: int
    sealed: bool
    windows: tuple[int, int]
    frame_bytes: int
    sizes: tuple[int, int]
    cuts: int
    replay_first_flights: bool
    double_dials: float
    moves: list[float] = field(default_factory=list)
    stalls: list[tuple[str, float, float]] = field(default_factory=list)
    jumps: list[tuple[str, float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(seed)
        return cls(
            seed=seed,
            sealed=chance.random() < 0.4,
            windows=(chance.randint(32, 700), chance.randint(32, 700)),
            frame_bytes=chance.choice((16, 40, 100, 1000)),
            sizes=(chance.randint(0, 2500), chance.randint(0, 2500)),
            cuts=chance.randint(0, 18),
            replay_first_flights=chance.random() < 0.3,
            double_dials=chance.choice((0.0, 0.0, 0.1)),
            moves=[chance.uniform(0, 2) for _ in range(chance.choice((0, 0, 1, 3)))],
            stalls=[
                (chance.choice(("client", "server")), chance.uniform(0, 3), chance.uniform(0.1, 8))
                for _ in range(chance.choice((0, 0, 0, 1, 2)))
            ],
            jumps=[
                (chance.choice(("client", "server")), chance.uniform(0, 3), chance.uniform(1, 60))
                for _ in range(chance.choice((0, 0, 0, 1)))
            ],
        )

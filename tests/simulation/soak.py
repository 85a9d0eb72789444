# SPDX-License-Identifier: Apache-2.0
"""``python -m simulation.soak``: a hundred thousand seeds; prints what they went through, 1 if one broke."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from simulation.ends import Broken
from simulation.world import run

SEEDS, BATCH = 100_000, 500


def batch(first: int) -> tuple[Counter[str], list[str]]:
    """What so many seeds went through, and which of them broke."""
    seen: Counter[str] = Counter()
    broken = []
    for seed in range(first, first + BATCH):
        try:
            world = run(seed)
        except (Broken, AssertionError) as error:
            broken.append(f"seed {seed}: {error}")
            continue
        assert world.client.session is not None
        seen["transports"] += world.transports
        seen["resumes"] += world.client.session.resumes
        seen["bytes"] += len(world.client.read) + len(world.server.read)
        replayed = world.client.session.replayed_bytes
        if world.server.session is not None:
            replayed += world.server.session.replayed_bytes
        seen["replayed bytes"] += replayed
    return seen, broken


def main() -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(prog="python -m simulation.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: %(default)s)")
    seeds = parser.parse_args().seeds
    begun = time.monotonic()
    total: Counter[str] = Counter()
    failures: list[str] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, (seen, broken) in enumerate(pool.map(batch, range(0, seeds, BATCH)), 1):
            total += seen
            failures += broken
            if done % 20 == 0:
                print(f"soak: {done * BATCH:,} seeds, {len(failures)} broken", file=sys.stderr)
    facts = ", ".join(f"{count:,} {name}" for name, count in total.items())
    print(f"{seeds:,} seeds in {time.monotonic() - begun:.0f} s: {facts}; broken: {len(failures)}")
    for line in failures[:20]:
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""What receiving a message costs, ours beside what a Python program has without us."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import report
from bench.numbers import Estimate, ratio, rotations
from bench.receive_arms import FLOOR, OURS, PLAIN, READER, STREAM, Arm, Cost, Feed, arms
from bench.tools import HERE, say

ROUNDS = 15
SIZES = {"64 B": 64, "64 KiB": 1 << 16}

# Rule: size, arm, what it is compared with, the most that the ratio of CPU times may be.
TARGETS = (
    ("64 B", OURS, PLAIN, 1.15),
    ("64 KiB", OURS, PLAIN, 1.05),
)
RATE_TARGET = 3.0
"""Messages of 64 B on asyncio: our rate over StreamReader's, at least."""

Costs = dict[str, list[Cost]]


def cpu_ratio(ours: Sequence[Cost], plain: Sequence[Cost]) -> Estimate:
    """How the CPU times compare, round by round."""
    return ratio([cost.cpu_ns for cost in ours], [cost.cpu_ns for cost in plain])


def wall_ratio(ours: Sequence[Cost], plain: Sequence[Cost]) -> Estimate:
    """How the elapsed times compare, round by round."""
    return ratio([cost.wall_ns for cost in ours], [cost.wall_ns for cost in plain])


class Receive:
    """Rounds in which every way to receive gets its turn, in rotating order, at each size."""

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        with TemporaryDirectory(prefix="holdfast-bench-") as folder:
            self._arms = arms(_compile_floor(Path(folder)))
            costs = {name: self._rounds(name, size) for name, size in SIZES.items()}
        for name, measured in costs.items():
            _show(name, measured)
        report.note(
            f"Python {platform.python_version()}. Medians of {ROUNDS} rounds; ratios round by round, with "
            "95 % interval. The data is there before the clock starts."
        )
        _judge(verdicts, costs)

    def _rounds(self, name: str, size_bytes: int) -> Costs:
        costs: Costs = {arm: [] for arm in self._arms}
        for turn, order in enumerate(rotations(list(self._arms), ROUNDS)):
            say(f"receive: {name}, round {turn + 1} of {ROUNDS}")
            for arm in order:
                costs[arm].append(_measure(self._arms[arm], size_bytes))
        return costs


def _compile_floor(folder: Path) -> Path:
    made = folder / "receive_floor.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(made), str(HERE / "receive_floor.c")], check=True, timeout=60)
    return made


def _measure(arm: Arm, size_bytes: int) -> Cost:
    feed = Feed(size_bytes)
    arm(feed)
    return feed.close()


def _show(name: str, costs: Costs) -> None:
    report.heading(f"Receiving messages of {name}, one call a message")
    rows = [
        [
            arm,
            f"{median(cost.cpu_ns for cost in mine):,.0f}",
            f"{cpu_ratio(mine, costs[FLOOR]).value:.2f}",
            str(cpu_ratio(mine, costs[PLAIN])),
            f"{wall_ratio(mine, costs[PLAIN]).value:.2f}",
        ]
        for arm, mine in costs.items()
    ]
    report.table(["way", "CPU ns/message", "x C recv", "CPU x socket.recv_into", "wall x recv_into"], rows)


def _judge(verdicts: report.Verdicts, costs: dict[str, Costs]) -> None:
    for size, arm, plain, bar in TARGETS:
        found = cpu_ratio(costs[size][arm], costs[size][plain])
        promise = f"{arm} over {plain}, {size}"
        verdicts.add(promise, f"<= {bar:.2f}", str(found), found.value <= bar)
    rates = cpu_ratio(costs["64 B"][READER], costs["64 B"][STREAM])
    verdicts.add(
        "asyncio, 64 B: Stream's rate over StreamReader's",
        f">= {RATE_TARGET:.2f}",
        str(rates),
        rates.value >= RATE_TARGET,
    )

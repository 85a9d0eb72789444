"""What Holdfast takes from traffic that has no resets: rates with it over rates without it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from statistics import median

from bench import report
from bench.network import Namespace
from bench.numbers import ratio, rotations
from bench.tools import Tools, say
from bench.watcher import Watcher

PLAIN = "without"
ARMS = {PLAIN: None, "Holdfast": True, "Holdfast, --no-segments": False}
ROUNDS, ROUND_S = 15, 0.7
UNITS = {"connect": ("connections/s", 1.0), "bulk": ("GB/s", 1e9)}


class Slowdown:
    """Rounds in which each arm runs once, in rotating order."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def run(self) -> None:
        """Measure and print."""
        rows = []
        with Namespace() as space, Watcher() as watcher:
            space.set(tcp_max_tw_buckets="1000", ip_local_port_range="1024 65535")
            self._space, self._watcher = space, watcher
            for what, (unit, scale) in UNITS.items():
                rates = self._rounds(what)
                for arm in ARMS:
                    compared = "" if arm == PLAIN else str(ratio(rates[arm], rates[PLAIN]))
                    rows.append([f"{what}, {arm}", f"{median(rates[arm]) / scale:,.4g} {unit}", compared])
        report.heading(f"Traffic without resets on loopback, {ROUNDS} rounds of {ROUND_S} s")
        report.table(["traffic", "median rate", "ratio to without (95 % interval)"], rows)

    def _rounds(self, what: str) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for turn, order in enumerate(rotations(list(ARMS), ROUNDS)):
            say(f"traffic: {what}, round {turn + 1} of {ROUNDS}")
            for arm in order:
                rates[arm].append(self._rate(what, ARMS[arm]))
        return rates

    def _rate(self, what: str, segments: bool | None) -> float:
        if segments is not None:
            self._watcher.ask("start", segments=segments)
        done, nanoseconds = map(int, self._space.run([str(self._tools.traffic), what, str(ROUND_S)]).split())
        if segments is not None:
            self._watcher.ask("stop")
        return done / nanoseconds * 1e9

"""``python -m bench.soak``: a million real resets through Holdfast; its memory must stay flat.

Two kinds take turns, so that every part works: connections that are really made and then aborted
(every one with owner, harm and call path, both ends here), and answers to SYNs for a closed port.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import sys
import time

from bench import report
from bench.frames import syn_flood
from bench.network import Namespace, Pair
from bench.tools import Tools, machine, say
from bench.watcher import Watcher

RESETS = 1_000_000
SAMPLES = 20
WARM_SAMPLES = 5
"""The first quarter: caches of names and addresses fill, up to their bounds."""

GROWTH_BYTES = 8 << 20
ABORTS_S, FLOOD_RATE = 1.0, 60_000


def main() -> int:
    """Make them, sample, print the series; 1 if memory grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--resets", type=int, default=RESETS, help="how many (default: %(default)s)")
    resets = parser.parse_args().resets
    begun = time.monotonic()
    report.note(time.strftime("%Y-%m-%d %H:%M %Z; ") + machine())
    with Tools() as tools, Pair() as pair, Namespace() as space, Watcher() as watcher:
        series = Soak(tools, pair, space, watcher).run(resets)
    grown = growth(series)
    report.note(f"from sample {WARM_SAMPLES} on: {grown / 1e6:+.1f} MB; bound: {GROWTH_BYTES / 1e6:.1f} MB")
    say(f"took {time.monotonic() - begun:.0f} s")
    if grown > GROWTH_BYTES:
        print("memory grew", file=sys.stderr)
        return 1
    return 0


def growth(series: list[int]) -> int:
    """Bytes by which the last quarter's highest is above the highest before it, warm-up left out.

    A leak raises every later sample; a cache that fills late raises one, and no more.
    """
    warm = series[WARM_SAMPLES:]
    split = len(warm) * 3 // 4
    return max(warm[split:]) - max(warm[:split])


class Soak:
    """The resets, and the process that watches them."""

    def __init__(self, tools: Tools, pair: Pair, space: Namespace, watcher: Watcher) -> None:
        self._tools, self._pair, self._space, self._watcher = tools, pair, space, watcher
        self._frames = syn_flood()

    def run(self, resets: int) -> list[int]:
        """Resident bytes after each share; prints the series."""
        self._watcher.ask("start")
        self._space.set(ip_local_port_range="1024 65535")
        rows, series, made = [], [], 0
        for sample in range(1, SAMPLES + 1):
            while made < resets * sample // SAMPLES:
                made += self._make(resets * sample // SAMPLES - made)
            told = self._watcher.ask("report")
            series.append(int(told["rss_bytes"]))
            seen = sum(count for kind, _, count in told["totals"] if kind == "reset_sent")
            say(f"soak: {made:,} resets, {series[-1] / 1e6:.1f} MB")
            rows.append([f"{made:,}", f"{seen:,}", f"{told['records']:,}", f"{told['lost']:,}"])
            rows[-1].append(f"{series[-1] / 1e6:.1f}")
        self._watcher.ask("stop")
        report.heading("Resident memory of the process that watches")
        report.table(["resets made", "sent, as counted", "records", "detail lost", "RSS MB"], rows)
        return series

    def _make(self, wanted: int) -> int:
        aborted = int(self._space.run([str(self._tools.traffic), "abort", str(ABORTS_S)]).split()[0])
        rest = max(wanted - aborted, 0)
        if not rest:
            return aborted
        before = self._pair.target.counters().get("OutRsts", 0)
        seconds = str(rest / FLOOD_RATE)
        self._pair.source.run([str(self._tools.flood), "v0", seconds, str(FLOOD_RATE)], self._frames)
        return aborted + self._pair.target.counters()["OutRsts"] - before


if __name__ == "__main__":
    sys.exit(main())

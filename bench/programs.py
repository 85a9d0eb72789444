"""What the BPF programs cost: nanoseconds and runs, for each connection and each packet."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from statistics import median

from bench import report
from bench.network import Namespace
from bench.tools import Tools, say
from holdfast import _bpf
from holdfast.linux.cgroups import find_mount
from holdfast.watch.kernel.source import KernelSource

ROUNDS, ROUND_S = 5, 1.0
CONNECTION_NS, PACKET_NS = 2500, 60

# Rule: each program of ours, and the empty one whose timing stands for its own.
EMPTY = {
    "state_changed": "empty_state",
    "segment_left": "empty_left",
    "segment_dropped": "empty_left",
    "segment_arrived": "empty_arrived",
}

PACKET_PROGRAMS = ("segment_arrived", "segment_left")

STRAY = 0.05
"""Fewer runs for each unit than this come from other work on the machine."""

Statistics = Mapping[str, tuple[int, int]]
Costs = Mapping[str, tuple[float, float]]
Cost = Mapping[str, float]


def delta(before: Statistics, after: Statistics) -> dict[str, tuple[int, int]]:
    """Runs and nanoseconds between two readings, of the programs that ran."""
    moved = {name: (after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in after}
    return {name: (runs, ns) for name, (runs, ns) in moved.items() if runs}


class Programs:
    """Traffic on loopback in a namespace, with the kernel timing our programs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        descriptor = _bpf.enable_statistics()
        try:
            with Namespace() as space:
                space.set(tcp_max_tw_buckets="1000", ip_local_port_range="1024 65535")
                self._space = space
                own_ns = self._timing_ns()
                connections = self._rounds("connect", segments=True)
                lean = self._rounds("connect", segments=False)
                bulk = self._rounds("bulk", segments=True)
        finally:
            os.close(descriptor)
        self._show(own_ns, connections, lean)
        self._show_packets(own_ns, connections, bulk)
        self._judge(verdicts, own_ns, connections, lean, bulk)

    def _timing_ns(self) -> dict[str, float]:
        say("BPF time: empty programs")
        empty = _bpf.Object(str(self._tools.hooks))
        names = sorted(set(EMPTY.values()))
        empty.load(names)
        root = os.open(find_mount() or "/sys/fs/cgroup", os.O_RDONLY)
        for name in names:
            empty.attach(name, root) if name == "empty_arrived" else empty.attach(name)
        os.close(root)
        rounds = [self._one(empty.statistics, "connect")[1] for _ in range(ROUNDS)]
        empty.close()
        return {name: median(ns / runs for runs, ns in (one[name] for one in rounds)) for name in names}

    def _one(self, statistics: Callable[[], Statistics], what: str) -> tuple[int, dict[str, tuple[int, int]]]:
        before = statistics()
        done = int(self._space.run([str(self._tools.traffic), what, str(ROUND_S)]).split()[0])
        return done, delta(before, statistics())

    def _rounds(self, what: str, segments: bool) -> dict[str, tuple[float, float]]:
        """Of each program (runs a unit of traffic, nanoseconds a run), medians of the rounds."""
        say(f"BPF time: {what}" + ("" if segments else " with --no-segments"))
        rounds = []
        with KernelSource(segments=segments) as source:
            for _ in range(ROUNDS):
                done, moved = self._one(source.statistics, what)
                source.drain()
                rounds.append({name: (runs / done, ns / runs) for name, (runs, ns) in moved.items()})
        return {
            name: (
                median(r[name][0] for r in rounds if name in r),
                median(r[name][1] for r in rounds if name in r),
            )
            for name in sorted({name for r in rounds for name in r})
            if what == "bulk" or median(r.get(name, (0, 0))[0] for r in rounds) > STRAY
        }

    # ---- what it says

    def _show(self, own_ns: Cost, connections: Costs, lean: Costs) -> None:
        report.heading(
            "BPF time for each connection (connect, 64 bytes there and back, close; both ends here)"
        )
        rows = []
        for label, costs in (("", connections), (" (--no-segments)", lean)):
            for name, (runs, ns) in costs.items():
                own = own_ns.get(EMPTY.get(name, ""), 0)
                rows.append(
                    [name + label, f"{runs:.1f}", f"{ns:.0f}", f"{own:.0f}", f"{runs * (ns - own):.0f}"]
                )
            total, net = _total(costs, {}), _total(costs, own_ns)
            rows.append([f"all{label}", "", f"{total:.0f}", "", f"{net:.0f}"])
            rows.append([f"all, per end{label}", "", f"{total / 2:.0f}", "", f"{net / 2:.0f}"])
        report.table(
            ["program", "runs", "ns/run as timed", "of it the timing", "ns/connection without"], rows
        )
        report.note(
            "'all' as timed is the sum of runs x ns; 'the timing' is what an empty program is said to take."
        )

    def _show_packets(self, own_ns: Cost, connections: Costs, bulk: Costs) -> None:
        report.heading("BPF time for each packet without RST")
        rows = []
        for label, costs in (("in connect/echo/close", connections), ("in bulk", bulk)):
            for name in PACKET_PROGRAMS:
                _, ns = costs[name]
                rows.append([f"{name}, {label}", f"{ns:.0f}", f"{own_ns[EMPTY[name]]:.0f}"])
                rows[-1].append(f"{ns - own_ns[EMPTY[name]]:.0f}")
        report.table(["program", "ns/packet as timed", "of it the timing", "ns/packet without"], rows)

    def _judge(
        self, verdicts: report.Verdicts, own_ns: Cost, connections: Costs, lean: Costs, bulk: Costs
    ) -> None:
        for label, costs in (("", connections), (", --no-segments", lean)):
            net, timed = _total(costs, own_ns), _total(costs, {})
            told = f"{net:.0f} ns ({timed:.0f} as timed)"
            verdicts.add(
                f"BPF for a connection, both ends{label}", f"{CONNECTION_NS} ns", told, net <= CONNECTION_NS
            )
        for name in PACKET_PROGRAMS:
            worst = max(costs[name][1] for costs in (connections, bulk))
            net = worst - own_ns[EMPTY[name]]
            told = f"{net:.0f} ns ({worst:.0f} as timed)"
            verdicts.add(f"packet without RST, {name}", f"{PACKET_NS} ns", told, net <= PACKET_NS)


def _total(costs: Costs, own_ns: Cost) -> float:
    return sum(runs * (ns - own_ns.get(EMPTY.get(name, ""), 0)) for name, (runs, ns) in costs.items())

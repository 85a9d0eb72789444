"""What reading a capture costs: ours beside tcpdump, tshark, Python's libraries and the least there is."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import report
from bench.numbers import ratio, rotations
from bench.tools import HERE, say

PACKETS, LIVE, SEED = 6_000_000, 20_000, 7
MANY_LIVE = 300_000
ROUNDS = 5
RST_FILTER = "(tcp[tcpflags] & tcp-rst != 0) or (ip6[6] = 6 and ip6[53] & 4 != 0)"

RATE_TARGET = 6.0
"""Million packets per second of one processor, at least."""
TCPDUMP_TARGET = 1.5
"""Our processor time over that of tcpdump's bare filter, at most."""
TSHARK_TARGET = 100.0
"""Times faster than tshark, at least."""
MEMORY_TARGET_MB = 250
JUDGING_TARGET_US = 60.0
"""Python for each judged reset connection, at most; taking it over from the parser is told apart."""

OURS = """
import sys
from holdfast.watch.capture import read_captures
reading = read_captures([sys.argv[1]])
flows = sum(1 for _ in reading)
print(reading.summary.packets, reading.summary.connections, flows)
"""

JUDGING = """
import gc, sys, time
from holdfast.watch.capture import read_captures, wire
from holdfast.watch.capture.reading import BATCH
from holdfast.watch.diagnose.judge import judge_all
clock, decode, decoding_ns, judging_ns, kept = time.thread_time_ns, wire.flow, 0, 0, []
def timed(record):
    global decoding_ns
    began_ns = clock()
    flow = decode(record)
    decoding_ns += clock() - began_ns
    return flow
wire.flow = timed
gc.disable()  # as holdfast explain does
for flows in read_captures([sys.argv[1]]).batches(BATCH):  # likewise
    began_ns = clock()
    kept += judge_all(flows, sys.argv[1:2])
    judging_ns += clock() - began_ns
print(decoding_ns / len(kept) / 1000, judging_ns / len(kept) / 1000)
"""

DPKT = """
import socket, sys
import dpkt
connections = {}
with open(sys.argv[1], "rb") as file:
    for _, frame in dpkt.pcap.Reader(file):
        ip = dpkt.ethernet.Ethernet(frame).data
        tcp = ip.data
        key = frozenset(((ip.src, tcp.sport), (ip.dst, tcp.dport)))
        connections[key] = connections.get(key, 0) | tcp.flags
print(len(connections))
"""

SCAPY = """
import sys
from scapy.layers.inet import TCP
from scapy.utils import PcapReader
with PcapReader(sys.argv[1]) as reader:
    print(sum(1 for packet in reader if TCP in packet and packet[TCP].flags.R))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took: processor seconds and the most memory."""

    cpu_s: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to read: a command with ``FILE`` in it, and how many packets it is given."""

    name: str
    command: list[str]
    packets: int = PACKETS


@dataclass(frozen=True, slots=True)
class Judging:
    """Processor time for each reset connection: to take it over from the parser, and to judge it."""

    decoding_us: float
    judging_us: float


def cost_of(command: list[str]) -> Cost | None:
    """Run it to its end; None if it failed or is not there."""
    try:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return None
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        return None
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Capture:
    """A capture is made, and read in every way."""

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        with TemporaryDirectory(prefix="holdfast-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
            folder = Path(name)
            for program in ("capture_packets", "capture_floor"):
                flags = ["-O3", "-Wall", "-Wextra", "-Werror"]
                source, target = str(HERE / f"{program}.c"), str(folder / program)
                subprocess.run(["gcc", *flags, "-o", target, source], check=True, timeout=60)
            say(f"making {PACKETS:,} packets")
            self._make(folder, PACKETS)
            fast = self._rounds(folder)
            slow = self._samples(folder)
            judging = self._judging(folder)
            crowded = self._crowded(folder)
        self._show(fast, slow, crowded, judging)
        self._judge(verdicts, fast, slow, crowded, judging)

    def _make(self, folder: Path, packets: int, live: int = LIVE) -> Path:
        path = folder / f"{packets}-{live}.pcap"
        if not path.exists():
            with path.open("wb") as file:
                command = [str(folder / "capture_packets"), str(packets), str(live), str(SEED)]
                subprocess.run(command, stdout=file, check=True, timeout=300)
        return path

    def _rounds(self, folder: Path) -> dict[str, list[Cost]]:
        path = str(self._make(folder, PACKETS))
        floor = str(folder / "capture_floor")
        arms = {
            "Holdfast": [sys.executable, "-c", OURS, path],
            "tcpdump, filter for RSTs": ["tcpdump", "-r", path, "-w", "/dev/null", RST_FILTER],
            "C, aligned read": [floor, path, "read"],
            "C, read and look at flags": [floor, path, "walk"],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in arms}
        for order in rotations(list(arms), ROUNDS):
            for name in order:
                cost = cost_of(arms[name])
                if cost is None:
                    raise RuntimeError(f"{name} failed: run make bench, which installs it")
                costs[name].append(cost)
        return costs

    def _samples(self, folder: Path) -> dict[str, tuple[Cost, int]]:
        arms = [
            Arm("tshark -q -z conv,tcp", ["tshark", "-r", "FILE", "-q", "-z", "conv,tcp"], 1_000_000),
            Arm("dpkt and a dict", [sys.executable, "-c", DPKT, "FILE"], 200_000),
            Arm("scapy PcapReader", [sys.executable, "-c", SCAPY, "FILE"], 20_000),
        ]
        costs = {}
        for arm in arms:
            say(arm.name)
            path = str(self._make(folder, arm.packets))
            cost = cost_of([path if part == "FILE" else part for part in arm.command])
            if cost is not None:
                costs[arm.name] = cost, arm.packets
        return costs

    def _crowded(self, folder: Path) -> Cost:
        """Ours with so many connections open at once."""
        say(f"{MANY_LIVE:,} connections open at once")
        self._make(folder, PACKETS).unlink()
        cost = cost_of([sys.executable, "-c", OURS, str(self._make(folder, PACKETS, MANY_LIVE))])
        if cost is None:
            raise RuntimeError("Holdfast failed on many connections")
        return cost

    def _judging(self, folder: Path) -> Judging:
        command = [sys.executable, "-c", JUDGING, str(self._make(folder, PACKETS))]
        rounds = []
        for _ in range(ROUNDS):
            told = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout
            rounds.append([float(word) for word in told.split()])
        return Judging(*map(median, zip(*rounds, strict=True)))

    def _show(
        self,
        fast: dict[str, list[Cost]],
        slow: dict[str, tuple[Cost, int]],
        crowded: Cost,
        judging: Judging,
    ) -> None:
        rows = [(name, PACKETS, middle(costs)) for name, costs in fast.items()]
        rows.append((f"Holdfast, {MANY_LIVE:,} open at once", PACKETS, crowded))
        rows += [(name, packets, cost) for name, (cost, packets) in slow.items()]
        report.heading("Reading a capture")
        report.table(
            ["reader", "packets", "CPU s", "ns a packet", "million packets/s", "MB"],
            [
                (
                    name,
                    f"{packets:,}",
                    f"{cost.cpu_s:.2f}",
                    f"{cost.cpu_s / packets * 1e9:,.0f}",
                    f"{packets / cost.cpu_s / 1e6:.3f}",
                    f"{cost.memory_mb:.0f}",
                )
                for name, packets, cost in rows
            ],
        )
        report.note(
            f"{LIVE:,} connections at any time, 310,738 in all, one in a hundred reset; whole frames, page "
            f"cache warm. Medians of {ROUNDS} rounds; the slow readers once, over fewer packets. A reader "
            "that is missing was not installed. Holdfast: the whole process, Python's start included."
        )
        report.note(
            f"Each reset connection costs {judging.decoding_us:.0f} µs to take over from the parser (in "
            f"the figures above) and {judging.judging_us:.0f} µs to judge (not in them)."
        )

    def _judge(
        self,
        verdicts: report.Verdicts,
        fast: dict[str, list[Cost]],
        slow: dict[str, tuple[Cost, int]],
        crowded: Cost,
        judging: Judging,
    ) -> None:
        ours = middle(fast["Holdfast"])
        rate = PACKETS / ours.cpu_s / 1e6
        verdicts.add(
            "captures: packets per second", f">= {RATE_TARGET} million", f"{rate:.2f}", rate >= RATE_TARGET
        )
        beside = ratio(
            [cost.cpu_s for cost in fast["Holdfast"]],
            [cost.cpu_s for cost in fast["tcpdump, filter for RSTs"]],
        )
        verdicts.add(
            "captures: CPU time over tcpdump's",
            f"<= {TCPDUMP_TARGET}",
            str(beside),
            beside.value <= TCPDUMP_TARGET,
        )
        verdicts.add(
            "captures: memory",
            f"< {MEMORY_TARGET_MB} MB",
            f"{ours.memory_mb:.0f}",
            ours.memory_mb < MEMORY_TARGET_MB,
        )
        verdicts.add(
            f"captures: memory, {MANY_LIVE:,} open at once",
            f"< {MEMORY_TARGET_MB} MB",
            f"{crowded.memory_mb:.0f}",
            crowded.memory_mb < MEMORY_TARGET_MB,
        )
        verdicts.add(
            "captures: µs to judge a reset connection",
            f"<= {JUDGING_TARGET_US:.0f}",
            f"{judging.judging_us:.0f}",
            judging.judging_us <= JUDGING_TARGET_US,
        )
        if "tshark -q -z conv,tcp" in slow:
            cost, packets = slow["tshark -q -z conv,tcp"]
            times = (cost.cpu_s / packets) / (ours.cpu_s / PACKETS)
            verdicts.add(
                "captures: times faster than tshark",
                f">= {TSHARK_TARGET:.0f}",
                f"{times:.0f}",
                times >= TSHARK_TARGET,
            )


def middle(costs: list[Cost]) -> Cost:
    """The median of each."""
    return Cost(median(cost.cpu_s for cost in costs), median(cost.memory_mb for cost in costs))

"""Resets in a flood: how many Holdfast takes without loss, and what one costs beside other tools."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from bench import report
from bench.frames import syn_flood
from bench.network import Pair
from bench.tools import Tools, say
from bench.watcher import Watcher
from holdfast.watch.kernel.source import EVERYTHING

RING_BYTES = 16 << 20
"""The default, and what docs/explanation/cost.md says."""

RATE, FLOOD_S, PEER_S = 120_000, 5.0, 3.0
FULL_RATE = 4_000
"""Few enough that each reset gets a record of its own."""

SETTLE_S = 0.5
IDLE_S, READY_S = 1.0, 30.0
_TICKS = os.sysconf("SC_CLK_TCK")

_FILTER = "tcp[tcpflags] & tcp-rst != 0"
_FIELDS = "args->state, args->reason, args->saddr[4], args->saddr[5], args->saddr[6], args->saddr[7], " + (
    "args->saddr[2], args->saddr[3], args->daddr[4], args->daddr[5], args->daddr[6], args->daddr[7], "
    "args->daddr[2], args->daddr[3]"
)
_PRINT = (
    'printf("%d %d %d.%d.%d.%d:%d+%d %d.%d.%d.%d:%d+%d\\n", ' + _FIELDS + ");"  # ports as two bytes
)


@dataclass(frozen=True, slots=True)
class Flood:
    """What the generator did, and what the kernel counted."""

    sent: int
    resets: int
    seconds: float

    @property
    def rate(self) -> float:
        """Resets each second."""
        return self.resets / self.seconds


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool: how to start it, whether in the flooded namespace, and how to count what it showed."""

    name: str
    shows: str
    command: list[str]
    inside: bool
    count: Callable[[str, str], int]


@dataclass(frozen=True, slots=True)
class Taken:
    """One consumer in one flood."""

    name: str
    shows: str
    flood: Flood
    user_s: float
    system_s: float
    seen: int
    detailed: int
    lost: int

    def per_event_us(self, seconds: float) -> float:
        """Microseconds for each reset."""
        return seconds / self.flood.resets * 1e6


class Flooding:
    """The network, the generator and the consumers."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._frames = syn_flood()

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        with Pair() as self._pair:
            say("flood: the generator alone")
            alone = self._flood(0, 2.0)
            paced, unpaced, ignoring, full = self._holdfast()
            peers = [taken for peer in self._peers() if (taken := self._peer(peer))]
        self._show_floods(alone, paced, unpaced, ignoring)
        self._show_costs([paced, full, *peers])
        self._judge(verdicts, paced, unpaced, peers)

    def _flood(self, rate: int, seconds: float) -> Flood:
        before = self._pair.target.counters().get("OutRsts", 0)
        told = self._pair.source.run([str(self._tools.flood), "v0", str(seconds), str(rate)], self._frames)
        sent, nanoseconds = map(int, told.split())
        return Flood(sent, self._pair.target.counters()["OutRsts"] - before, nanoseconds / 1e9)

    # ---- Holdfast

    def _holdfast(self) -> tuple[Taken, Taken, Taken, Taken]:
        with Watcher() as watcher:
            say(f"flood: {RATE:,} resets a second for {FLOOD_S:g} s")
            paced = self._watched(watcher, "Holdfast", RATE, FLOOD_S)
            say("flood: as fast as the generator can")
            unpaced = self._watched(watcher, "Holdfast, unpaced", 0, PEER_S)
            say("flood: the same with --no-segments")
            ignoring = self._watched(watcher, "Holdfast, --no-segments", 0, PEER_S, segments=False)
            say(f"flood: {FULL_RATE:,} a second, each with a record of its own")
            full = self._watched(watcher, "Holdfast, nothing folded", FULL_RATE, PEER_S, keep=EVERYTHING)
        return paced, unpaced, ignoring, full

    def _watched(self, watcher: Watcher, name: str, rate: int, seconds: float, **settings: int) -> Taken:
        watcher.ask("start", **settings)
        before = watcher.ask("report")
        flood = self._flood(rate, seconds)
        time.sleep(SETTLE_S)  # until the stories of the last resets have settled
        after = watcher.ask("report")
        watcher.ask("stop")
        seen = sum(
            count
            for kind, netns, count in after["totals"]
            if kind == "reset_sent" and netns == self._pair.target.inode
        )
        return Taken(
            name,
            "cause, state, owner, segment, evidence",
            flood,
            after["user_s"] - before["user_s"],
            after["system_s"] - before["system_s"],
            seen,
            after["records"],
            after["lost"] + after["uncounted"],
        )

    # ---- the others

    def _peers(self) -> list[Peer]:
        tracing = "/sys/kernel/tracing"
        mount = f"mountpoint -q {tracing} || mount -t tracefs none {tracing}; exec bpftrace -B full -e "
        probe = "tracepoint:tcp:tcp_send_reset"
        counting, printing = (
            ["unshare", "--mount", "sh", "-c", mount + f"'{probe} {{ {body} }}'"]
            for body in ("@[args->reason, args->state] = count();", _PRINT)
        )
        tcpdump = ["tcpdump", "-Z", "root", "-i", "v1", "-n", "-B", str(RING_BYTES >> 10)]
        return [
            Peer("bpftrace, count()", "totals by reason and state", counting, False, _sum_of_map),
            Peer("bpftrace, printf()", "state, reason, addresses", printing, False, _lines),
            Peer("tcpdump, text", "the RST as a line", [*tcpdump, _FILTER], True, _lines),
            Peer("tcpdump -w", "the RST as bytes", [*tcpdump, "-w", "/dev/null", _FILTER], True, _captured),
        ]

    def _peer(self, peer: Peer) -> Taken | None:
        """What it took; None, with its words on standard error, if it does not run here."""
        say(f"flood: {peer.name}")
        start = self._pair.target.start if peer.inside else subprocess.Popen
        with TemporaryFile() as output, TemporaryFile() as words:
            process = start(peer.command, stdout=output, stderr=words)
            try:
                _wait_until_idle(process.pid)
                if process.poll() is not None:
                    say(f"flood: {peer.name} does not run here: {_text_of(words).strip()}")
                    return None
                user_s, system_s = cpu_seconds(process.pid)
                flood = self._flood(RATE, PEER_S)
                time.sleep(SETTLE_S)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGINT)
                    _, _, usage = os.wait4(process.pid, 0)
                    process.returncode = 0
            told, said = _text_of(output), _text_of(words)
        lost = sum(
            map(
                int,
                re.findall(
                    r"(?:Lost )?(\d+) (?:events$|packets dropped by kernel)", told + said, re.MULTILINE
                ),
            )
        )
        user_s, system_s = usage.ru_utime - user_s, usage.ru_stime - system_s
        return Taken(peer.name, peer.shows, flood, user_s, system_s, peer.count(told, said), 0, lost)

    # ---- what it says

    def _show_floods(self, alone: Flood, *taken: Taken) -> None:
        report.heading(f"Resets in a flood (SYNs to a closed port over veth, ring of {RING_BYTES >> 20} MiB)")
        rows = [
            ["generator alone", f"{alone.rate:,.0f}", f"{alone.seconds:.1f}", f"{alone.resets:,}", "", "", ""]
        ]
        for one in taken:
            rate, seconds, resets = (
                f"{one.flood.rate:,.0f}",
                f"{one.flood.seconds:.1f}",
                f"{one.flood.resets:,}",
            )
            exact = "exact" if one.seen == one.flood.resets else f"{one.seen - one.flood.resets:+,}"
            rows.append([one.name, rate, seconds, resets, exact, f"{one.lost:,}", f"{one.detailed:,}"])
        report.table(
            ["consumer", "resets/s", "s", "OutRsts", "our total", "detail lost", "full records"],
            rows,
        )

    def _show_costs(self, taken: list[Taken]) -> None:
        report.heading("Processor time in user space for each reset, start-up left out")
        report.table(
            ["consumer", "shows", "resets/s", "user us", "system us", "seen", "lost"],
            [
                [
                    one.name,
                    one.shows,
                    f"{one.flood.rate:,.0f}",
                    f"{one.per_event_us(one.user_s):.2f}",
                    f"{one.per_event_us(one.system_s):.2f}",
                    f"{one.seen / one.flood.resets:.1%}",
                    f"{one.lost:,}",
                ]
                for one in taken
            ],
        )

    def _judge(self, verdicts: report.Verdicts, paced: Taken, unpaced: Taken, peers: list[Taken]) -> None:
        rate = f"{paced.flood.rate:,.0f}/s, {paced.lost} lost"
        verdicts.add(
            "no record lost in a flood",
            "100,000/s, 5 s",
            rate,
            paced.flood.rate >= 100_000 and not paced.lost,
        )
        off = max(abs(one.seen - one.flood.resets) for one in (paced, unpaced))
        fastest = f"off by {off} at {unpaced.flood.rate:,.0f}/s"
        verdicts.add("totals exact at any rate", "0 off", fastest, off == 0)
        ours = paced.per_event_us(paced.user_s)
        for peer in peers:
            if peer.name in ("bpftrace, printf()", "tcpdump, text"):
                theirs = peer.per_event_us(peer.user_s)
                verdicts.add(
                    f"user time per reset below {peer.name}",
                    f"{theirs:.2f} us",
                    f"{ours:.2f} us",
                    ours < theirs,
                )


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _sum_of_map(told: str, said: str) -> int:
    return sum(int(count) for count in re.findall(r"^@\[.*\]: (\d+)$", told, re.MULTILINE))


def _lines(told: str, said: str) -> int:
    return len(re.findall(r"^\d", told, re.MULTILINE))


def _captured(told: str, said: str) -> int:
    found = re.search(r"(\d+) packets captured", said)
    return int(found[1]) if found else 0


def _wait_until_idle(pid: int) -> None:
    """Until it has started and then done nothing for a while: it waits for events."""
    end = time.monotonic() + READY_S
    before, now = (-1.0, -1.0), cpu_seconds(pid)
    while now != before and time.monotonic() < end:
        time.sleep(IDLE_S)
        before, now = now, cpu_seconds(pid)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS

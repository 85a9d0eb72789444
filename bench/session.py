"""What a session costs, beside other ways to move bytes, and how soon it goes on after a fault."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench import report
from bench.numbers import estimate, ratio
from bench.session_faults import FAULTS, Suffered, restart, suffer
from bench.tools import say

ROOT = Path(__file__).resolve().parent.parent
ARMS = (
    "bare uvloop protocol",
    "bare asyncio protocol",
    "uvloop streams",
    "asyncio streams",
    "websockets",
    "gRPC stream",
    "session",
    "session, sealed",
    "session, TLS",
)
JUDGED = ("bare uvloop protocol", "websockets", "session")
ROUNDS, JUDGED_ROUNDS = 3, 15
IDLE = 10_000
IDLE_S = 54.0  # two PINGs of each
BULK_SHARE, RESUME_MS, IDLE_CPU, IDLE_BYTES = 0.60, 3.0, 0.04, 40_000

Figures = dict[str, list[dict[str, float]]]


class Sessions:
    """Bulk, latency, resume, idle sessions, faults."""

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        with TemporaryDirectory(prefix="holdfast-bench-") as folder:
            _certificate(Path(folder))
            os.environ["BENCH_CERTIFICATE"] = folder
            bulk, ping = _rounds("bulk", JUDGED_ROUNDS), _rounds("ping", ROUNDS)
            self._traffic(bulk, ping, verdicts)
            self._resume(verdicts)
            for kind in ("plain", "tls"):
                self._idle(kind, verdicts)
        self._faults()

    def _traffic(self, bulk: Figures, ping: Figures, verdicts: report.Verdicts) -> None:
        report.heading("1 GiB from one process to another over loopback TCP; 64 bytes there and back")
        rows = []
        for arm in ARMS:
            rates = [one["mb_per_s"] for one in bulk[arm]]
            rows.append([
                arm, f"{median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{median(one['cpu_s'] for one in bulk[arm]):.2f}",
                f"{median(one['p50_us'] for one in ping[arm]):,.0f}",
                f"{median(one['p99_us'] for one in ping[arm]):,.0f}",
            ])  # fmt: skip
        report.table(
            ["", "MB/s", "slowest to quickest", "sender's CPU s", "round trip p50 us", "p99 us"], rows
        )
        rates = {arm: [one["mb_per_s"] for one in bulk[arm]] for arm in ARMS}
        share = ratio(rates["session"], rates["bare uvloop protocol"])
        verdicts.add(
            "bulk: session, of a bare uvloop protocol",
            f">= {BULK_SHARE}",
            str(share),
            share.value >= BULK_SHARE,
        )
        over = ratio(rates["session"], rates["websockets"])
        verdicts.add("bulk: session, of websockets", ">= 1", str(over), over.value >= 1)

    def _resume(self, verdicts: report.Verdicts) -> None:
        """Beside the floor: a bare connection after the same silence, for silence slows down any program."""
        floor, arms = ARMS[0], ("session", "session, sealed", "session, TLS")
        rows = []
        for what, pause in (("resume soon", "2 ms"), ("resume", "50 ms")):
            found: Figures = {arm: [] for arm in (floor, *arms)}
            for turn in range(ROUNDS + 2):
                say(f"session: {what}, round {turn + 1} of {ROUNDS + 2}")
                for arm in found:
                    found[arm].append(_client(arm, what))
            for arm, each in found.items():
                middle = median(one["p50_ms"] for one in each)
                rows.append([pause, arm, f"{middle:.2f}", f"{median(one['p99_ms'] for one in each):.1f}"])
            for arm in arms[:2]:
                both = zip(found[arm], found[floor], strict=True)
                over = estimate([one["p50_ms"] - dial["p50_ms"] for one, dial in both])
                name = f"{arm}: from a cut to the next answer, {pause} after the last, less a bare dial"
                verdicts.add(name, f"p50 < {RESUME_MS} ms", f"{over} ms", over.value < RESUME_MS)
        report.heading("From a cut transport to the next answer: dial, handshake, replay")
        report.table(["silence before", "", "p50 ms", "p99 ms"], rows)

    def _idle(self, kind: str, verdicts: report.Verdicts) -> None:
        say(f"session: {IDLE} idle sessions, {kind}")
        with _process("bench.session_idle", "serve", kind) as server:
            url = _line(server)
            before = _ask(server)
            with _process("bench.session_idle", "dial", kind, url, str(IDLE)) as client:
                _line(client)
                time.sleep(5)
                begun = _ask(server)
                time.sleep(IDLE_S)
                ended = _ask(server)
        cpu = (ended["cpu_s"] - begun["cpu_s"]) / IDLE_S
        each = (ended["rss"] - before["rss"]) / ended["sessions"]
        report.heading(f"{ended['sessions']:,.0f} idle sessions ({kind}), a PING every 30 s")
        report.table(["", "measured"], [["CPU of the server", f"{cpu:.1%} of a core"],
                                        ["resident memory each", f"{each / 1000:.1f} kB"]])  # fmt: skip
        if kind == "plain":
            verdicts.add("10,000 idle sessions: CPU", f"<= {IDLE_CPU:.0%}", f"{cpu:.2%}", cpu <= IDLE_CPU)
            verdicts.add(
                "... and memory each",
                f"<= {IDLE_BYTES // 1000} kB",
                f"{each / 1e3:.1f} kB",
                each <= IDLE_BYTES,
            )

    def _faults(self) -> None:
        rows = []
        for fault in FAULTS:
            say(f"session: {fault.name}")
            rows.append(fault_row(fault.name, suffer(fault)))
        report.heading("Faults made by a real kernel: a record every 2 ms there and back, through a router")
        report.table(
            [
                "fault",
                "times",
                "resumes",
                "silent p50 ms",
                "p99 ms",
                "after the path was well p50",
                "p99",
                "lost",
                "doubled",
            ],
            rows,
        )
        after = sorted(restart()[0] * 1000 for _ in range(5))
        report.note(
            f"A restarted server is noticed {after[2]:.0f} ms after it listens (slowest {after[-1]:.0f} ms)."
        )


def fault_row(name: str, found: Suffered) -> list[str]:
    """One line of the table of faults."""
    cells = [name, str(len(found.silent_s)), str(found.resumes)]
    for times in (found.silent_s, found.after_s):
        ranked = sorted(times)
        cells += [f"{ranked[len(ranked) // 2] * 1e3:,.0f}", f"{ranked[-1 - len(ranked) // 100] * 1e3:,.0f}"]
    return [*cells, str(found.missing), str(found.wrong)]


def _certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes",
               "-pkeyopt", "ec_paramgen_curve:prime256v1",
               "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"), "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def _rounds(what: str, judged: int) -> Figures:
    """So many rounds of the arms that are judged, and some of all, each in the other order than before."""
    found: Figures = {arm: [] for arm in ARMS}
    for turn in range(max(judged, ROUNDS)):
        say(f"session: {what}, round {turn + 1} of {max(judged, ROUNDS)}")
        arms = [arm for arm in ARMS if turn < ROUNDS or arm in JUDGED]
        for arm in arms if turn % 2 else reversed(arms):
            found[arm].append(_client(arm, what))
    return found


def _client(arm: str, what: str) -> dict[str, float]:
    with _process("bench.session_arms", arm, "serve") as server:
        port = _line(server)
        command = [sys.executable, "-m", "bench.session_arms", arm, what, port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{arm}, {what}: {done.stderr[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout)
        return found


@contextlib.contextmanager
def _process(*module: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # it is a pipe
    return process.stdout.readline().strip()


def _ask(server: subprocess.Popen[str]) -> dict[str, Any]:
    assert server.stdin is not None  # it is a pipe
    server.stdin.write("?\n")
    server.stdin.flush()
    facts: dict[str, Any] = json.loads(_line(server))
    return facts

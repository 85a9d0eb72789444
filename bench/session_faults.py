"""Faults that a real kernel makes, against a session in the lab's networks: how soon it goes on."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.lab import Network
from holdfast.lab.network import Host
from holdfast.lab.rules import FROM_CLIENT, FROM_SERVER, OPEN, RESET, SILENCE, path
from holdfast.lab.segment import RST, Datagram

ROOT = Path(__file__).resolve().parent.parent
PORT = 7440
REJECT_S = 0.03
CALM_S = 0.7


class Talk:
    """A client and a server that talk through the lab's router.

    Attributes:
        net: the network.

    Args:
        client: what the client does, see ``bench.session_talker``.
    """

    def __init__(self, client: str = "dial") -> None:
        self.net = Network().__enter__()
        self._cables = 0
        self._server = self._start_server()
        self._client = self._start(self.net.client, client, f"tcp://{self.net.server.ip}:{PORT}")
        if self._line(self._client) != "ready":
            raise RuntimeError("the client did not open its session")

    def _start_server(self) -> subprocess.Popen[str]:
        server = self._start(self.net.server, "serve", f"tcp://{self.net.server.ip}:{PORT}")
        self._line(server)
        return server

    def _start(self, host: Host, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", f"--net=/proc/{host.pid}/ns/net",
             sys.executable, "-m", "bench.session_talker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None  # it is a pipe
        return process.stdout.readline().strip()

    # ---- faults; each gives when the path was well again

    def reset_client(self) -> float:
        """The firewall answers the client's segments with a RST."""
        return self._rules(REJECT_S, FROM_CLIENT + RESET)

    def reset_server(self) -> float:
        """The firewall answers the server's segments with a RST."""
        return self._rules(REJECT_S, FROM_SERVER + RESET)

    def reset_both(self) -> float:
        """The firewall answers both ends with a RST."""
        return self._rules(REJECT_S, RESET)

    def black_hole(self, for_s: float) -> float:
        """Every segment vanishes for a while."""
        return self._rules(for_s, SILENCE)

    def _rules(self, for_s: float, *rules: str) -> float:
        self.net.router.firewall(path(*rules))
        time.sleep(for_s)
        self.net.router.firewall(OPEN)
        return time.monotonic()

    def inject(self) -> float:
        """Somebody on the path forges RSTs to the client, with the exact number and those after it."""
        self.net.router.sniff()
        seen: list[Datagram] = []
        while not seen:  # on a busy machine the conversation may pause just then
            time.sleep(0.05)
            seen = [made for _, made in self.net.router.sniffed() if made.src.port == PORT and made.payload]
        last = seen[-1]
        due = last.seq + len(last.payload)
        forged = [
            Datagram(last.src, last.dst, RST, (due + ahead) % 2**32, 0, 0, 128)
            for ahead in range(2048)  # each: the size of a PING is no multiple of anything
        ]
        at_s = time.monotonic()
        self.net.router.inject(forged)
        return at_s

    def destroy(self) -> float:
        """``ss -K`` at the client."""
        at_s = time.monotonic()
        self.net.client.run("ss", "-K", "-tn", "dport", "=", f":{PORT}")
        return at_s

    def move(self) -> float:
        """The client's address changes; nobody tells the server."""
        host = self.net.client
        prefix, last = host.ip.rsplit(".", 1)
        fresh = f"{prefix}.{int(last) + 7}"
        old, host.ip = host.ip, fresh
        at_s = time.monotonic()
        lines = [f"addr del {old}/24 dev eth0", f"addr add {fresh}/24 dev eth0"]
        lines.append(f"route replace default via {prefix}.1\n")
        host.run("ip", "-batch", "-", text="\n".join(lines))
        return at_s

    def reroute(self) -> float:
        """Another cable takes what the client sends; its router drops the old address (BCP 38)."""
        self._cables += 1
        cable, host = f"near{self._cables}", self.net.client
        prefix = f"172.20.{self._cables}"
        router = [f"link add {cable} type veth peer name eth{self._cables} netns {host.pid}",
                  f"addr add {prefix}.1/24 dev {cable}", f"link set {cable} up\n"]  # fmt: skip
        self.net.router.run("ip", "-batch", "-", text="\n".join(router))
        self.net.router.sysctl(f"net/ipv4/conf/{cable}", rp_filter=1)
        # Else the old address would ask who the router is, and get no answer either.
        host.sysctl("net/ipv4/conf/all", arp_announce=2)
        ready = f"addr add {prefix}.2/24 dev eth{self._cables}\nlink set eth{self._cables} up\n"
        host.run("ip", "-batch", "-", text=ready)
        host.ask("await_link", name=f"eth{self._cables}", wait_s=5)
        self.net.router.ask("await_link", name=cable, wait_s=5)
        at_s = time.monotonic()
        host.run("ip", "route", "replace", "default", "via", f"{prefix}.1")
        return at_s

    def stop_client(self, for_s: float = 3.0) -> float:
        """The client's process stands still (SIGSTOP)."""
        return self._stop(self._client, for_s)

    def stop_server(self, for_s: float = 3.0) -> float:
        """The server's process stands still."""
        return self._stop(self._server, for_s)

    def _stop(self, process: subprocess.Popen[str], for_s: float) -> float:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(for_s)
        os.kill(process.pid, signal.SIGCONT)
        return time.monotonic()

    def restart_server(self) -> float:
        """The server's process ends and another takes its place."""
        self._server.kill()
        self._server.wait()
        self._close(self._server)
        at_s = time.monotonic()
        self._server = self._start_server()
        return at_s

    # ---- what came of it

    def resumed_s(self) -> float:
        """When another transport carried the session of an idle client; waits for that."""
        return float(self._line(self._client))

    def finish(self) -> dict[str, object]:
        """End the conversation; what the client noticed."""
        assert self._client.stdin is not None  # it is a pipe
        self._client.stdin.write("end\n")
        self._client.stdin.flush()
        told: dict[str, object] = json.loads(self._line(self._client))
        self._client.wait(30)
        return told

    def _close(self, process: subprocess.Popen[str]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._client, self._server):
            process.kill()
            process.wait()
            self._close(process)
        self.net.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Fault:
    """One way to hurt a conversation.

    Attributes:
        name: as in the documentation.
        make: does it; gives when the path was well again.
        times: how often in one conversation.
        calm_s: what lies between two.
        idle: the client has nothing to say, with an interval of 30 s: how soon does it notice?
    """

    name: str
    make: Callable[[Talk], float]
    times: int
    calm_s: float = CALM_S
    idle: bool = False


@dataclass
class Suffered:
    """What one conversation went through.

    Attributes:
        silent_s: the longest time without an echo around each fault.
        after_s: of that, what lay after the path was well again.
    """

    sent: int
    missing: int
    wrong: int
    resumes: int
    lost: str | None
    silent_s: list[float] = field(default_factory=list)
    after_s: list[float] = field(default_factory=list)


FAULTS = (
    Fault("RST to the client (nftables)", Talk.reset_client, 20),
    Fault("RST to the server (nftables)", Talk.reset_server, 20),
    Fault("RST to both (nftables)", Talk.reset_both, 20),
    Fault("forged RST (raw socket)", Talk.inject, 20),
    Fault("`ss -K`", Talk.destroy, 20),
    Fault("change of address", Talk.move, 5, 3.0),
    Fault("change of address, idle", Talk.move, 5, 1.5, idle=True),
    Fault("change of route, idle", Talk.reroute, 5, 1.5, idle=True),
    Fault("black hole of 1 s", lambda talk: talk.black_hole(1), 8, 2.5),
    Fault("black hole of 5 s", lambda talk: talk.black_hole(5), 4, 4),
    Fault("black hole of 20 s", lambda talk: talk.black_hole(20), 2, 5),
    Fault("SIGSTOP of the client, 3 s", Talk.stop_client, 4, 2.5),
    Fault("SIGSTOP of the server, 3 s", Talk.stop_server, 4, 2.5),
)


def suffer(fault: Fault, times: int | None = None) -> Suffered:
    """Talk, hurt, talk on; what came of it."""
    if fault.idle:
        return _suffer_idle(fault, times or fault.times)
    marks: list[tuple[float, float]] = []
    with Talk() as talk:
        time.sleep(0.3)
        for _ in range(times or fault.times):
            begun_s = time.monotonic()
            marks.append((begun_s, fault.make(talk)))
            time.sleep(fault.calm_s)
        told = talk.finish()
    found = _counted(told)
    gaps: list[list[float]] = told["gaps"]  # type: ignore[assignment]  # as the talker wrote it
    for (begun_s, well_s), after in zip(marks, [*(mark[0] for mark in marks[1:]), float("inf")], strict=True):
        near = [(start, end) for start, end in gaps if end > begun_s and start < after - CALM_S / 2]
        found.silent_s.append(max((end - start for start, end in near), default=0.0))
        found.after_s.append(max((max(0.0, end - max(start, well_s)) for start, end in near), default=0.0))
    return found


def _suffer_idle(fault: Fault, times: int) -> Suffered:
    silent_s, after_s = [], []
    with Talk("idle") as talk:
        for _ in range(times):
            time.sleep(fault.calm_s)
            begun_s = time.monotonic()
            well_s = fault.make(talk)
            resumed_s = talk.resumed_s()
            silent_s.append(resumed_s - begun_s)
            after_s.append(resumed_s - well_s)
        found = _counted(talk.finish())
    return replace(found, silent_s=silent_s, after_s=after_s)


def _counted(told: dict[str, object]) -> Suffered:
    sent, echoed, lost = int(str(told["sent"])), int(str(told["echoed"])), told["lost"]
    return Suffered(
        sent,
        sent - echoed,
        int(str(told["wrong"])),
        int(str(told.get("resumes", 0))),
        None if lost is None else str(lost),
    )


def restart() -> tuple[float, str | None]:
    """How long after a restarted server answers again its client knows that the session is lost, and why."""
    with Talk() as talk:
        time.sleep(0.3)
        talk.restart_server()
        well_s = time.monotonic()
        told: dict[str, object] = json.loads(talk._line(talk._client))
        lost_s = told.get("lost_s")
        return (float(str(lost_s)) - well_s if lost_s is not None else float("nan")), str(told["lost"])

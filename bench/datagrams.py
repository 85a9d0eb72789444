"""Receiving many small datagrams: batches against recvfrom_into, asyncio, uvloop and C."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench import report
from bench.numbers import ratio, rotations
from bench.tools import say
from holdfast.hold.datagrams import DatagramBuffer, enable_gro, recv_batch, send_batch
from holdfast.hold.datagrams_asyncio import DatagramReader

ROUNDS, DATAGRAMS, PAYLOAD = 33, 4096, bytes(64)
MAX_TO_C, MIN_TO_RECVFROM_INTO = 1.25, 1.7

C_LOOP, BATCH, PLAIN = "C recvmmsg x 64", "recv_batch x 64", "socket.recvfrom_into"
LOOPS = {"asyncio": asyncio.new_event_loop}
if importlib.util.find_spec("uvloop"):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

Drain = Callable[[], int]
Arm = Callable[[socket.socket], AbstractContextManager[Drain]]


class Datagrams:
    """A socket's buffer is filled first; then emptying it is timed, on this thread's own processor time."""

    def run(self, verdicts: report.Verdicts) -> None:
        """Measure and print."""
        with TemporaryDirectory(prefix="holdfast-bench-") as folder:
            arms = every_arm(compiled(Path(folder)))
            ns: dict[str, list[float]] = {arm: [] for arm in arms}
            for turn, order in enumerate(rotations(list(arms), ROUNDS)):
                say(f"datagrams: round {turn + 1} of {ROUNDS}")
                for arm in order:
                    ns[arm].append(measure(arms[arm], joined="GRO" in arm))
        self._show(ns)
        to_c, faster = ratio(ns[BATCH], ns[C_LOOP]), ratio(ns[PLAIN], ns[BATCH])
        verdicts.add(
            "batches cost little more than C's recvmmsg", f"<= {MAX_TO_C}", str(to_c), to_c.value <= MAX_TO_C
        )
        verdicts.add(
            "batches are faster than recvfrom_into", f">= {MIN_TO_RECVFROM_INTO}", str(faster),
            faster.value >= MIN_TO_RECVFROM_INTO,
        )  # fmt: skip

    def _show(self, ns: dict[str, list[float]]) -> None:
        report.heading(f"Receiving {DATAGRAMS} datagrams of {len(PAYLOAD)} bytes that are there already")
        columns = ["method", "ns/datagram", f"x {C_LOOP} (95 % interval)", "x recvfrom_into"]
        rows = []
        for arm, values in ns.items():
            against = [ratio(values, ns[other]) for other in (C_LOOP, PLAIN)]
            rows.append([arm, f"{median(values):.0f}", str(against[0]), f"{against[1].value:.2f}"])
        report.table(columns, rows)
        report.note(
            f"median of {ROUNDS} rounds; ratios are within a round; GRO: the sender lets the kernel cut"
        )


def every_arm(c: ctypes.CDLL) -> dict[str, Arm]:
    """Each way to empty a socket."""
    buffer, joined = DatagramBuffer(64, 2048), DatagramBuffer(64)
    arms: dict[str, Arm] = {
        C_LOOP: partial(ready, lambda sock: int(c.drain_recvmmsg(sock.fileno()))),
        "C recvfrom": partial(ready, lambda sock: int(c.drain_recvfrom(sock.fileno()))),
        BATCH: partial(ready, lambda sock: until_empty(lambda: recv_batch(sock, 64))),
        "DatagramBuffer x 64": partial(ready, lambda sock: until_empty(lambda: buffer.recv(sock))),
        PLAIN: partial(ready, with_recvfrom_into),
        "recv_batch x 64, GRO": partial(ready, lambda sock: until_empty(lambda: recv_batch(sock, 64))),
        "DatagramBuffer x 64, GRO": partial(ready, lambda sock: until_empty(lambda: joined.recv(sock))),
    }
    for name, make in LOOPS.items():
        arms[f"DatagramReader, {name}"] = partial(reader, make)
        arms[f"DatagramProtocol, {name}"] = partial(protocol, make)
    return arms


def measure(arm: Arm, joined: bool) -> float:
    """Processor nanoseconds of this thread for one datagram."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sender.connect(sock.getsockname())
        if joined and not enable_gro(sock):
            raise RuntimeError("this kernel has no UDP_GRO")
        with arm(sock) as drain:
            if joined:
                send_batch(sender, [(PAYLOAD, None)] * DATAGRAMS)
            else:
                for _ in range(DATAGRAMS):
                    sender.send(PAYLOAD)
            begun = time.thread_time_ns()
            got = drain()
            spent = time.thread_time_ns() - begun
    if got != DATAGRAMS:
        raise RuntimeError(f"{got} of {DATAGRAMS} datagrams came: raise net.core.rmem_max to 4 MiB")
    return spent / DATAGRAMS


@contextmanager
def ready(drain: Callable[[socket.socket], int], sock: socket.socket) -> Iterator[Drain]:
    """Nothing to prepare."""
    yield partial(drain, sock)


def until_empty(receive: Callable[[], list[Any]]) -> int:
    """How many datagrams all batches had."""
    total = 0
    try:
        while True:
            total += len(receive())
    except BlockingIOError:
        return total


def with_recvfrom_into(sock: socket.socket) -> int:
    """What a careful program does without batches."""
    memory = memoryview(bytearray(2048))
    total = 0
    try:
        while True:
            sock.recvfrom_into(memory)
            total += 1
    except BlockingIOError:
        return total


@contextmanager
def reader(make: Callable[[], asyncio.AbstractEventLoop], sock: socket.socket) -> Iterator[Drain]:
    """Our asyncio reader."""
    loop = make()

    async def drain() -> int:
        total = 0
        async for batch in DatagramReader(sock):
            total += len(batch)
            if total >= DATAGRAMS:
                break
        return total

    yield lambda: loop.run_until_complete(drain())
    loop.close()


class Counter(asyncio.DatagramProtocol):
    """Counts, and says when all have come."""

    def __init__(self, done: asyncio.Future[int]) -> None:
        self._done, self._total = done, 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        """One more."""
        self._total += 1
        if self._total == DATAGRAMS:
            self._done.set_result(self._total)


@contextmanager
def protocol(make: Callable[[], asyncio.AbstractEventLoop], sock: socket.socket) -> Iterator[Drain]:
    """What asyncio offers."""
    loop = make()
    done: asyncio.Future[int] = loop.create_future()
    own = sock.dup()  # the transport closes it
    transport, _ = loop.run_until_complete(loop.create_datagram_endpoint(lambda: Counter(done), sock=own))
    yield lambda: loop.run_until_complete(asyncio.wait_for(done, 20))
    transport.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def compiled(folder: Path) -> ctypes.CDLL:
    """The loops in C."""
    library = folder / "datagrams.so"
    source = Path(__file__).with_suffix(".c")
    command = [
        "gcc",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(source),
    ]
    subprocess.run(command, check=True, timeout=60)
    c = ctypes.CDLL(str(library))
    c.drain_recvmmsg.restype = c.drain_recvfrom.restype = ctypes.c_long
    return c

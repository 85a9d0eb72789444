"""Ways to receive messages of a known size: ours, and those that a Python program has without us."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import ctypes
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import trio
import uvloop
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

import holdfast

BUDGET_S = 0.05
"""How long one arm measures in one round, at least one burst."""

BURST_BYTES = 3 << 16
"""What lies in the socket before the clock starts."""

BUFFER_BYTES = 212_992
"""The default of net.core.rmem_max and wmem_max; a burst fits."""

FLOOR, PLAIN, OURS = "C recv", "socket.recv_into", "holdfast.recv_into"
READER, STREAM = "StreamReader.readexactly, asyncio", "Stream.recv_exactly, asyncio"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message, in nanoseconds."""

    cpu_ns: float
    wall_ns: float


class Feed:
    """A TCP connection on loopback and a clock that runs only while what was sent is being received.

    The burst is there before the first receive, so nobody waits for a sender: what is measured is
    receiving, and not how two processes share the cores.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.count = size_bytes, max(1, BURST_BYTES // size_bytes)
        self._burst = bytes(size_bytes * self.count)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self._far = socket.create_connection(listener.getsockname())
            self.near, _ = listener.accept()
        self._near_fd = self.near.fileno()
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._cpu_ns = self._wall_ns = self._messages = 0
        self._warm = False

    def begin(self) -> bool:
        """Send a burst and start the clock; False when enough was measured."""
        if self._wall_ns > BUDGET_S * 1e9:
            return False
        self._far.sendall(self._burst)
        while self._queued_bytes() < len(self._burst):
            time.sleep(0)
        self._from_wall_ns, self._from_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        return True

    def end(self) -> None:
        """Stop the clock: all was received. The first burst only warms up."""
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        if self._warm:
            self._cpu_ns += cpu_ns - self._from_cpu_ns
            self._wall_ns += wall_ns - self._from_wall_ns
            self._messages += self.count
        self._warm = True

    def close(self) -> Cost:
        """What a message cost."""
        self._far.close()
        self.near.close()
        return Cost(self._cpu_ns / self._messages, self._wall_ns / self._messages)

    def _queued_bytes(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._near_fd, termios.FIONREAD, b"\0" * 4))[0])


Arm = Callable[[Feed], object]


# ---- blocking


def _floor(library: Path) -> Arm:
    drain = ctypes.CDLL(str(library)).drain
    drain.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]

    def run(feed: Feed) -> None:
        buffer = ctypes.create_string_buffer(feed.size_bytes)
        fd, total = feed.near.fileno(), feed.size_bytes * feed.count
        while feed.begin():
            if drain(fd, buffer, feed.size_bytes, total):
                raise RuntimeError("recv failed")
            feed.end()

    return run


def _plain(feed: Feed) -> None:
    buffer, receive = bytearray(feed.size_bytes), feed.near.recv_into
    while feed.begin():
        left = feed.size_bytes * feed.count
        while left:
            left -= receive(buffer)
        feed.end()


def _with_timeout(feed: Feed) -> None:
    feed.near.settimeout(5)
    _plain(feed)


def _ours(feed: Feed) -> None:
    buffer, receive, sock = bytearray(feed.size_bytes), holdfast.recv_into, feed.near
    while feed.begin():
        left = feed.size_bytes * feed.count
        while left:
            left -= receive(sock, buffer)
        feed.end()


def _ours_with_deadline(feed: Feed) -> None:
    buffer, receive, sock = bytearray(feed.size_bytes), holdfast.recv_into, feed.near
    deadline = time.monotonic() + 60
    while feed.begin():
        left = feed.size_bytes * feed.count
        while left:
            left -= receive(sock, buffer, deadline=deadline)
        feed.end()


def _connection(feed: Feed) -> None:
    with holdfast.Connection(feed.near) as connection:
        while feed.begin():
            for _ in range(feed.count):
                connection.recv_exactly(feed.size_bytes)
            feed.end()


# ---- with an event loop


async def _exactly(feed: Feed, receive: Callable[[int], Awaitable[object]]) -> None:
    while feed.begin():
        for _ in range(feed.count):
            await receive(feed.size_bytes)
        feed.end()


async def _reader(feed: Feed) -> None:
    reader, writer = await asyncio.open_connection(sock=feed.near)
    await _exactly(feed, reader.readexactly)
    writer.close()


async def _stream(feed: Feed) -> None:
    async with await holdfast.wrap(feed.near) as stream:
        await _exactly(feed, stream.recv_exactly)


async def _trio(feed: Feed) -> None:
    feed.near.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(feed.near))
    receive = stream.receive_some
    while feed.begin():
        left = feed.size_bytes * feed.count
        while left:
            left -= len(await receive(feed.size_bytes))
        feed.end()
    await stream.aclose()


async def _anyio(feed: Feed) -> None:
    async with await SocketStream.from_socket(feed.near) as stream:
        await _exactly(feed, BufferedByteReceiveStream(stream).receive_exactly)


def _asyncio(work: Callable[[Feed], Coroutine[Any, Any, None]]) -> Arm:
    return lambda feed: asyncio.run(work(feed))


def _uvloop(work: Callable[[Feed], Coroutine[Any, Any, None]]) -> Arm:
    return lambda feed: uvloop.run(work(feed))


def arms(library: Path) -> dict[str, Arm]:
    """Every way to receive, in the order of the table.

    Args:
        library: the compiled receive_floor.c.
    """
    return {
        FLOOR: _floor(library),
        PLAIN: _plain,
        "socket.recv_into, settimeout(5)": _with_timeout,
        OURS: _ours,
        "holdfast.recv_into, deadline": _ours_with_deadline,
        "Connection.recv_exactly": _connection,
        READER: _asyncio(_reader),
        "StreamReader.readexactly, uvloop": _uvloop(_reader),
        "trio SocketStream.receive_some": lambda feed: trio.run(_trio, feed),
        "anyio receive_exactly, asyncio": lambda feed: anyio.run(_anyio, feed),
        STREAM: _asyncio(_stream),
        "Stream.recv_exactly, uvloop": _uvloop(_stream),
    }

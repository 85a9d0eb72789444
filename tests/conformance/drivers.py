# SPDX-License-Identifier: Apache-2.0
"""Every driver of one end of a stream behind one face; the far end is a plain socket in the test's hands."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import uvloop

from holdfast.hold import inbox_portable, portable, stream
from holdfast.hold.connection import Connection
from holdfast.hold.counters import Counters
from holdfast.hold.stream import Stream

_T = TypeVar("_T")
LIMIT_S = 20


class End(Protocol):
    """What every driver does alike."""

    peer: str | None

    @property
    def counters(self) -> Counters: ...
    def recv(self, n: int, *, deadline: float | None = None) -> bytes: ...
    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes: ...
    def recv_until(self, delimiter: bytes, limit: int, *, deadline: float | None = None) -> bytes: ...
    def peek(self, n: int) -> bytes: ...
    def sendall(self, data: bytes, *, deadline: float | None = None) -> None: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()


class AsyncEnd:
    """A Stream for tests that do not know of asyncio."""

    def __init__(self, loop: Loop, one: Stream) -> None:
        self._loop, self.stream, self.peer = loop, one, one.peer

    @property
    def counters(self) -> Counters:
        return self.stream.counters

    def recv(self, n: int, *, deadline: float | None = None) -> bytes:
        return self._loop.run(self.stream.recv(n, deadline=deadline))

    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        return self._loop.run(self.stream.recv_exactly(n, deadline=deadline))

    def recv_until(self, delimiter: bytes, limit: int, *, deadline: float | None = None) -> bytes:
        return self._loop.run(self.stream.recv_until(delimiter, limit, deadline=deadline))

    def peek(self, n: int) -> bytes:
        async def peek() -> bytes:
            return self.stream.peek(n)

        return self._loop.run(peek())

    def sendall(self, data: bytes, *, deadline: float | None = None) -> None:
        self._loop.run(self.stream.sendall(data, deadline=deadline))

    def shutdown_write(self) -> None:
        async def shut() -> None:
            self.stream.shutdown_write()

        self._loop.run(shut())

    def close(self) -> None:
        self._loop.run(self.stream.close())


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    far.settimeout(LIMIT_S)
    # What the far end has sent must be on its way before it resets.
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def unix_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    far.settimeout(LIMIT_S)
    return near, far


class Certificate:
    """A certificate for localhost, made once."""

    def __init__(self, folder: Path) -> None:
        key, self.path = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", str(key), "-out", str(self.path), "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost"],
            check=True, capture_output=True, timeout=LIMIT_S,
        )  # fmt: skip
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.path, key)
        self.client = ssl.create_default_context(cafile=str(self.path))


@contextmanager
def handshaking(certificate: Certificate, far: socket.socket) -> Iterator[list[ssl.SSLSocket]]:
    """The far end speaks TLS as the server in a thread; it is in the list afterwards."""
    made: list[ssl.SSLSocket] = []

    def serve() -> None:
        made.append(certificate.server.wrap_socket(far, server_side=True, suppress_ragged_eofs=False))

    thread = threading.Thread(target=serve)
    thread.start()
    yield made
    thread.join(LIMIT_S)


def blocking(near: socket.socket) -> End:
    return Connection(near)


def blocking_portable(near: socket.socket) -> End:
    one = Connection(near)
    one._calls = portable
    one._inbox = inbox_portable.Inbox()
    return one


def reset(far: socket.socket) -> None:
    """Make the far end send a RST (a Unix socket: ECONNRESET, by leaving something unread)."""
    if far.family != socket.AF_UNIX:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


def leave_on_the_error_queue(sock: socket.socket) -> None:
    """The time stamp of a sent byte, which nobody takes: poll says POLLERR from then on."""
    so_timestamping, flags = 37, 1 << 1 | 1 << 4 | 1 << 11  # net_tstamp.h: TX and all software, TSONLY
    sock.setsockopt(socket.SOL_SOCKET, so_timestamping, flags)
    sock.sendall(b"!")
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(5000) == [(sock.fileno(), select.POLLERR)]


class Drivers:
    """Makes pairs of (near end under test, far plain socket), by the name of the driver."""

    NAMES = (
        "tcp", "tcp portable", "unix", "unix portable", "tls",
        "asyncio tcp", "asyncio unix", "asyncio tls", "asyncio portable",
        "uvloop tcp", "uvloop unix", "uvloop tls",
    )  # fmt: skip

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._loops: dict[str, Loop] = {}

    def pair(self, name: str, near: socket.socket, far: socket.socket) -> tuple[End, socket.socket]:
        """Both ends of a connected pair, the near one held by the driver of that name."""
        kind, _, path = name.rpartition(" ")
        encrypted = name.endswith("tls")
        if kind in ("asyncio", "uvloop"):
            loop = self._loop(kind)
            if not encrypted:
                one = loop.run(stream.wrap(near))
                if path == "portable":
                    one.inbox = one.protocol.inbox = inbox_portable.Inbox()
                return AsyncEnd(loop, one), far
            with handshaking(self._certificate, far) as made:
                one = loop.run(stream.wrap(near, ssl=self._certificate.client, server_hostname="localhost"))
            return AsyncEnd(loop, one), made[0]
        if encrypted:
            with handshaking(self._certificate, far) as made:
                held = self._certificate.client.wrap_socket(near, server_hostname="localhost")
            return Connection(held), made[0]
        return (blocking_portable if path == "portable" else blocking)(near), far

    def sockets(self, name: str) -> tuple[socket.socket, socket.socket]:
        return unix_pair() if "unix" in name else tcp_pair()

    def _loop(self, kind: str) -> Loop:
        if kind not in self._loops:
            self._loops[kind] = Loop(
                uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
            )
        return self._loops[kind]

    def close(self) -> None:
        for loop in self._loops.values():
            loop.close()

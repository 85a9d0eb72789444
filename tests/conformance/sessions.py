# SPDX-License-Identifier: Apache-2.0
"""Every driver and transport of a session behind one face, and a way to cut what carries it."""

from __future__ import annotations

import asyncio
import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import uvloop
from conformance.drivers import LIMIT_S, Certificate, Loop
from simulation.pair import Pair

import holdfast
from holdfast import DeadlineExceeded, Session, SessionLost, SessionPolicy
from holdfast.errors import Loss
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session import core
from holdfast.hold.session.states import State
from holdfast.policy import Backoff

PSK = bytes(range(32))
POLICY = SessionPolicy(
    window_bytes=1 << 18, keep_s=10, rhythm=Rhythm(0.25, 1), backoff=Backoff(first_s=0.01, stable_s=0)
)


class End(Protocol):
    """What both ends do, whatever drives them."""

    def send(self, data: bytes, *, deadline: float | None = None) -> None: ...
    def recv(self, n: int, *, deadline: float | None = None) -> bytes: ...
    def flush(self, *, deadline: float | None = None) -> None: ...
    def send_eof(self) -> None: ...
    def close(self, *, deadline: float | None = None) -> None: ...
    def abort(self, code: int = 1) -> None: ...
    @property
    def state(self) -> State: ...
    @property
    def confirmed_bytes(self) -> int: ...


class LoopEnd:
    """A Session for tests that do not know of asyncio."""

    def __init__(self, loop: Loop, session: Session) -> None:
        self._loop, self.session = loop, session

    def send(self, data: bytes, *, deadline: float | None = None) -> None:
        self._loop.run(self.session.send(data, deadline=deadline))

    def recv(self, n: int, *, deadline: float | None = None) -> bytes:
        return self._loop.run(self.session.recv(n, deadline=deadline))

    def flush(self, *, deadline: float | None = None) -> None:
        self._loop.run(self.session.flush(deadline=deadline))

    def send_eof(self) -> None:
        self._loop.run(self.session.send_eof())

    def close(self, *, deadline: float | None = None) -> None:
        self._loop.run(self.session.close(deadline=deadline))

    def abort(self, code: int = 1) -> None:
        self._loop.run(self.session.abort(code))

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def confirmed_bytes(self) -> int:
        return self.session.confirmed_bytes


class Both:
    """Both ends of one session, and its transports."""

    near: End
    far: End
    cut: Callable[[], None]


class Serving:
    """A server in a loop of its own thread; its sessions come out of a queue."""

    def __init__(self, loop: Loop, url: str, **terms: Any) -> None:
        self.loop = loop
        self.met: queue.Queue[Session] = queue.Queue()
        self._end = asyncio.Event()

        async def handle(session: Session) -> None:
            self.met.put(session)
            await self._end.wait()

        async def start() -> Any:
            return await holdfast.serve(handle, url, policy=POLICY, **terms)

        self.server = loop.run(start())

    def cut(self) -> None:
        """Reset every transport."""

        async def reset() -> None:
            for wire in list(self.server._wires):
                sock = wire.transport.get_extra_info("socket")
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                wire.transport.abort()

        self.loop.run(reset())

    def close(self) -> None:
        self.loop.run(self.server.close())


class Memory(Both):
    """The pair in memory: bytes move whenever an end does something."""

    def __init__(self) -> None:
        self.pair = Pair(sealed=True)
        self.joined = self.pair.opened()
        self.near, self.far = MemoryEnd(self, self.pair.client), MemoryEnd(self, self.pair.server)

    def cut(self) -> None:
        self.joined.cut()
        self.joined = self.pair.join()


class MemoryEnd:
    """One end of it."""

    def __init__(self, both: Memory, one: core.Session) -> None:
        self._both, self._one = both, one

    def _move(self) -> None:
        self._both.joined.settle()

    def _check(self) -> None:
        if self._one.state in (State.RESET, State.LOST, State.RESETTING):
            loss = Loss(104, "unspecified")
            raise SessionLost(
                loss, confirmed_bytes=self._one.confirmed_bytes, why="ended", code=self._one.code
            )

    def send(self, data: bytes, *, deadline: float | None = None) -> None:
        at = 0
        while at < len(data):
            self._check()
            took = self._one.write(data[at:])
            at += took
            self._move()
            if not took and not self._one.room():
                raise DeadlineExceeded(sent_bytes=at)

    def recv(self, n: int, *, deadline: float | None = None) -> bytes:
        self._move()
        data = self._one.read(n)
        if not data and not self._one.into.ended:
            self._check()
            raise DeadlineExceeded()
        self._move()
        return data

    def flush(self, *, deadline: float | None = None) -> None:
        self._move()
        self._check()

    def send_eof(self) -> None:
        self._one.finish()
        self._move()

    def close(self, *, deadline: float | None = None) -> None:
        self._one.close(self._both.pair.now_s)
        self._move()
        self._check()
        if self._one.state is State.OPEN:
            raise DeadlineExceeded()

    def abort(self, code: int = 1) -> None:
        self._one.abort(code, self._both.pair.now_s)
        self._move()

    @property
    def state(self) -> State:
        return self._one.state

    @property
    def confirmed_bytes(self) -> int:
        return self._one.confirmed_bytes


NAMES = (
    "memory",
    "asyncio tcp",
    "uvloop tcp with a key",
    "uvloop tls",
    "asyncio tls",
    "uvloop unix",
    "blocking tcp",
    "asyncio tcp with a location",
    "blocking tls with a location",
)


@contextmanager
def session_pair(name: str, folder: Path, certificate: Certificate) -> Iterator[Both]:
    """Both ends of one session on this driver and transport."""
    if name == "memory":
        yield Memory()
        return
    driver, scheme = name.split()[:2]
    client = Loop(uvloop.new_event_loop() if driver == "uvloop" else asyncio.new_event_loop())
    serving_loop = Loop(uvloop.new_event_loop() if driver == "uvloop" else asyncio.new_event_loop())
    url, server_terms, client_terms = "tcp://127.0.0.1:0", {}, {}
    if "key" in name:
        server_terms = client_terms = {"psk": PSK}
    if scheme == "unix":
        url = f"unix://{folder}/session.sock"
    if scheme == "tls":
        url = "tls://127.0.0.1:0"
        server_terms = {"certificate": certificate.path, "key": certificate.path.with_name("key.pem")}
        client_terms = {"tls": certificate.client}
    if "location" in name:
        server_terms = {**server_terms, "location": url}
    serving = Serving(serving_loop, url, **server_terms)
    both = Both()
    where = serving.server.url.replace("127.0.0.1", "localhost") if scheme == "tls" else serving.server.url
    deadline = time.monotonic() + LIMIT_S
    try:
        dial = holdfast.connect(where, policy=POLICY, deadline=deadline, **client_terms)
        if driver == "blocking":
            both.near = dial.__enter__()
        else:
            both.near = LoopEnd(client, client.run(dial.open()))
        both.far = LoopEnd(serving_loop, serving.met.get(timeout=LIMIT_S))
        both.cut = serving.cut
        yield both
        if not both.near.state.startswith(("closed", "reset", "lost")):
            both.near.abort()
    finally:
        serving.close()
        client.close()
        serving_loop.close()

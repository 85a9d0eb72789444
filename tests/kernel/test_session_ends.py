# SPDX-License-Identifier: Apache-2.0
"""A session that ends in order makes no RST: the kernel's own counter says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from conformance.drivers import Certificate
from kernel.quiet_network import quiet_network

import holdfast
from holdfast import Session
from holdfast.hold.drivers.server import SessionServer
from holdfast.lab.network import parse_counters

pytestmark = pytest.mark.needs_netns

SESSIONS = 50
RUN: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


async def shout(session: Session) -> None:
    while data := await session.recv():
        await session.send(data.upper())


class Serving:
    """A server with a loop and a thread of its own, in the namespace of the thread that makes it."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], **how: Any) -> None:
        self._how, self._up = how, threading.Event()
        self._thread = threading.Thread(target=lambda: run(self._serve()))
        self._thread.start()
        assert self._up.wait(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with SessionServer(shout, **self._how) as server:
            self.url = server.url
            self._up.set()
            await self._stop.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


def resets() -> int:
    return parse_counters(Path("/proc/thread-self/net/snmp").read_text())["TcpOutRsts"]


@pytest.mark.parametrize("ends", ["both at once", "the client first"])
@pytest.mark.parametrize("loop", RUN)
@pytest.mark.parametrize("kind", ["plain", "psk", "tls"])
def test_an_orderly_end_makes_no_reset(kind: str, loop: str, ends: str, tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    server: dict[str, Any] = {"url": "tcp://127.0.0.1:0"}
    client: dict[str, Any] = {}
    if kind == "psk":
        server["psk"] = client["psk"] = bytes(range(32))
    elif kind == "tls":
        server = {"url": "tls://127.0.0.1:0", "certificate": certificate.path, "key": tmp_path / "key.pem"}
        certificate.client.check_hostname = (
            False  # it names localhost, which may be ::1 first: refused by a RST
        )
        client = {"tls": certificate.client}

    async def talk(url: str) -> None:
        for _ in range(SESSIONS):
            async with holdfast.connect(url, **client) as session:
                await session.send(b"x")
                assert await session.recv() == b"X"
                if ends == "both at once":
                    await session.send_eof()
                    while await session.recv():
                        pass

    def work() -> int:
        serving = Serving(RUN[loop], **server)
        try:
            RUN[loop](talk(serving.url))
        finally:
            serving.stop()
        return resets()

    with quiet_network() as inside:
        assert inside(work) == 0

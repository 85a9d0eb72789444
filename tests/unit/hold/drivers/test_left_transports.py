# SPDX-License-Identifier: Apache-2.0
"""What becomes of a transport when nothing is carried there any more: it goes, whatever its peer does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import Session, SessionPolicy
from holdfast.hold.drivers import attempts, server, wire
from holdfast.hold.drivers.wire import Wire
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.transports.target import Target


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def kept(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[Wire]:
    """Every wire that this module makes from here on."""
    made: list[Wire] = []
    original: type[Wire] = getattr(module, name)

    class Kept(original):  # type: ignore[misc, valid-type]  # a wire of that module
        def __init__(self, given: object) -> None:
            super().__init__(given)
            made.append(self)

    monkeypatch.setattr(module, name, Kept)
    return made


def shaken(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Somebody who shakes hands as TLS wants it, and then only makes noise."""
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    sock.sendall(b"\x63" * 40)
    return sock


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_tls_does_not_wait_long_for_a_stranger_to_say_goodbye(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runner: Callable[..., object]
) -> None:
    """By default it does for 30 s, in which nobody counts that transport."""
    monkeypatch.setattr(wire, "LAST_WORDS_S", 0.1)
    made = kept(monkeypatch, server, "_Accepted")
    certificate = Certificate(tmp_path)

    async def work() -> None:
        async with holdfast.serve(
            echo, "tls://127.0.0.1:0", certificate=certificate.path, key=tmp_path / "key.pem"
        ) as serving:
            port = Target.parse(serving.url).port
            stranger = await asyncio.to_thread(shaken, port, certificate.client)
            async with asyncio.timeout(5):
                while not made or made[0].transport is not None:
                    await asyncio.sleep(0.01)
            stranger.close()

    runner(work())


def test_the_old_transport_is_closed_as_soon_as_the_new_one_carries_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server's end of it is behind a black hole, so nobody but us can close ours."""
    made = kept(monkeypatch, attempts, "Wire")
    policy = SessionPolicy(rhythm=Rhythm(60, 60))  # no timer comes to help

    async def work() -> float:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy) as serving,
            holdfast.connect(serving.url, policy=policy) as session,
        ):
            await session.send(b"1")
            await session.recv_exactly(1)
            (far,) = serving._wires
            far.gone = True  # it says nothing more, and is not closed
            made[0].link.goaway_s = 0.0
            made[0]._changed(made[0])
            begun = time.monotonic()
            async with asyncio.timeout(5):
                while made[0].transport is not None:
                    await asyncio.sleep(0.01)
            assert session.counters.resumes == 1
            await session.send_eof()
            return time.monotonic() - begun

    assert asyncio.run(work()) < 1


def test_closing_a_server_lets_go_of_no_other_socket(tmp_path: Path) -> None:
    """One that is opened in the same turn of the loop gets the number of the one that listened."""
    certificate = Certificate(tmp_path)

    async def work() -> None:
        near, far = socket.socketpair()
        serving = await holdfast.serve(
            echo, "tls://127.0.0.1:0", certificate=certificate.path, key=tmp_path / "key.pem"
        )
        await asyncio.sleep(0.01)
        port = Target.parse(serving.url).port
        assert serving._listener is not None
        with near, far:
            serving._listener.close()
            with near.dup() as reading:
                came = asyncio.Event()
                asyncio.get_running_loop().add_reader(reading, came.set)
                await asyncio.sleep(0.01)
                far.send(b"x")
                await asyncio.wait_for(came.wait(), 2)
                asyncio.get_running_loop().remove_reader(reading)
        await serving.close()
        socket.create_server(("127.0.0.1", port)).close()

    asyncio.run(work())

# SPDX-License-Identifier: Apache-2.0
"""What becomes of a transport when nothing is carried there any more: it goes, whatever its peer does."""

from __future__ import annotations

import asyncio
import errno
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
from holdfast.hold.drivers import attempts, listener, server, wire
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
        def __init__(self, *given: object) -> None:
            super().__init__(*given)
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


@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_who_connects_and_says_nothing_has_the_time_of_a_handshake(tmp_path: Path, scheme: str) -> None:
    certificate = Certificate(tmp_path)
    keys = {"certificate": certificate.path, "key": tmp_path / "key.pem"} if scheme == "tls" else {}

    async def work() -> None:
        async with holdfast.serve(
            echo, f"{scheme}://127.0.0.1:0", policy=SessionPolicy(handshake_s=0.3), **keys
        ) as serving:
            begun = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", Target.parse(serving.url).port)
            assert await asyncio.wait_for(reader.read(), 3) == b""
            assert time.monotonic() - begun > 0.25
            writer.close()

    asyncio.run(work())


@pytest.mark.parametrize("failures", [1, 3])
def test_a_server_without_descriptors_accepts_again_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int
) -> None:
    monkeypatch.setattr(listener, "AGAIN_S", 0.1)
    certificate = Certificate(tmp_path)
    accept, at_s = asyncio.SelectorEventLoop.sock_accept, []

    async def failing(loop: asyncio.SelectorEventLoop, sock: socket.socket) -> object:
        at_s.append(time.monotonic())
        if len(at_s) <= failures:
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(loop, sock)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", failing)

    async def work() -> None:
        async with holdfast.serve(
            echo, "tls://127.0.0.1:0", certificate=certificate.path, key=tmp_path / "key.pem"
        ) as serving:
            url = serving.url.replace("127.0.0.1", "localhost")
            async with holdfast.connect(url, tls=certificate.client) as session:
                await session.send_eof()

    asyncio.run(work())
    assert at_s[failures] - at_s[0] > 0.09 * failures  # and not again and again at once


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

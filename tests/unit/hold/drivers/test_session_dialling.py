# SPDX-License-Identifier: Apache-2.0
"""Dialling again that hangs, fails or leads nowhere: the session goes on, or ends when its time is up."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from dataclasses import replace

import pytest
from unit.hold.drivers.test_session_neglect import POLICY, echo, soon

import holdfast
from holdfast import GaveUp, SessionLost
from holdfast.hold.drivers import attempts
from holdfast.hold.drivers.client import Dial
from holdfast.hold.race import Address
from holdfast.hold.transports.dial import Dialer


def test_a_name_that_stands_for_another_host_later_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the open it is not dialled; the session ends when its time is up, and says so."""
    policy = replace(POLICY, keep_s=0.3)

    async def elsewhere(self: Dialer, timeout_s: float) -> list[Address]:
        return [Address(socket.AF_INET, ("192.0.2.1", 7))]

    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy) as server:
            session = await holdfast.connect(server.url, policy=policy)
            monkeypatch.setattr(Dialer, "addresses", elsewhere)
            assert session.wire is not None
            session.wire.abort()
            with pytest.raises(SessionLost):
                await session.recv(deadline=soon(5))

    asyncio.run(work())


def test_a_mistake_of_ours_while_dialling_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistaken(self: Dialer, timeout_s: float) -> list[Address]:
        raise ValueError("a mistake")

    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:
            session = await holdfast.connect(server.url, policy=POLICY)
            monkeypatch.setattr(Dialer, "addresses", mistaken)
            assert session.wire is not None
            session.wire.abort()
            with pytest.raises(SessionLost):
                await session.recv(deadline=soon(2))
            with pytest.raises(ValueError, match="a mistake"):
                await holdfast.connect(server.url, policy=POLICY)

    asyncio.run(work())


def test_a_session_expires_even_while_every_dial_hangs() -> None:
    """As in a black hole: each attempt is joined by the next, and none of them ever ends the round."""
    policy = replace(POLICY, keep_s=1.2)

    async def work() -> float:
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy)
        session = await holdfast.connect(server.url, policy=policy)
        assert server._listener is not None
        host, port = server._listener.address
        server._listener.close()
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await asyncio.sleep(0)  # the server's own is closed in the next turn of the loop
            silent.bind((host, port))
            silent.listen()  # whoever dials is answered by the kernel, and by nobody else
            for wire in list(server._wires):
                wire.abort()
            begun = time.monotonic()
            with pytest.raises(SessionLost, match="no transport"):
                await session.recv(deadline=soon())
            await server.close()
            return time.monotonic() - begun

    assert 1 < asyncio.run(work()) < 1.9


def test_every_address_is_tried_again_while_one_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first does not answer, since its queue is full; at the second nobody listens at first."""
    monkeypatch.setattr(attempts, "REDIAL_S", 0.05)

    async def work() -> None:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
            socket.create_connection(silent.getsockname()),
            socket.create_server(("127.0.0.1", 0)) as sock,
        ):
            port = sock.getsockname()[1]
            where = [Address(socket.AF_INET, ("127.0.0.1", one.getsockname()[1])) for one in (silent, sock)]
            sock.close()

            async def addresses(dialer: Dialer, timeout_s: float) -> list[Address]:
                return where

            monkeypatch.setattr(Dialer, "addresses", addresses)
            opening = asyncio.create_task(
                Dial("tcp://two.example:1", psk=b"k" * 32, policy=POLICY, deadline=soon(5)).open()
            )
            await asyncio.sleep(0.4)
            assert not opening.done()
            async with holdfast.serve(echo, f"tcp://127.0.0.1:{port}", psk=b"k" * 32, policy=POLICY):
                # Less than a handshake may take: those that hang are not waited for.
                session = await asyncio.wait_for(opening, 1)
                await session.abort()

    asyncio.run(work())


def test_a_server_that_was_reached_is_not_dialled_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may only be busy: six handshakes for one would make it slower still. Giving up is quiet."""
    monkeypatch.setattr(attempts, "REDIAL_S", 0.02)

    async def work() -> int:
        came = 0

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            await reader.read()
            writer.close()

        async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(GaveUp):
                await Dial(f"tcp://127.0.0.1:{port}", policy=POLICY, deadline=soon(0.4)).open()
            await asyncio.sleep(0.01)
            gc.collect()
        return came

    assert asyncio.run(work()) == 1
    assert not [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")]


def test_a_drain_does_not_hold_up_a_session_whose_transport_ends_before() -> None:
    async def work() -> float:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                for wire in list(server._wires):
                    wire.link.go_away(60)
                    wire.flush()
                assert session.wire is not None
                async with asyncio.timeout(5):
                    while session.wire.link.goaway_s is None:
                        await asyncio.sleep(0.01)
                session.wire.abort()
                begun = time.monotonic()
                await session.send(b"moved")
                assert await session.recv_exactly(5, deadline=soon()) == b"moved"
                await session.send_eof()
                return time.monotonic() - begun

    assert asyncio.run(work()) < 2

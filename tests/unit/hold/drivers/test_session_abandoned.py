# SPDX-License-Identifier: Apache-2.0
"""Who ceases to wait for a session to open leaves none at the server."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

import holdfast
from holdfast import GaveUp, Session, SessionLost, SessionPolicy
from holdfast.hold.drivers import server as serving
from holdfast.hold.drivers.client import Dial
from holdfast.hold.session.link import Link
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports import dial

POLICY, KEY = SessionPolicy(keep_s=60), bytes(range(32))


@pytest.mark.parametrize("how", ["deadline", "cancelled", "cancelled as it opens"])
def test_a_session_that_nobody_waits_for_is_given_up(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Between its last proof and the server's answer, or in the very turn in which that came."""
    ends: list[SessionLost] = []
    answers = asyncio.Event()
    flush, heard_first = serving._Accepted.flush, Link._heard_first

    async def handle(session: Session) -> None:
        if how == "cancelled":
            opening.cancel()
        if how == "cancelled as it opens":
            answer(session)
        with pytest.raises(SessionLost) as caught:
            await session.recv()
        ends.append(caught.value)

    def answer(session: Session) -> None:
        answers.set()
        if session.wire is not None:
            session.wire.flush()

    def hold_back(wire: Any) -> None:
        """The server's answer to the last proof waits until it is allowed."""
        if not wire.linked or not wire.link.up or answers.is_set():
            flush(wire)

    def cancel_as_it_opens(link: Link, *first: Any) -> None:
        heard_first(link, *first)
        opening.cancel()

    monkeypatch.setattr(serving._Accepted, "flush", hold_back)
    if how == "cancelled as it opens":
        monkeypatch.setattr(Link, "_heard_first", cancel_as_it_opens)

    async def work() -> None:
        nonlocal opening
        async with holdfast.serve(handle, "tcp://127.0.0.1:0", policy=POLICY, psk=KEY) as server:
            deadline = time.monotonic() + 0.3 if how == "deadline" else None
            opening = asyncio.create_task(
                Dial(server.url, policy=POLICY, psk=KEY, memory=memory, deadline=deadline).open()
            )
            with pytest.raises(GaveUp if how == "deadline" else asyncio.CancelledError):
                await opening
            for session in server.sessions:
                answer(session)
            async with asyncio.timeout(3):
                while not ends or server.sessions or len(server.host) or memory.sessions:
                    await asyncio.sleep(0.01)

    opening: asyncio.Task[Session]
    memory = Memory(1 << 20)
    asyncio.run(work())
    assert (len(ends), memory.promised_bytes) == (1, 0)


def test_an_opening_that_gives_up_dials_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way to who never answers would be for as long as a handshake may take."""

    async def hang(sock: socket.socket, where: object) -> None:
        dialled.append(sock)
        await asyncio.sleep(3600)

    monkeypatch.setattr(dial, "connect", hang)
    dialled: list[socket.socket] = []

    async def work() -> None:
        with pytest.raises(GaveUp):
            await Dial("tcp://127.0.0.1:9", psk=KEY, deadline=time.monotonic() + 0.1).open()
        async with asyncio.timeout(3):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        assert [sock.fileno() for sock in dialled] == [-1]

    asyncio.run(work())

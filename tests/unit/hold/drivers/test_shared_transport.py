# SPDX-License-Identifier: Apache-2.0
"""Our server and a client of another make, which has several sessions on one transport."""

from __future__ import annotations

import asyncio
import os
from typing import Self

import pytest

import holdfast
from holdfast import Session, SessionLost, SessionPolicy
from holdfast.hold.drivers import server as serving
from holdfast.hold.drivers.policy import now_s
from holdfast.hold.drivers.server import SessionServer
from holdfast.hold.session import core
from holdfast.hold.session.codes import Code
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.keys import NO_KEY, X25519
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory, Terms
from holdfast.hold.transports.target import Target

TERMS = Terms()


class Sharing:
    """A client's end of one transport, for any number of sessions."""

    def __init__(self) -> None:
        channel = Channel("plain", b"", NO_KEY, X25519, os.urandom)
        self.link, self._memory = Link(channel, now_s(), rhythm=TERMS.rhythm), Memory()

    async def dial(self, server: SessionServer) -> Self:
        port = Target.parse(server.url).port
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def until(self, session: core.Session, state: State) -> None:
        """Move bytes both ways until a session is in this state."""
        async with asyncio.timeout(5):
            while True:
                self._writer.writelines(self.link.pull(1 << 16, now_s()))
                if session.state is state:
                    return
                self.link.receive(await self._reader.read(1 << 16), now_s())

    async def open(self) -> core.Session:
        window = self._memory.first_window(TERMS.window_bytes)
        self._memory.enter(window)
        session = core.Session(TERMS, self._memory, window)
        self.link.open(session, now_s())
        await self.until(session, State.OPEN)
        return session

    async def bring(self, session: core.Session) -> None:
        """Resume a session of another transport here."""
        self.link.open(session, now_s())
        async with asyncio.timeout(5):
            while session.link is not self.link:
                self._writer.writelines(self.link.pull(1 << 16, now_s()))
                self.link.receive(await self._reader.read(1 << 16), now_s())
        self._writer.writelines(self.link.pull(1 << 16, now_s()))

    async def ended(self) -> None:
        """Say nothing, and wait until the server has ended this transport."""
        async with asyncio.timeout(5):
            while await self._reader.read(1 << 16):
                pass

    def close(self) -> None:
        self._writer.close()


def test_the_handler_of_one_session_of_many_hears_of_its_end() -> None:
    """Its transport goes on with the others, and keeps nothing of it."""
    told: list[int | None] = []

    async def handle(session: Session) -> None:
        try:
            await session.recv()
        except SessionLost as lost:
            told.append(lost.code)

    async def work() -> None:
        async with holdfast.serve(handle, "tcp://127.0.0.1:0") as server:
            sharing = await Sharing().dial(server)
            stays = await sharing.open()
            for code in (300, 301, 302):
                session = await sharing.open()
                session.abort(code, now_s())
                await sharing.until(session, State.RESET)
            async with asyncio.timeout(5):
                while len(server.sessions) > 1:
                    await asyncio.sleep(0.01)
            assert told == [300, 301, 302] and server.host.memory.sessions == 1
            assert stays.state is State.OPEN and server.sessions[0].state is State.OPEN
            (wire,) = server._wires
            assert wire.link.changed() == [server.sessions[0].core]
            stays.abort(Code.ABORTED, now_s())
            await sharing.until(stays, State.RESET)
            sharing.close()

    asyncio.run(work())


def test_a_transport_whose_last_session_has_moved_is_closed() -> None:
    """The server does that, at once: the client may believe in the older one for long, or be gone there."""

    async def idle(session: Session) -> None:
        await session.recv()

    async def work() -> None:
        async with holdfast.serve(idle, "tcp://127.0.0.1:0") as server:
            old, new = await Sharing().dial(server), await Sharing().dial(server)
            sessions = [await old.open() for _ in range(2)]
            ended = asyncio.create_task(old.ended())
            await new.bring(sessions[0])
            await asyncio.sleep(0.05)
            assert not ended.done(), "it carries the other one"
            await new.bring(sessions[1])
            await ended
            assert [session.state for session in server.sessions] == [State.OPEN] * 2
            assert len(server._wires) == 1
            old.close()
            new.close()

    asyncio.run(work())


def test_a_session_whose_handler_has_gone_is_forgotten_when_it_is_away_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given up by its handler while its transport was there, which then broke before the client answered."""
    monkeypatch.setattr(serving, "LOOK_S", 0.002)

    async def work() -> None:
        opened = asyncio.Event()

        async def leave(session: Session) -> None:
            await opened.wait()
            await session.abort()

        async with holdfast.serve(leave, "tcp://127.0.0.1:0", policy=SessionPolicy(keep_s=0.5)) as server:
            sharing = await Sharing().dial(server)
            await sharing.open()
            opened.set()
            await server.drained()
            assert [one.state for one in server.host.sessions] == [State.RESETTING]
            sharing.close()
            memory = server.host.memory
            async with asyncio.timeout(5):
                while server._wires:
                    await asyncio.sleep(0.01)
                assert (len(server.host), memory.sessions) == (1, 1), "the client may still ask how it ended"
                while len(server.host):
                    await asyncio.sleep(0.01)
            assert (memory.sessions, memory.promised_bytes) == (0, 0)

    asyncio.run(work())

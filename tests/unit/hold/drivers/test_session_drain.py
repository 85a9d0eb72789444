# SPDX-License-Identifier: Apache-2.0
"""A server that is about to go: where its sessions stay, and when the last has ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from types import SimpleNamespace

import pytest
from unit.hold.drivers.test_session_paths import POLICY, echo, soon

import holdfast
from holdfast import Session, SessionLost, Truncated
from holdfast.hold.drivers import keeper
from holdfast.hold.race import Address
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target


def test_a_load_balancer_that_leads_elsewhere_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to come back, the client meets another process: it stays where it is, and tries now and then."""
    dialled: list[float] = []

    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as first,
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as second,
        ):
            leads_to = first

            async def addresses(dialer: Dialer, timeout_s: float) -> list[Address]:
                dialled.append(time.monotonic())
                return [Address(socket.AF_INET, ("127.0.0.1", Target.parse(leads_to.url).port))]

            monkeypatch.setattr(Dialer, "addresses", addresses)
            async with holdfast.connect("tcp://127.0.0.1:1", policy=POLICY) as session:
                leads_to = second
                first.drain(0)
                while len(dialled) < 4:
                    await session.send(b"here")
                    assert await session.recv_exactly(4, deadline=soon()) == b"here"
                    await asyncio.sleep(0.01)
                assert session.counters.resumes == 0 and len(dialled) < 20
                for wire in list(first._wires):
                    wire.abort()
                with pytest.raises(SessionLost, match="restarted"):
                    await session.recv(deadline=soon())

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize(("chance", "after_s"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_who_is_asked_to_come_back_takes_half_of_the_time_or_more(
    monkeypatch: pytest.MonkeyPatch, chance: float, after_s: float
) -> None:
    """All who were told the same must not come at once, nor any of them later than was asked."""
    waited: list[float] = []

    async def noted(self: keeper.Keeper, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(keeper.Keeper, "_while_carried", noted)
    monkeypatch.setattr(keeper, "random", SimpleNamespace(random=lambda: chance))

    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            holdfast.connect(server.url, policy=POLICY) as session,
        ):
            for wire in list(server._wires):
                wire.link.go_away(2.0)
                wire.flush()
            while not session.counters.resumes:
                await asyncio.sleep(0.01)
            await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 10))
    assert waited == [after_s]


def test_sessions_may_stay_until_they_end_and_the_server_waits_for_the_last() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:
            session = await holdfast.connect(server.url, policy=POLICY)
            server.drain(None)
            waiting = asyncio.create_task(server.drained())
            for _ in range(5):
                await session.send(b"stays")
                assert await session.recv_exactly(5, deadline=soon()) == b"stays"
                await asyncio.sleep(0.01)
            assert session.counters.resumes == 0 and not waiting.done()
            with pytest.raises(holdfast.GaveUp, match="DRAINING"):
                await holdfast.connect(server.url, policy=POLICY, deadline=soon(0.2))
            await session.send_eof()
            await session.close(deadline=soon())
            await asyncio.wait_for(waiting, 5)
            assert server.sessions == []

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("sent", [b"", b"12345678", b"12345678123"])
def test_an_end_between_two_messages_is_in_order(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that reads messages of a fixed size need not catch what tells it of the end."""
    told: list[bytes] = []

    async def messages(session: Session) -> None:
        try:
            while True:
                await session.recv_exactly(8)
        except Truncated as end:
            told.append(end.partial)
            raise

    async def work() -> None:
        async with holdfast.serve(messages, "tcp://127.0.0.1:0", policy=POLICY) as server:
            session = await holdfast.connect(server.url, policy=POLICY)
            await session.send(sent)
            await session.send_eof()
            if len(sent) % 8:  # what came of the last message was for nothing, which the peer must know
                with pytest.raises(SessionLost):
                    await session.close(deadline=soon())
            else:
                await session.close(deadline=soon())

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(work(), 20))
    assert told == [sent[len(sent) // 8 * 8 :]] and caplog.messages == []

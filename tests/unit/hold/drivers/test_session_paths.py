# SPDX-License-Identifier: Apache-2.0
"""How a client's session finds another path, and how often it tries."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from unit.hold.drivers.path import Path

import holdfast
from holdfast import GaveUp, Session, SessionLost, SessionPolicy
from holdfast.hold.drivers import attempts, keeper
from holdfast.hold.drivers import wire as wire_module
from holdfast.hold.drivers.client import Dial
from holdfast.hold.drivers.keeper import Keeper
from holdfast.hold.drivers.server import SessionServer
from holdfast.hold.drivers.wire import Wire
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.race import Address
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.responder import Responder
from holdfast.hold.session.states import State
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target
from holdfast.hold.wire.session_pb2 import BUSY
from holdfast.policy import Backoff, RetryBudget

POLICY = SessionPolicy(rhythm=Rhythm(60, 60), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5)


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def path_to(server: SessionServer) -> Path:
    return Path(Target.parse(server.url).port)


def test_in_a_black_hole_a_session_goes_on_beside_it() -> None:
    """Nobody says that the transport is dead, and no heartbeat is due for a minute."""

    async def work() -> float:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            path_to(server) as path,
            holdfast.connect(path.url, policy=POLICY) as session,
        ):
            await session.send(b"before")
            assert await session.recv_exactly(6, deadline=soon()) == b"before"
            path.darken()
            begun = time.monotonic()
            await session.send(b"inside")
            assert await session.recv_exactly(6, deadline=soon()) == b"inside"
            assert (session.counters.resumes, path.came) == (1, 2)
            took_s = time.monotonic() - begun
            await session.send_eof()
            return took_s

    # A PING may go again a second after the first only, but doubt waits for no PING.
    assert 0.4 < asyncio.run(work()) < 0.95


def test_six_attempts_at_most_wait_in_a_black_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that waited are gone when the time to open is up."""
    monkeypatch.setattr(attempts, "REDIAL_S", 0.01)
    dialled = gone = 0

    async def hang(dialer: Dialer, *_: object) -> None:
        nonlocal dialled, gone
        dialled += 1
        try:
            await asyncio.sleep(3600)
        finally:
            gone += 1

    monkeypatch.setattr(Dialer, "open", hang)

    async def work() -> None:
        with pytest.raises(GaveUp):
            await Dial(
                "tcp://127.0.0.1:9", policy=replace(POLICY, handshake_s=0.5), deadline=soon(0.4)
            ).open()
        assert (dialled, gone) == (6, 0)
        await asyncio.sleep(0.3)
        assert (dialled, gone) == (6, 6)

    asyncio.run(work())


def test_a_transport_that_comes_when_another_has_won_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is slow; what is under way there ends by itself, and nobody wants it any more."""
    opened = Dialer.open
    late: list[Wire] = []

    async def slow(dialer: Dialer, address: Address, protocol: Callable[[], Wire]) -> tuple[Wire, Channel]:
        if address.sockaddr[0] != "127.0.0.2":
            return await opened(dialer, address, protocol)
        found = await opened(dialer, Address(address.family, ("127.0.0.1", address.sockaddr[1])), protocol)
        late.append(found[0])
        await asyncio.sleep(0.4)  # as TLS may take; what still dials is cancelled
        return found

    async def both(dialer: Dialer, timeout_s: float) -> list[Address]:
        return [Address(socket.AF_INET, (ip, dialer.target.port)) for ip in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(Dialer, "open", slow)
    monkeypatch.setattr(Dialer, "addresses", both)

    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            holdfast.connect(server.url, policy=POLICY) as session,
        ):
            async with asyncio.timeout(5):
                while not late or late[0].transport is not None or len(server._wires) > 1:
                    await asyncio.sleep(0.01)
            await session.send(b"x")
            assert await session.recv_exactly(1, deadline=soon()) == b"x"
            assert session.counters.resumes == 0
            await session.send_eof()

    asyncio.run(work())


@asynccontextmanager
async def swallowing() -> AsyncIterator[tuple[int, list[float]]]:
    """A server that takes everything and answers nothing; its port, and when each client had left."""
    left_s: list[float] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        left_s.append(time.monotonic())
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], left_s


def test_a_handshake_that_another_has_outrun_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with (
            swallowing() as (silent, left_s),
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
        ):
            ports = (silent, Target.parse(server.url).port)

            async def both(dialer: Dialer, timeout_s: float) -> list[Address]:
                return [Address(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

            monkeypatch.setattr(Dialer, "addresses", both)
            async with holdfast.connect("tcp://two.example:1", policy=POLICY) as session:
                async with asyncio.timeout(2):
                    while not left_s:
                        await asyncio.sleep(0.01)
                await session.send_eof()

    asyncio.run(work())


def test_dialling_takes_of_the_time_of_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(POLICY, handshake_s=0.5)
    opened = Dialer.open

    async def slow(dialer: Dialer, address: Address, protocol: Callable[[], Wire]) -> tuple[Wire, Channel]:
        await asyncio.sleep(0.4)
        return await opened(dialer, address, protocol)

    monkeypatch.setattr(Dialer, "open", slow)

    async def work() -> float:
        async with swallowing() as (port, left_s):
            begun = time.monotonic()
            opening = asyncio.create_task(Dial(f"tcp://127.0.0.1:{port}", policy=policy).open())
            async with asyncio.timeout(5):
                while not left_s:
                    await asyncio.sleep(0.01)
            opening.cancel()
            return left_s[0] - begun

    assert 0.45 < asyncio.run(work()) < 0.8


def test_an_address_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            refusing = sock.getsockname()[1]
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:
            ports = (refusing, Target.parse(server.url).port)

            async def both(dialer: Dialer, timeout_s: float) -> list[Address]:
                return [Address(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

            monkeypatch.setattr(Dialer, "addresses", both)
            await (await Dial("tcp://two.example:1", policy=POLICY, deadline=soon(2)).open()).abort()

    asyncio.run(work())


def test_attempts_cost_the_budget_of_their_target() -> None:
    policy = replace(POLICY, budget=RetryBudget(min_retries=2))

    async def work() -> int:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy, most_sessions=0) as server,
            path_to(server) as path,
        ):
            server.host.retry_after_ms = 0
            with pytest.raises(GaveUp):
                await Dial(path.url, policy=policy, deadline=soon(0.5)).open()
            return path.came

    assert asyncio.run(work()) == 3


def test_a_server_cannot_make_a_session_wait_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(POLICY, keep_s=0.3)

    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy) as server:
            session = await holdfast.connect(server.url, policy=policy)
            server.host.retry_after_ms = 60_000
            monkeypatch.setattr(Responder, "_resume", lambda self, *_: self._refuse(BUSY))
            assert session.wire is not None
            session.wire.abort()
            with pytest.raises(SessionLost, match="no transport"):
                await session.recv(deadline=soon(2))

    asyncio.run(work())


def test_a_drain_does_not_hold_up_a_session_in_a_black_hole() -> None:
    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            path_to(server) as path,
            holdfast.connect(path.url, policy=POLICY) as session,
        ):
            (far,) = server._wires
            far.link.go_away(60)
            far.flush()
            assert session.wire is not None
            async with asyncio.timeout(2):
                while session.wire.link.goaway_s is None:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            path.darken()
            await session.send(b"x")
            assert await session.recv_exactly(1, deadline=soon(3)) == b"x"
            await session.send_eof()

    asyncio.run(work())


def test_a_session_that_is_left_in_a_black_hole_leaves_no_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LINGER_S", 0.1)
    monkeypatch.setattr(wire_module, "LAST_WORDS_S", 0.1)

    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            path_to(server) as path,
        ):
            with pytest.raises(KeyError):
                async with holdfast.connect(path.url, policy=POLICY) as session:
                    wire = session.wire
                    path.darken()
                    raise KeyError
            assert wire is not None
            async with asyncio.timeout(2):
                while wire.transport is not None:
                    await asyncio.sleep(0.01)

    asyncio.run(work())


def test_transports_that_are_gone_are_forgotten() -> None:
    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server,
            holdfast.connect(server.url, policy=POLICY) as session,
        ):
            kept: Keeper = session.leave.__self__  # type: ignore[union-attr]  # a bound method
            for turn in range(5):
                assert session.wire is not None
                session.wire.abort()
                await session.send(b"x")
                assert await session.recv_exactly(1, deadline=soon()) == b"x"
                assert session.counters.resumes == turn + 1
            assert kept._attempts.wires == [session.wire]
            await session.send_eof()

    asyncio.run(work())


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks() -> None:
    async def work() -> int:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY, most_sessions=0) as server,
            path_to(server) as path,
        ):
            server.host.retry_after_ms = 300
            with pytest.raises(GaveUp, match="refused") as caught:
                await Dial(path.url, policy=POLICY, deadline=soon(0.75)).open()
            assert len(caught.value.losses) == path.came
            return path.came

    assert 2 <= asyncio.run(work()) <= 3


def test_who_is_dropped_as_soon_as_he_is_accepted_does_not_come_back_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each handshake ends well, so no attempt fails: the waits grow all the same."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    policy = replace(POLICY, backoff=Backoff(first_s=0.2, cap_s=0.4, stable_s=5))

    async def work() -> int:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy) as server,
            path_to(server) as path,
        ):
            session = await holdfast.connect(path.url, policy=policy)
            path.flights = 2  # the confirmation is the second
            await session.send(b"x")
            await asyncio.sleep(1)
            came = path.came
            path.flights = None
            assert await session.recv_exactly(1, deadline=soon()) == b"x"
            await session.abort()
            return came

    assert 3 <= asyncio.run(work()) <= 9


def test_the_losses_that_are_told_are_the_last_sixteen() -> None:
    policy = replace(POLICY, backoff=Backoff(first_s=0.001, cap_s=0.002))

    async def work() -> int:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy, most_sessions=0) as server:
            server.host.retry_after_ms = 0
            with pytest.raises(GaveUp) as caught:
                await Dial(server.url, policy=policy, deadline=soon(1)).open()
            return len(caught.value.losses)

    assert asyncio.run(work()) == 16


def test_the_last_word_is_said_before_a_session_is_left() -> None:
    """Giving up needs no more than the time of a round trip, and the server need not wait for the expiry."""

    async def work() -> None:
        ended = asyncio.Event()

        async def handle(session: Session) -> None:
            try:
                await session.recv()
            finally:
                ended.set()

        async with (
            holdfast.serve(handle, "tcp://127.0.0.1:0", policy=POLICY) as server,
            path_to(server) as path,
        ):
            with pytest.raises(KeyError):
                async with holdfast.connect(path.url, policy=POLICY) as session:
                    path.flights = 1  # nothing comes through, and no transport stays
                    await session.send(b"x")
                    while session.state is not State.SUSPENDED:
                        await asyncio.sleep(0.01)
                    path.flights = None
                    raise KeyError
            await asyncio.wait_for(ended.wait(), 2)

    asyncio.run(work())

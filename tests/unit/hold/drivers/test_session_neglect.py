# SPDX-License-Identifier: Apache-2.0
"""What must not pile up in a process, nor hang, when peers are careless or hostile."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import GaveUp, Session, SessionPolicy
from holdfast.hold.drivers import keeper, wire
from holdfast.hold.drivers.client import Dial
from holdfast.hold.drivers.policy import now_s
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports.target import Target
from holdfast.policy import Backoff, RetryBudget

POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def test_tls_that_fails_leaves_no_handshake_behind(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)

    async def work() -> None:
        async with holdfast.serve(
            echo, "tls://127.0.0.1:0", policy=POLICY, most_half_open=3,
            certificate=certificate.path, key=tmp_path / "key.pem",
        ) as server:  # fmt: skip
            port = int(server.url.rsplit(":")[-1])
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"this is no ClientHello\n")
                assert await asyncio.wait_for(reader.read(), 5) is not None  # an alert, or nothing
                writer.close()
            assert len(server.host.half_open) == 0
            url = f"tls://localhost:{port}"
            async with holdfast.connect(url, policy=POLICY, tls=certificate.client) as session:
                await session.send_eof()

    asyncio.run(work())


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_tls_handshakes_are_bounded_in_number(
    tmp_path: Path, runner: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    """Who connects and says nothing takes one of so many places, and gives it back when he leaves."""
    certificate = Certificate(tmp_path)

    async def work() -> None:
        async with holdfast.serve(
            echo, "tls://127.0.0.1:0", policy=POLICY, most_half_open=3,
            certificate=certificate.path, key=tmp_path / "key.pem",
        ) as server:  # fmt: skip
            port = int(server.url.rsplit(":")[-1])
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
            ends = [asyncio.create_task(reader.read()) for reader, _ in silent]
            await asyncio.wait(ends, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            while sum(end.done() for end in ends) < 7:
                await asyncio.sleep(0.01)
            assert server._listener is not None and len(server._listener._shaking) == 3
            for _, writer in silent:
                writer.close()
            await asyncio.wait(ends, timeout=5)
            url = f"tls://localhost:{port}"
            async with holdfast.connect(url, policy=POLICY, tls=certificate.client) as session:
                await session.send_eof()
            last = await asyncio.open_connection("127.0.0.1", port)
            while not server._listener._shaking:
                await asyncio.sleep(0.01)
        assert await asyncio.wait_for(last[0].read(), 5) == b""
        last[1].close()

    runner(work())
    assert not caplog.records


def test_what_is_reset_unread_takes_no_memory_for_good() -> None:
    async def late(session: Session) -> None:
        await asyncio.sleep(0.05)
        while await session.recv():
            pass

    async def work() -> None:
        async with holdfast.serve(late, f"unix://@holdfast-unread-{os.getpid()}", policy=POLICY) as server:
            for _ in range(3):
                session = await holdfast.connect(server.url, policy=POLICY)
                await session.send(bytes(60_000))
                await session.flush()
                await session.abort()
            while server.sessions:
                await asyncio.sleep(0.01)
            assert (server.host.memory.promised_bytes, server.host.memory.sessions) == (0, 0)

    asyncio.run(asyncio.wait_for(work(), 10))


def test_handlers_of_sessions_that_have_ended_are_bounded_in_number() -> None:
    async def deaf(session: Session) -> None:
        await asyncio.sleep(60)

    async def work() -> None:
        async with holdfast.serve(
            deaf, f"unix://@holdfast-deaf-{os.getpid()}", policy=POLICY, most_sessions=2
        ) as server:
            for _ in range(2):
                await (await holdfast.connect(server.url, policy=POLICY)).abort()
            server.host.look(now_s(), server._sessions)
            with pytest.raises(GaveUp):
                await Dial(server.url, policy=POLICY, deadline=soon(0.3)).open()
            assert len(server._tasks) == 2

    asyncio.run(asyncio.wait_for(work(), 10))


def test_what_a_peer_never_reads_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that was given up goes, though its socket stays open at the other end."""
    monkeypatch.setattr(wire, "LAST_WORDS_S", 0.1)

    async def flood(session: Session) -> None:
        while True:
            await session.send(bytes(65536))

    async def work() -> None:
        async with holdfast.serve(flood, f"unix://@holdfast-flood-{os.getpid()}", policy=POLICY) as server:
            session = await holdfast.connect(server.url, policy=POLICY)
            assert session.wire is not None and session.wire.transport is not None
            (old,) = server._wires
            assert old.transport is not None
            old.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            while not old.transport.get_write_buffer_size():
                await session.recv()
            session.wire.transport.pause_reading()
            kept = os.dup(session.wire.transport.get_extra_info("socket").fileno())
            try:
                session.wire.abort()
                while old.transport is not None:
                    await asyncio.sleep(0.01)
            finally:
                os.close(kept)
            await session.abort()

    asyncio.run(asyncio.wait_for(work(), 5))


def test_budgets_are_shared_by_target_and_bounded() -> None:
    rule = RetryBudget(min_retries=7)
    one = Target("tcp", "one.example", 1)
    assert keeper._budget(one, rule) is keeper._budget(Target.parse("tcp://one.example:1"), rule)
    for port in range(2, 2000):
        keeper._budget(Target("tcp", "other.example", port), rule)
    assert keeper._budget.cache_info().currsize == 1024


def test_sessions_that_never_opened_give_their_memory_back() -> None:
    async def work(memory: Memory) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        for _ in range(3):
            with pytest.raises(GaveUp):
                await Dial(
                    f"tcp://127.0.0.1:{port}", policy=POLICY, memory=memory, deadline=soon(0.02)
                ).open()

    memory = Memory(1 << 20)
    asyncio.run(work(memory))
    assert (memory.promised_bytes, memory.sessions) == (0, 0)


@pytest.mark.parametrize("patience_s", [None, 0.05])
def test_a_session_that_is_left_while_nobody_answers_gives_its_memory_back(patience_s: float | None) -> None:
    """It was given up, or its end was, and the server cannot be told."""

    async def work(memory: Memory) -> None:
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY)
        dial = Dial(server.url, policy=POLICY, memory=memory)
        with pytest.raises((KeyError, TimeoutError)):
            async with asyncio.timeout(None) as limit, dial as session:
                assert server._listener is not None
                server._listener.close()
                for wire in list(server._wires):
                    wire.abort()
                while session.state is not State.SUSPENDED:
                    await asyncio.sleep(0.01)
                if patience_s is None:
                    raise KeyError
                limit.reschedule(asyncio.get_running_loop().time() + patience_s)
        await server.close()

    memory = Memory(1 << 20)
    asyncio.run(work(memory))
    assert (memory.promised_bytes, memory.sessions) == (0, 0)

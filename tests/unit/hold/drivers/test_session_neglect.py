# SPDX-License-Identifier: Apache-2.0
"""What must not pile up in a process, nor hang, when peers and programs are careless or hostile."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import DeadlineExceeded, GaveUp, Session, SessionLost, SessionPolicy, UsageError
from holdfast.hold.drivers import attempts, keeper, wire
from holdfast.hold.drivers.blocking import _Loop
from holdfast.hold.drivers.client import Dial
from holdfast.hold.drivers.policy import Happened, SessionEvent, now_s
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.options import apply
from holdfast.hold.race import Address
from holdfast.hold.session import core
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target
from holdfast.policy import DEFAULT_PROFILE, Backoff, RetryBudget, SocketPolicy

POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


@contextmanager
def serving(handle: Callable[[Session], Awaitable[None]]) -> Iterator[str]:
    """A server in a loop and a thread of its own; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = holdfast.serve(handle, "tcp://127.0.0.1:0", policy=POLICY, psk=bytes(range(32)))
    run(server.start())
    yield server.url
    run(server.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


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


def test_counters_may_be_asked_in_another_thread_than_the_loops() -> None:
    class Taken(Session):
        """Its transport is there when it is asked for, and gone when it is asked for again."""

        seen = iter([SimpleNamespace(link=SimpleNamespace(heart=None)), None])
        wire = property(lambda self: next(self.seen), lambda self, wire: None)  # type: ignore[assignment]

    async def taken() -> Session:
        return Taken(core.Session(POLICY.terms(), Memory(), 4096))

    assert asyncio.run(taken()).counters.rtt_s is None


def test_an_observer_that_would_wait_for_itself_is_told() -> None:
    seen: list[BaseException] = []

    def observer(event: SessionEvent) -> None:
        if event.what is Happened.ENDED:
            try:
                client.recv()
            except UsageError as error:
                seen.append(error)

    with serving(echo) as url:
        client = holdfast.connect(url, policy=POLICY, psk=bytes(range(32)), observer=observer).__enter__()
        client.send_eof()
        assert client.recv(deadline=soon()) == b""
        client.close(deadline=soon())
        end = soon(2)
        while not seen and time.monotonic() < end:
            time.sleep(0.01)
    assert len(seen) == 1 and "must not wait" in str(seen[0])


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


def test_a_forked_child_says_nothing_on_its_parents_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the keys and the socket: one frame of its own would repeat a nonce and break the stream."""
    # Asyncio's own loop would write at once; uvloop's waits for a turn that a child does not have.
    monkeypatch.setattr("holdfast.hold.drivers.blocking._LOOP", _Loop())
    monkeypatch.setattr("holdfast.hold.drivers.blocking.new_loop", asyncio.new_event_loop)
    with serving(echo) as url, holdfast.connect(url, policy=POLICY, psk=bytes(range(32))) as session:
        session.send(b"before")
        assert session.recv_exactly(6, deadline=soon()) == b"before"
        child = os.fork()
        if child == 0:
            refused = 0
            for work in (lambda: session.send(b"child"), lambda: session.recv(1)):
                try:
                    work()
                except UsageError:
                    refused += 1
            session.__exit__(None, None, None)
            asyncio.run(session._session.send(b"child"))
            os._exit(0 if refused == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        session.send(b"after")
        assert session.recv_exactly(5, deadline=soon()) == b"after"
        assert session.counters.resumes == 0
        session.send_eof()


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


def bare_tcp_dies_after_s(policy: SocketPolicy) -> float:
    """How long a connection lives whose peer does not read, with these options."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        apply(policy, sock)
        sock.connect(server.getsockname())
        accepted, _ = server.accept()
        begun = time.monotonic()
        with accepted, pytest.raises(TimeoutError, match="timed out"):
            while True:
                sock.sendall(bytes(1 << 16))
        return time.monotonic() - begun


@pytest.mark.slow
def test_a_reader_who_does_not_read_does_not_trip_the_user_timeout() -> None:
    """Credit stops the sender before the receive window closes, which would end a bare connection."""
    sockets = replace(DEFAULT_PROFILE.policy, user_timeout_ms=300)
    policy = replace(POLICY, profile=replace(DEFAULT_PROFILE, policy=sockets), window_bytes=1 << 18)
    patience_s = 2 * bare_tcp_dies_after_s(policy.socket_policy)

    async def idle(session: Session) -> None:
        await asyncio.sleep(patience_s)
        while data := await session.recv():
            await session.send(data[:1])

    async def work() -> None:
        async with (
            holdfast.serve(idle, "tcp://127.0.0.1:0", policy=policy) as server,
            holdfast.connect(server.url, policy=policy) as session,
        ):
            with pytest.raises(DeadlineExceeded):
                await session.send(bytes(1 << 22), deadline=soon(patience_s * 0.9))
            await session.recv(deadline=soon())
            assert session.counters.resumes == 0
            await session.abort()

    asyncio.run(work())


def test_cancelling_recv_exactly_loses_nothing() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                await session.send(b"begin")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await session.recv_exactly(8)
                await session.send(b"end")
                assert await session.recv_exactly(8, deadline=soon()) == b"beginend"
                await session.send_eof()

    asyncio.run(work())


def test_an_observer_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: SessionEvent) -> None:
        raise ValueError(event.what)

    async def work() -> None:
        async with holdfast.serve(  # noqa: SIM117
            echo, "tcp://127.0.0.1:0", policy=POLICY, observer=fail
        ) as server:
            async with holdfast.connect(server.url, policy=POLICY, observer=fail) as session:
                await session.send(b"still")
                assert await session.recv_exactly(5, deadline=soon()) == b"still"
                assert session.counters.resumes == 0
                await session.send_eof()

    asyncio.run(work())
    assert "the observer failed" in caplog.text

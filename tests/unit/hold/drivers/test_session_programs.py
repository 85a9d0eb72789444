# SPDX-License-Identifier: Apache-2.0
"""What programs do to their sessions: fork, fail in an observer, do not read, give up waiting."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from unit.hold.drivers.test_session_neglect import POLICY, echo, soon

import holdfast
from holdfast import DeadlineExceeded, Session, UsageError
from holdfast.hold.drivers.blocking import _Loop
from holdfast.hold.drivers.policy import Happened, SessionEvent
from holdfast.hold.options import apply
from holdfast.hold.session import core
from holdfast.hold.session.terms import Memory
from holdfast.policy import DEFAULT_PROFILE, SocketPolicy


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

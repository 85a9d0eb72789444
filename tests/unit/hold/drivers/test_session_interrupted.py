# SPDX-License-Identifier: Apache-2.0
"""A signal whose handler raises may end a blocking call at any moment; no byte is lost or doubled by it."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self

import pytest

import holdfast
from holdfast import BlockingSession, DeadlineExceeded, Session, SessionLost, SessionPolicy
from holdfast.hold.drivers.blocking import _LOOP
from holdfast.hold.heartbeat import Rhythm

POLICY = SessionPolicy(rhythm=Rhythm(0.5, 2), keep_s=5, handshake_s=2)
SIZE = 200_000


class Interrupted(BaseException):
    """What the handler raises, as Ctrl-C does KeyboardInterrupt."""


def stream(size: int) -> bytes:
    """Bytes in which any two places look different."""
    return random.Random(size).randbytes(size)


@contextmanager
def session_with(handle: Callable[[Session], Any]) -> Iterator[BlockingSession]:
    """A blocking session with a server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = run(holdfast.serve(handle, "tcp://127.0.0.1:0", policy=POLICY).start())
    session = holdfast.connect(server.url, policy=POLICY).__enter__()
    try:
        yield session
    finally:
        with suppress(SessionLost):
            session.abort()
        run(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Shower:
    """Signals at random moments; the handler raises where it is not safe, once, and then it is safe."""

    def __init__(self, seed: int) -> None:
        self.chance, self.raised, self.safe = random.Random(seed), 0, True
        self._over, self._victim = threading.Event(), threading.get_ident()
        self._cloud = threading.Thread(target=self._rain)

    def _rain(self) -> None:
        while not self._over.wait(self.chance.uniform(20e-6, 1e-3)):
            signal.pthread_kill(self._victim, signal.SIGUSR1)

    def _wet(self, number: int, frame: FrameType | None) -> None:
        if not self.safe:
            self.raised += 1
            self.safe = True
            raise Interrupted

    def __enter__(self) -> Self:
        gc.disable()  # callbacks of the test runner would swallow what the handler raises
        self._before = signal.signal(signal.SIGUSR1, self._wet)
        self._cloud.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.safe = True
        self._over.set()
        self._cloud.join()
        signal.signal(signal.SIGUSR1, self._before)
        gc.enable()


def received(session: BlockingSession, exactly: int) -> tuple[bytes, int]:
    """Everything up to the end, through a shower of signals; with how many of them raised."""
    got = bytearray()

    def call() -> bytes:
        return session.recv_exactly(min(exactly, SIZE - len(got))) if exactly else session.recv(4096)

    with Shower(exactly) as shower:
        while len(got) < SIZE:
            data = b""
            try:
                # The handler may raise anywhere in here, but not between the return of the call and the line
                # after it: the interpreter looks for signals at calls and at jumps backwards.
                shower.safe = False
                data = call()
                shower.safe = True
            except Interrupted:
                pass
            got += data
    return bytes(got), shower.raised


@pytest.mark.parametrize("exactly", [0, 3000])
def test_no_byte_that_came_is_lost(exactly: int) -> None:
    async def write(session: Session) -> None:
        sent = stream(SIZE)
        for at in range(0, SIZE, 500):
            await session.send(sent[at : at + 500])
            await asyncio.sleep(0 if at % 5000 else 0.001)
        await session.flush()
        await session.recv()

    with session_with(write) as session:
        got, raised = received(session, exactly)
        assert got == stream(SIZE)
        assert raised > 20
        assert session.counters.bytes_received == SIZE


def test_what_was_given_is_known() -> None:
    """After a send that was interrupted, the counter says from where to go on, and stays there."""
    got = bytearray()
    ended = threading.Event()

    async def read(session: Session) -> None:
        while data := await session.recv(5000):
            got.extend(data)
            await asyncio.sleep(0)
        ended.set()
        await session.send_eof()

    with session_with(read) as session:
        sent, at = stream(30 * SIZE), 0
        with Shower(7) as shower:
            while at < len(sent):
                try:
                    shower.safe = False
                    session.send(sent[at : at + 100_000])
                    shower.safe = True
                except Interrupted:
                    pass
                at = session.counters.bytes_sent
        session.send_eof()
        assert ended.wait(10)
        assert bytes(got) == sent
        assert shower.raised > 5


def test_the_counter_does_not_move_after_an_interrupted_send() -> None:
    async def read(session: Session) -> None:
        while await session.recv(5000):
            await asyncio.sleep(0.001)

    with session_with(read) as session:
        for number in range(20):
            with pytest.raises(Interrupted), Shower(number) as shower:
                shower.safe = False
                while True:
                    session.send(bytes(50_000_000))
            told = session.counters.bytes_sent
            time.sleep(0.01)
            assert session.counters.bytes_sent == told


def test_what_an_interrupted_call_had_taken_is_unread_when_the_session_is_closed() -> None:
    """Who closes without having read everything must not make a truncation look like success."""

    async def write(session: Session) -> None:
        await session.send(b"x")
        await session.send_eof()
        await session.recv()

    with session_with(write) as session:
        # As if the signal had come after the bytes were taken, and before the caller had them.
        assert session._run(lambda: session._take(lambda: session._session.recv(10))) == 1
        with pytest.raises(SessionLost):
            session.close(deadline=time.monotonic() + 5)


def test_what_an_error_has_is_not_given_again() -> None:
    """Only what a signal kept from the caller comes again; the partial of an error was handed over."""
    asked = threading.Event()

    async def write(session: Session) -> None:
        await session.send(b"first")
        while not asked.is_set():
            await asyncio.sleep(0.01)
        await session.send(b"second")
        await session.recv()

    with session_with(write) as session:
        with pytest.raises(DeadlineExceeded) as caught:
            session.recv_exactly(100, deadline=time.monotonic() + 0.2)
        assert caught.value.partial == b"first"
        asked.set()
        assert session.recv_exactly(6, deadline=time.monotonic() + 5) == b"second"
        assert session.counters.bytes_received == 11


def test_a_session_that_was_opened_for_nobody_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal after the server had it and before the caller did: nobody would ever close it."""
    ended = threading.Event()

    async def wait(session: Session) -> None:
        try:
            await session.recv()
        finally:
            ended.set()

    with session_with(wait) as session:
        run, calls = _LOOP.run, iter([True])

        def late(work: Callable[[], Any]) -> Any:
            done = run(work)
            if next(calls, False):
                raise Interrupted
            return done

        monkeypatch.setattr(_LOOP, "run", late)
        dial = holdfast.connect(f"tcp://{session.peer}", policy=POLICY)
        with pytest.raises(Interrupted):
            dial.__enter__()
        assert ended.wait(5)

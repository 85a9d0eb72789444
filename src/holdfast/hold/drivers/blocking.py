"""The session of a program without asyncio. Its heartbeat goes on while the program does something else."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from holdfast.errors import Gathered, UsageError
from holdfast.hold.drivers.session import CHUNK_BYTES, Session, SessionCounters
from holdfast.hold.session.codes import Code
from holdfast.hold.session.states import State
from holdfast.hold.sole import Sole

_T = TypeVar("_T")


class Opening(Protocol):
    """What opens a session."""

    def open(self) -> Coroutine[Any, Any, Session]:
        """Open it."""


class _Call(Generic[_T]):
    """One piece of work for the loop's thread, for whose end another thread waits.

    A plain lock, and not a ``concurrent.futures.Future``: a handler that raises inside its condition can
    leave it locked, and the loop would wait for ever to say that the work is done.

    Attributes:
        over: locked until it has ended.
        done: it has ended.
        result, error: how.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self.done = False
        self.result: _T | None = None
        self.error: BaseException | None = None
        self.over = threading.Lock()
        self.over.acquire()

    def start(self) -> None:
        """In the loop's thread: begin."""
        self._task = asyncio.get_running_loop().create_task(self._do())
        self._task.add_done_callback(self._end)

    def stop(self) -> None:
        """In the loop's thread, after :meth:`start` if that was asked for: end soon."""
        if self._task is not None:
            self._task.cancel()
        elif not self.done:
            self._end()

    async def _do(self) -> None:
        try:
            self.result = await self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self.error = error

    def _end(self, task: asyncio.Task[None] | None = None) -> None:
        # A task must not die in the caller's thread: what asyncio does then would swallow a signal's error.
        self._task = None
        self.done = True
        self.over.release()


class _Loop:
    """One event loop in a thread of its own, for all blocking sessions of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """A forked child has neither the thread nor its sessions."""
        self.__init__()  # type: ignore[misc]  # the same object, anew

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do it there, and wait for it here.

        Raises:
            UsageError: this is that thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise UsageError("An observer runs in the thread that moves the bytes: it must not wait for any.")
        with self._lock:
            if self._loop is None:
                self._loop = new_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="holdfast sessions", daemon=True
                )
                self._thread.start()
        call, loop = _Call(work), self._loop
        try:
            loop.call_soon_threadsafe(call.start)
            call.over.acquire()
        except BaseException:
            # A signal's handler raised. What was waited for must not go on, and what it has done must be
            # known when the caller goes on; so wait for its end, which a second signal may cut short.
            if not call.done:
                loop.call_soon_threadsafe(call.stop)
                call.over.acquire()
            raise
        if call.error is not None:
            raise call.error
        return cast(_T, call.result)


def new_loop() -> asyncio.AbstractEventLoop:
    """Uvloop's event loop where it is installed, asyncio's where it is not."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


_LOOP = _Loop()
os.register_at_fork(after_in_child=_LOOP.forget)


class BlockingSession(Sole):
    """As :class:`Session`, for threads: one may receive while another sends.

    Every ``deadline`` is absolute ``time.monotonic()`` seconds, None waits without limit. In a forked child
    every call raises UsageError, and leaving ``with`` does nothing.

    A signal's handler may raise out of any call, as Ctrl-C does: the next ``recv`` gives what the interrupted
    one had taken, and ``counters.bytes_sent`` says how much an interrupted ``send`` has given.
    """

    def __init__(self, opening: Opening) -> None:
        self._pid = os.getpid()
        self._taken = b""  # what came for a call that has not returned
        opened: list[Session] = []

        async def open_it() -> None:
            opened.append(await opening.open())

        try:
            _LOOP.run(open_it)
        except BaseException as error:
            for session in opened:  # a signal came between that and here: nobody else would ever end it
                _LOOP.run(partial(session.__aexit__, type(error), error, None))
            raise
        self._session = opened[0]

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        if os.getpid() != self._pid:
            raise UsageError("This session is the parent process's: connect again in the child.")
        return _LOOP.run(work)

    @property
    def id(self) -> str:
        """The session's public name, in hexadecimal."""
        return self._session.id

    @property
    def state(self) -> State:
        """See the states of the protocol."""
        return self._session.state

    @property
    def peer(self) -> str | None:
        """The other end's address."""
        return self._session.peer

    @property
    def confirmed_bytes(self) -> int:
        """How many of the bytes sent have arrived in the peer's session."""
        return self._session.confirmed_bytes

    @property
    def counters(self) -> SessionCounters:
        """What went through so far."""
        found = self._session.counters
        return replace(found, bytes_received=found.bytes_received - len(self._taken))

    def _receive(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        while True:
            try:
                came = self._run(lambda: self._take(receive))
            except Gathered:
                self._taken = b""  # the error has it
                raise
            # From here to the caller there is no call and no loop, so that CPython runs no signal's handler.
            data, self._taken = self._taken, b""
            if data or not came:
                return data
            # Another thread closed the session or received meanwhile, and what came is back in its place.

    async def _take(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> int:
        """In the loop's thread: receive, and keep it until the caller's thread has it; gives how much."""
        self._put_back()
        try:
            self._taken = await receive()
        except Gathered as error:
            self._taken = error.partial
            raise
        return len(self._taken)

    def _put_back(self) -> None:
        """In the loop's thread: what an interrupted call had taken is the next to be read."""
        untaken, self._taken = self._taken, b""
        self._session.core.into.put_back(untaken)

    async def _close(self, deadline: float | None) -> None:
        self._put_back()
        await self._session.close(deadline=deadline)

    async def _exit(self, *why: Any) -> None:
        self._put_back()
        await self._session.__aexit__(*why)

    def recv(self, n: int = CHUNK_BYTES, *, deadline: float | None = None) -> bytes:
        """As :meth:`Session.recv`."""
        return self._receive(lambda: self._session.recv(n, deadline=deadline))

    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """As :meth:`Session.recv_exactly`."""
        return self._receive(lambda: self._session.recv_exactly(n, deadline=deadline))

    def send(self, data: bytes | bytearray | memoryview, *, deadline: float | None = None) -> None:
        """As :meth:`Session.send`."""
        self._run(lambda: self._session.send(data, deadline=deadline))

    def flush(self, *, deadline: float | None = None) -> None:
        """As :meth:`Session.flush`."""
        self._run(lambda: self._session.flush(deadline=deadline))

    def send_eof(self) -> None:
        """As :meth:`Session.send_eof`."""
        self._run(self._session.send_eof)

    def close(self, *, deadline: float | None = None) -> None:
        """As :meth:`Session.close`."""
        self._run(lambda: self._close(deadline))

    def abort(self, code: int = Code.ABORTED) -> None:
        """As :meth:`Session.abort`."""
        self._run(lambda: self._session.abort(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:  # a forked child leaves the block, too
            self._run(lambda: self._exit(kind, error, trace))

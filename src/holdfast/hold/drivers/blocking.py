"""The session of a program without asyncio. Its heartbeat goes on while the program does something else."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from holdfast.errors import UsageError
from holdfast.hold.drivers.session import CHUNK_BYTES, Session, SessionCounters
from holdfast.hold.session.codes import Code
from holdfast.hold.session.states import State

_T = TypeVar("_T")


class Opening(Protocol):
    """What opens a session."""

    def open(self) -> Coroutine[Any, Any, Session]:
        """Open it."""


class _Loop:
    """One event loop in a thread of its own, for all blocking sessions of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """A forked child has neither the thread nor its sessions."""
        self.__init__()  # type: ignore[misc]  # the same object, anew

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it there, and wait for it here.

        Raises:
            UsageError: this is that thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError("An observer runs in the thread that moves the bytes: it must not wait for any.")
        with self._lock:
            if self._loop is None:
                self._loop = new_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="holdfast sessions", daemon=True
                )
                self._thread.start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the thread was interrupted: what it waited for must not go on
            raise


def new_loop() -> asyncio.AbstractEventLoop:
    """Uvloop's event loop where it is installed, asyncio's where it is not."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


_LOOP = _Loop()
os.register_at_fork(after_in_child=_LOOP.forget)


class BlockingSession:
    """As :class:`Session`, for threads: one may receive while another sends.

    Every ``deadline`` is absolute ``time.monotonic()`` seconds, None waits without limit. In a forked child
    every call raises UsageError, and leaving ``with`` does nothing.
    """

    def __init__(self, opening: Opening) -> None:
        self._pid = os.getpid()
        self._session = _LOOP.run(opening.open())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if os.getpid() != self._pid:
            work.close()
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
        return self._session.counters

    def recv(self, n: int = CHUNK_BYTES, *, deadline: float | None = None) -> bytes:
        """As :meth:`Session.recv`."""
        return self._run(self._session.recv(n, deadline=deadline))

    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """As :meth:`Session.recv_exactly`."""
        return self._run(self._session.recv_exactly(n, deadline=deadline))

    def send(self, data: bytes | bytearray | memoryview, *, deadline: float | None = None) -> None:
        """As :meth:`Session.send`."""
        self._run(self._session.send(data, deadline=deadline))

    def flush(self, *, deadline: float | None = None) -> None:
        """As :meth:`Session.flush`."""
        self._run(self._session.flush(deadline=deadline))

    def send_eof(self) -> None:
        """As :meth:`Session.send_eof`."""
        self._run(self._session.send_eof())

    def close(self, *, deadline: float | None = None) -> None:
        """As :meth:`Session.close`."""
        self._run(self._session.close(deadline=deadline))

    def abort(self, code: int = Code.ABORTED) -> None:
        """As :meth:`Session.abort`."""
        self._run(self._session.abort(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:  # a forked child leaves the block, too
            self._run(self._session.__aexit__(kind, error, trace))

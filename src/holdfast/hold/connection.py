"""A connection that remembers: its first error, its peer, and every byte that was not taken."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self, TypeVar, cast

from holdfast.errors import (
    Cancelled,
    ConnectionClosed,
    ConnectionLost,
    DeadlineExceeded,
    Truncated,
    UsageError,
)
from holdfast.hold import calls
from holdfast.hold.calls import WOKEN, Calls, Readable, Writable
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.classify import Phase
from holdfast.hold.counters import Counters
from holdfast.hold.inbox import Inbox
from holdfast.hold.loss import address, again, lost, read_figures
from holdfast.hold.tls import TlsCalls
from holdfast.linux import states

_T = TypeVar("_T", bound=int | bytes)

_PAST = -math.inf  # a deadline that lets a call take what is there and never wait


class Connection:
    """A connected stream socket (TCP, TLS, Unix) with a memory.

    One thread may receive while another sends; ``cancel()`` and ``close()`` may come from any. Every
    ``deadline`` is absolute ``time.monotonic()`` seconds; None waits without limit, whatever timeout the
    socket has.

    Args:
        sock: connected; it belongs to the connection from now on.
        causes: whom an error's ``explain()`` asks, None for nobody.

    Attributes:
        local, peer: ``addr:port``, ``[v6]:port`` or a path; still known after a reset, unlike getpeername().
        error: the first error that ended it, None while it lives.
    """

    def __init__(self, sock: socket.socket, *, causes: CauseSource | None = None) -> None:
        if sock.type != socket.SOCK_STREAM:
            raise UsageError("the socket carries datagrams; a connection needs a stream socket")
        self._sock = sock
        self.local = address(sock, socket.socket.getsockname)
        self.peer = address(sock, socket.socket.getpeername)
        if self.peer is None and sock.family != socket.AF_UNIX and not _was_connected(sock):
            raise UsageError("the socket is not connected; connect it before wrapping it")
        self.error: ConnectionLost | Truncated | None = None
        self._causes = causes
        self._calls: Calls = calls
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(0.0)
            self._calls = TlsCalls(threading.Lock())
        self._inbox = Inbox()
        self._ended = False  # the peer's end of stream was read
        self._drained = False  # after an error: the kernel has no more data
        self._shut = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._receiving, self._sending = Turn("receiving"), Turn("sending")
        self._ending = threading.RLock()  # no cancel() after the descriptor is somebody else's
        self._bytes_received = self._bytes_sent = self._receives = self._sends = 0

    @property
    def sock(self) -> socket.socket:
        """The socket, for its options; reading or writing it directly loses what this class is for."""
        return self._sock

    @property
    def counters(self) -> Counters:
        """What went through so far."""
        return Counters(self._bytes_received, self._bytes_sent, self._receives, self._sends)

    def recv(self, n: int, *, deadline: float | None = None) -> bytes:
        """Up to ``n`` bytes as soon as any are there; ``b""`` at the end of the peer's stream.

        Raises:
            DeadlineExceeded, Cancelled: nothing came; nothing is lost.
            ConnectionLost: the first error, again at every call, after all data was taken.
            Truncated: a TLS stream ended without close_notify.
            UsageError: the connection is closed, or another thread is receiving.
        """
        with self._receiving:
            if n == 0 or len(self._inbox):
                return self._inbox.take(n)
            return self._pull(
                lambda limit: self._calls.receive(self._sock, n, limit, self._wake_fd), b"", deadline
            )

    def recv_into(self, buffer: Writable, *, deadline: float | None = None) -> int:
        """How many bytes were put at the start of ``buffer``; 0 at the end of the stream. Errors as recv."""
        with self._receiving:
            view = memoryview(buffer).cast("B")
            if not view or len(self._inbox):
                return self._inbox.take_into(view)
            return self._pull_into(view, deadline)

    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """Exactly ``n`` bytes.

        Raises:
            Truncated: the stream ended first; ``partial`` holds what came, empty at a clean end.
            DeadlineExceeded, Cancelled, ConnectionLost: as recv; ``partial`` shows what came, which stays
                here for the next call.
        """
        with self._receiving:
            if (frame := self._inbox.take_exactly(n)) is not None:
                return frame
            return self._frame(lambda: self._inbox.take_exactly(n), f"the {n} bytes asked for", deadline)

    def recv_until(self, delimiter: bytes, limit: int, *, deadline: float | None = None) -> bytes:
        """Everything up to and with ``delimiter``; what comes after it stays here.

        Args:
            delimiter: at least one byte.
            limit: the longest frame to accept, delimiter included, in bytes.
            deadline: see the class.

        Raises:
            LimitExceeded: the frame is longer; its bytes stay here.
            Truncated, DeadlineExceeded, Cancelled, ConnectionLost: as :meth:`recv_exactly`.
        """
        return self._frame(
            lambda: self._inbox.take_until(delimiter, limit), f"the delimiter {delimiter!r}", deadline
        )

    def peek(self, n: int) -> bytes:
        """Up to ``n`` bytes that have come already, left for the next call; never waits, never raises a loss.

        Unlike MSG_PEEK it consumes no pending error: one that it meets is raised by the next receive. It
        says nothing of whether the peer lives: a silent peer and a dead one look alike (use heartbeats).
        """
        with self._receiving:
            if not len(self._inbox):
                with suppress(DeadlineExceeded, Cancelled, ConnectionLost, Truncated):
                    self._fill(_PAST)
            return self._inbox.peek(n)

    def sendall(self, data: Readable, *, deadline: float | None = None) -> None:
        """Hand all of ``data`` to the kernel, which does not mean that the peer has it.

        Raises:
            DeadlineExceeded, Cancelled: ``sent_bytes`` of it were taken; send the rest later.
            ConnectionLost: the first error of the connection, with ``sent_bytes`` of this call.
            UsageError: the connection is closed, or another thread is sending.
        """
        with self._sending:
            if self.error is not None:
                raise self._latched(sent_bytes=0)
            view, sent = memoryview(data).cast("B"), 0
            while sent < len(view):
                try:
                    count = self._calls.send_from(self._sock, view[sent:], _limit(deadline), self._wake_fd)
                except OSError as error:
                    self._fail(error, sent_bytes=sent)
                if count < 0:
                    raise _ended_early(count, sent_bytes=sent)
                sent += count
                self._bytes_sent += count
                self._sends += 1

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more will come (FIN; over TLS close_notify); receiving goes on."""
        with self._sending:
            if self._shut or self.error is not None:
                return
            self._shut = True
            if isinstance(self._sock, ssl.SSLSocket):
                _say_farewell(self._sock)
            else:
                with suppress(OSError):  # a reset that nobody has seen yet: the next receive tells
                    self._sock.shutdown(socket.SHUT_WR)

    def cancel(self) -> None:
        """Make the calls that wait in other threads, and every later one that would wait, raise Cancelled."""
        with self._ending:
            if not self._receiving.closed:
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Close it. Calls that wait in other threads raise Cancelled first: no descriptor is reused."""
        self.cancel()
        with self._receiving.lock, self._sending.lock, self._ending:
            if self._receiving.closed:
                return
            self._receiving.closed = self._sending.closed = True
            if isinstance(self._sock, ssl.SSLSocket) and self.error is None and not self._shut:
                _say_farewell(self._sock)
            self._sock.close()
            os.close(self._wake_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frame(self, take: Callable[[], bytes | None], wanted: str, deadline: float | None) -> bytes:
        with self._receiving:
            while (frame := take()) is None:
                try:
                    if not self._fill(deadline):
                        raise Truncated(b"", wanted)
                except (DeadlineExceeded, Cancelled, ConnectionLost, Truncated) as error:
                    error.partial = self._inbox.peek(len(self._inbox))
                    raise
            return frame

    def _fill(self, deadline: float | None) -> int:
        space = self._inbox.space()
        count = self._pull_into(space, deadline)
        self._inbox.add(count)
        return count

    def _pull_into(self, view: memoryview, deadline: float | None) -> int:
        return self._pull(
            lambda limit: self._calls.receive_into(self._sock, view, limit, self._wake_fd), 0, deadline
        )

    def _pull(self, move: Callable[[float], _T | int], nothing: _T, deadline: float | None) -> _T:
        """What one system call brings, ``nothing`` at the end of the stream."""
        if self._drained:
            raise self._latched()
        if self._ended:
            return nothing
        try:
            # What came before an error that a send has met is still to be had.
            moved = move(_PAST if self.error is not None else _limit(deadline))
        except Truncated as error:
            self.error, self._drained = self.error or error, True
            raise self._latched() from None
        except OSError as error:
            self._drained = True
            self._fail(error)
        early = isinstance(moved, int) and moved < 0
        if self.error is not None and (early or moved == nothing):
            # Linux tells an error once; what follows looks like an end of stream, and is none.
            self._drained = True
            raise self._latched()
        if early:
            raise _ended_early(moved)
        self._ended = moved == nothing
        self._bytes_received += moved if isinstance(moved, int) else len(moved)
        self._receives += 1
        return cast(_T, moved)  # never the int that stands for an early end

    def _fail(self, error: OSError, *, sent_bytes: int = 0) -> NoReturn:
        if self._receiving.closed:  # by a signal handler in the middle of the call
            raise Cancelled(sent_bytes=sent_bytes) from None
        if self.error is not None:
            raise self._latched(sent_bytes) from error
        phase = Phase.CLOSED_HERE if self._shut else Phase.PEER_CLOSED if self._ended else Phase.OPEN
        found = lost(
            self._sock,
            error,
            phase,
            local=self.local,
            peer=self.peer,
            source=self._causes,
            sent_bytes=sent_bytes,
        )
        if found is None:
            self._drained = False  # a mistake of the caller (EFAULT), not the end of the connection
            raise error
        # Writing after shutdown_write() is a mistake too: the peer's half of the connection lives on.
        if not (self._shut and isinstance(found, ConnectionClosed)):
            self.error = found
        raise found from error

    def _latched(self, sent_bytes: int = 0) -> ConnectionLost | Truncated:
        assert self.error is not None
        return again(self.error, sent_bytes)


class Turn:
    """One thread at a time in one direction; the same thread again from a signal handler.

    Attributes:
        lock: to wait for one's turn, where that is wanted.
        closed: nobody gets a turn any more.
    """

    def __init__(self, doing: str) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self._doing = doing

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            raise UsageError(f"another thread is {self._doing} on this connection; let one thread do it")
        if self.closed:
            self.lock.release()
            raise UsageError("the connection is closed; connect again")

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _was_connected(sock: socket.socket) -> bool:
    """Whether a socket without a peer had one: a RST may come before accept() returns."""
    info = read_figures(sock).info
    return info is not None and info.state == states.NUMBERS["CLOSED"] and bool(info.segs_in)


def _limit(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline


def _ended_early(end: object, sent_bytes: int = 0) -> DeadlineExceeded | Cancelled:
    return Cancelled(sent_bytes=sent_bytes) if end == WOKEN else DeadlineExceeded(sent_bytes=sent_bytes)


def _say_farewell(sock: ssl.SSLSocket) -> None:
    # unwrap() sends close_notify first and then waits for the peer's, which nobody needs.
    with suppress(OSError, ValueError):
        sock.unwrap()

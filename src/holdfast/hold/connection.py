"""A connection that remembers: its first error, its peer, and every byte that was not taken."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNRESET, EPIPE
from types import TracebackType
from typing import NoReturn, Self, TypeVar, cast

from holdfast.errors import (
    Cancelled,
    DeadlineExceeded,
    Gathered,
    Truncated,
    UsageError,
)
from holdfast.hold import calls
from holdfast.hold.asked import asked_deadline, named_delimiter
from holdfast.hold.calls import WOKEN, Calls, Readable, Writable
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.classify import Phase
from holdfast.hold.counters import Counters
from holdfast.hold.ends import ends
from holdfast.hold.first_error import Ended, FirstError
from holdfast.hold.forks import freed, mended_in_child
from holdfast.hold.inbox import Inbox
from holdfast.hold.inbox_portable import CAPACITY_BYTES
from holdfast.hold.loss import is_half_closed, is_over, unread_bytes
from holdfast.hold.receive import PIECE_BYTES
from holdfast.hold.sole import Sole
from holdfast.hold.tls import TlsCalls, at_once
from holdfast.hold.turn import Turn
from holdfast.hold.wake import Wake

_T = TypeVar("_T", bound=int | bytes)

_PAST = -math.inf  # a deadline that lets a call take what is there and never wait

ALONE_BYTES = CAPACITY_BYTES // 2
"""A longer message has the inbox to itself: one read brings no second one. If it is all there, it need not
pass through, which would copy it once more. (Over TLS it is never all there: a record is shorter.)"""

VERDICT_S = 0.2
"""The longest that a call waits for one in another thread to tell the error that it has met: it is on its way
out, so this is never reached unless somebody else, such as a look at SO_ERROR, took the error away."""


class Connection(Sole):
    """A connected stream socket (TCP, TLS, Unix) with a memory.

    One thread may receive while another sends; ``cancel()`` and ``close()`` may come from any, and from a
    signal handler. Every ``deadline`` is absolute ``time.monotonic()`` seconds; None waits without limit,
    whatever timeout the socket has.

    Args:
        sock: connected; it belongs to the connection from now on.
        causes: whom an error's ``explain()`` asks, None for nobody.

    Raises:
        UsageError: the socket carries datagrams, or is not connected.

    Attributes:
        local, peer: ``addr:port``, ``[v6]:port`` or a path; still known after a reset, unlike getpeername().
    """

    def __init__(self, sock: socket.socket, *, causes: CauseSource | None = None) -> None:
        self._sock = sock
        self.local, self.peer = ends(sock)
        self._first = FirstError(sock, self.local, self.peer, causes)
        self._calls: Calls = calls
        self._tls: TlsCalls | None = None
        if isinstance(sock, ssl.SSLSocket):
            at_once(sock)
            self._calls = self._tls = TlsCalls()
        self._inbox = Inbox()
        self._ended = False  # the peer's end of stream was read
        self._drained = False  # after an error: the kernel has no more data
        self._shut = is_half_closed(sock)
        self._inherited = False  # from the process that forked this one
        self._wake = Wake()
        self._receiving, self._sending = Turn("receiving"), Turn("sending")
        self._ending = threading.RLock()  # no cancel() after the descriptor is somebody else's
        self._bytes_received = self._bytes_sent = self._receives = self._sends = 0
        mended_in_child(self, Connection._become_the_childs)

    @property
    def error(self) -> Ended | None:
        """The first error that ended it, None while it lives."""
        return self._first.error

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
            ConnectionLost: the first error, again at every call, after all data was taken; not if the end of
                the peer's stream came before it.
            Truncated: a TLS stream ended without close_notify.
            TlsError: what came is no TLS.
            UsageError: the connection is closed, another thread is receiving, or a number makes no sense.
        """
        return self._receiving.run(self._recv, n, asked_deadline(deadline))

    def _recv(self, n: int, limit_s: float) -> bytes:
        if n <= 0 or len(self._inbox):
            return self._inbox.take(n)
        return self._pull(lambda at_s: self._receive(n, at_s), b"", limit_s)

    def recv_into(self, buffer: Writable, *, deadline: float | None = None) -> int:
        """How many bytes were put at the start of ``buffer``; 0 at the end of the stream. Errors as recv."""
        return self._receiving.run(self._recv_into, buffer, asked_deadline(deadline))

    def _recv_into(self, buffer: Writable, limit_s: float) -> int:
        # Views are released, here and in sendall(): the traceback of an error keeps them, and with them
        # the caller's buffer could not be resized.
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if not view or len(self._inbox):
                return self._inbox.take_into(view)
            return self._pull_into(view, limit_s)

    def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """Exactly ``n`` bytes.

        Raises:
            Truncated: the stream ended first; ``partial`` holds what came, empty at a clean end.
            DeadlineExceeded, Cancelled, ConnectionLost: as recv; ``partial`` shows what came, which stays
                here for the next call.
        """
        return self._receiving.run(self._recv_exactly, n, asked_deadline(deadline))

    def _recv_exactly(self, n: int, limit_s: float) -> bytes:
        if (frame := self._inbox.take_exactly(n)) is not None:
            return frame
        if ALONE_BYTES < n <= CAPACITY_BYTES and self._tls is None and not len(self._inbox):
            frame = self._pull(lambda at_s: self._receive(n, at_s), b"", limit_s)
            if len(frame) == n:
                return frame
            self._inbox.space()[: len(frame)] = frame
            self._inbox.add(len(frame))
        return self._frame(lambda: self._inbox.take_exactly(n), lambda: f"the {n} bytes asked for", limit_s)

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
        return self._receiving.run(self._recv_until, (delimiter, limit), asked_deadline(deadline))

    def _recv_until(self, asked: tuple[bytes, int], limit_s: float) -> bytes:
        return self._frame(lambda: self._inbox.take_until(*asked), lambda: named_delimiter(asked[0]), limit_s)

    def peek(self, n: int) -> bytes:
        """Up to ``n`` bytes that have come already, left for the next call; never waits, never raises a loss.

        Unlike MSG_PEEK it consumes no pending error: one that it meets is raised by the next receive. It
        says nothing of whether the peer lives: a silent peer and a dead one look alike (use heartbeats).
        """
        return self._receiving.run(self._peek, n, _PAST)

    def _peek(self, n: int, limit_s: float) -> bytes:
        if not len(self._inbox):
            with suppress(Gathered):
                self._fill(limit_s)
        return self._inbox.peek(n)

    def sendall(self, data: Readable, *, deadline: float | None = None) -> None:
        """Hand all of ``data`` to the kernel, which does not mean that the peer has it.

        Raises:
            DeadlineExceeded, Cancelled: ``sent_bytes`` of it were taken; go on with the rest. Over TLS
                nothing else may follow: a part of a record may be on its way.
            ConnectionLost: the first error of the connection, with ``sent_bytes`` of this call.
            TlsError: as recv.
            UsageError: the connection is closed, another thread is sending, the deadline is no number, or
                other bytes than the rest were given after a TLS send that ended early.
        """
        self._sending.run(self._sendall, data, asked_deadline(deadline))

    def _sendall(self, data: Readable, limit_s: float) -> None:
        sent = 0
        with memoryview(data) as whole, whole.cast("B") as view:
            if self.error is not None:
                raise self._latched()
            while sent < len(view):
                with view[sent : sent + PIECE_BYTES] as piece:
                    count = self._push(piece, limit_s, sent)
                sent += count
                self._bytes_sent += count
                self._sends += 1
                if sent < len(view) and time.monotonic() >= limit_s:
                    raise DeadlineExceeded(sent_bytes=sent)

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more will come (FIN); receiving goes on.

        Raises:
            UsageError: over TLS, where it would destroy what the peer is sending; the connection lives on.
        """
        self._sending.run(self._shutdown, socket.SHUT_WR, _PAST)

    def _shutdown(self, how: int, limit_s: float) -> None:
        if self._tls is not None:
            # After close_notify, Python's only call for it, unwrap(), reads on and throws away what came.
            raise UsageError("one direction of a TLS connection cannot be closed by Python; use close()")
        if self._shut or self.error is not None:
            return
        self._shut = True
        with suppress(OSError):  # a reset that nobody has seen yet: the next receive tells
            self._sock.shutdown(how)

    def cancel(self) -> None:
        """Make the calls that wait in other threads, and every later one that would wait, raise Cancelled."""
        with self._ending:
            if not self._receiving.closed:
                self._wake.ring()

    def close(self) -> None:
        """Close it. Calls that wait in other threads raise Cancelled first: no descriptor is reused."""
        self.cancel()
        with self._receiving.lock, self._sending.lock, self._ending:
            if self._receiving.closed:
                return
            self._receiving.closed = self._sending.closed = True
            # Of two processes with one TLS connection, the first farewell would end it for both.
            if self._tls is not None and self.error is None and not self._inherited:
                self._tls.farewell(cast(ssl.SSLSocket, self._sock))
            self._sock.close()
            self._wake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _become_the_childs(self) -> None:
        """See :mod:`holdfast.hold.forks`: the child's waits and locks become its own."""
        self._inherited = True
        self._ending = freed(self._ending)
        for each in (self._first, self._receiving, self._sending, self._wake):
            each.after_fork()

    def _frame(self, take: Callable[[], bytes | None], wanted: Callable[[], str], limit: float) -> bytes:
        left = math.inf  # how much may still be read: without end until time is up, then what is there
        try:
            while (frame := take()) is None:
                if left <= 0:
                    raise DeadlineExceeded()
                count = self._fill(limit)
                if not count:
                    raise Truncated(b"", wanted())
                if left < math.inf:
                    left -= count
                elif time.monotonic() >= limit:
                    left = self._at_hand()
        except Gathered as error:
            inbox = self._inbox
            error.gathered(lambda: inbox.peek(len(inbox)))
            raise
        return frame

    def _at_hand(self) -> int:
        """The most that receiving can bring without waiting."""
        held = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return held + unread_bytes(self._sock)

    def _receive(self, n: int, limit_s: float) -> bytes | int:
        return self._calls.receive(self._sock, n, limit_s, self._wake.fd)

    def _fill(self, limit: float) -> int:
        count = self._pull_into(self._inbox.space(), limit)
        self._inbox.add(count)
        return count

    def _pull_into(self, view: memoryview, limit: float) -> int:
        return self._pull(
            lambda at_s: self._calls.receive_into(self._sock, view, at_s, self._wake.fd), 0, limit
        )

    def _pull(self, move: Callable[[float], _T | int], nothing: _T, limit: float) -> _T:
        """What one system call brings, ``nothing`` at the end of the stream."""
        if self._drained:
            raise self._latched()
        if self._ended:
            return nothing
        try:
            # What came before an error that a send has met is still to be had.
            moved = move(limit if self.error is None else _PAST)
        except (Truncated, OSError) as error:
            self._drained = True
            self._fail(error)
        early = isinstance(moved, int) and moved < 0
        if moved == nothing and self.error is None:
            self._check_end()
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

    def _push(self, piece: memoryview, limit: float, sent_bytes: int) -> int:
        """How much of it one system call took."""
        try:
            count = self._calls.send_from(self._sock, piece, limit, self._wake.fd)
        except (Truncated, OSError) as error:
            self._fail(error, sent_bytes)
        if count < 0:
            raise _ended_early(count, sent_bytes)
        return count

    def _check_end(self) -> None:
        """Latch the error behind what looks like the end of the stream, if there is one.

        Linux tells an error to one call: it may have been a send of another thread.
        """
        if self._tls is not None or self._shut or not is_over(self._sock):
            return
        self._await_verdict()
        if self.error is None and self._sock.family != socket.AF_UNIX:
            # Whoever took it, a FIN of the peer does not end both directions.
            self._first.latch(ConnectionResetError(ECONNRESET, os.strerror(ECONNRESET)), self._phase())

    def _await_verdict(self) -> None:
        """Let a call of another thread speak first: it may have met the error of which we see the rest."""
        for turn in (self._receiving, self._sending):
            turn.wait_for_end(VERDICT_S)

    def _fail(self, error: OSError | Truncated, sent_bytes: int = 0) -> NoReturn:
        """Raise the first error of the connection, which is this one if there was none."""
        if self._receiving.closed:  # by a signal handler in the middle of the call
            raise Cancelled(sent_bytes=sent_bytes) from None
        self._shut = self._shut or is_half_closed(self._sock)  # by the owner, through the socket itself
        hearsay = isinstance(error, Truncated) or (error.errno == EPIPE and not self._shut)
        if hearsay and is_over(self._sock):
            self._await_verdict()
        if not self._first.latch(error, self._phase(), sent_bytes):
            self._drained = False  # a mistake of the caller (EFAULT), not the end of the connection
            raise error
        # Ours would only repeat the sentence; OpenSSL's error, which it was made of, has another.
        raise self._latched(sent_bytes) from (error.__cause__ if isinstance(error, Gathered) else error)

    def _phase(self) -> Phase:
        return Phase.CLOSED_HERE if self._shut else Phase.PEER_CLOSED if self._ended else Phase.OPEN

    def _latched(self, sent_bytes: int = 0) -> Ended:
        assert self.error is not None
        return self.error.again(sent_bytes)


def _ended_early(end: object, sent_bytes: int = 0) -> DeadlineExceeded | Cancelled:
    return Cancelled(sent_bytes=sent_bytes) if end == WOKEN else DeadlineExceeded(sent_bytes=sent_bytes)

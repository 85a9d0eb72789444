"""TLS sockets: what OpenSSL holds comes before any wait, and a stream cut without farewell is an error.

The calls are those of :mod:`holdfast.hold.calls`, with the same answers.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EAGAIN, ECONNRESET
from typing import Any, Self, TypeVar
from weakref import WeakKeyDictionary

from holdfast.errors import Gathered, Truncated, UsageError
from holdfast.hold.asked import asked_deadline, asked_size
from holdfast.hold.calls import DEADLINE, Readable, Writable
from holdfast.hold.forks import freed, mended_in_child
from holdfast.hold.loss import read_figures
from holdfast.hold.portable import READABLE, WRITABLE, Limit
from holdfast.linux import states

_T = TypeVar("_T")

RECORD_BYTES = 1 << 14
"""The most that one TLS record holds (RFC 8446 5.1)."""

_RAGGED = "suppress_ragged_eofs"  # an attribute that typeshed does not know


class TlsError(Gathered, ssl.SSLError):
    """What came is no TLS, breaks its rules or is the peer's alert: the connection cannot go on.

    Attributes:
        reason: OpenSSL's name for it, such as ``WRONG_VERSION_NUMBER``.
        library: the part of OpenSSL that says so.
        partial: received bytes that the failed call had gathered; a Connection still delivers them.
    """

    def __init__(
        self, number: int | None, text: str, reason: str | None = None, library: str | None = None
    ) -> None:
        super().__init__(number, text)
        self.reason, self.library = reason or "", library or ""

    @classmethod
    def of(cls, error: ssl.SSLError) -> Self:
        """What OpenSSL says, as our error."""
        return cls(error.errno, str(error.strerror or error), error.reason, error.library)

    def __str__(self) -> str:
        if "_ALERT_" in self.reason:  # RFC 8446 6: the other end has found something wrong, and says so
            return (
                f"The peer refused to go on, by a TLS alert: {self.reason}. Look into its log, and "
                "compare what it demands of versions and certificates with what this end offers."
            )
        return (
            f"The connection broke the rules of TLS: {self.reason or self.strerror}. Close it, and check "
            "that both ends speak TLS on this port, with a version that they share."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._facts, {"partial": self.partial}

    def again(self, sent_bytes: int = 0) -> Self:
        """The same, to be raised by a later call, which sent nothing."""
        return type(self)(*self._facts)

    @property
    def _facts(self) -> tuple[Any, ...]:
        return self.errno, str(self.strerror), self.reason, self.library


class TlsCalls:
    """The calls on one TLS socket, from any thread.

    The socket must be in non-blocking mode and tell a cut stream from its end: :func:`at_once` sees to both.
    OpenSSL allows one call at a time on a connection, so each is made under a lock, which is never held
    while waiting.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may receive between two steps of the send that it interrupts.
        self._lock = threading.RLock()
        # Rule: a record that OpenSSL has begun to send goes out whole, so its bytes must be offered again.
        self._begun = b""
        self._half_sent = False
        mended_in_child(self, TlsCalls.after_fork)

    def receive(
        self, sock: socket.socket, size: int, deadline: float | None, wake_fd: int | None, /
    ) -> bytes | int:
        """Up to ``size`` bytes; -1 when the deadline has passed, -2 when woken."""
        if asked_size(size) == 0:  # OpenSSL would wait for a record all the same
            return b""
        return self._move(lambda: sock.recv(size), sock, READABLE, deadline, wake_fd)

    def receive_into(
        self, sock: socket.socket, buffer: Writable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes came; -1 when the deadline has passed, -2 when woken."""
        with memoryview(buffer) as whole, whole.cast("B") as room:
            if not room:  # ssl would take it for "1,024 bytes"
                return 0
            return self._move(lambda: sock.recv_into(room), sock, READABLE, deadline, wake_fd)

    def send_from(
        self, sock: socket.socket, buffer: Readable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes OpenSSL took; -1 when the deadline has passed, -2 when woken.

        After -1 or -2 the same bytes must come next: a part of their record may be on its way.

        Raises:
            UsageError: other bytes came. Nothing of them was sent.
        """
        with memoryview(buffer) as whole, whole[:RECORD_BYTES] as record:
            if self._begun:
                return self._finish(record, sock, deadline, wake_fd)
            # One record a call: of a longer write OpenSSL does not tell how much went out before it would
            # block.
            return self._send(record, sock, deadline, wake_fd)

    def _send(
        self, record: memoryview | bytes, sock: socket.socket, deadline: float | None, wake_fd: int | None
    ) -> int:
        sent = DEADLINE
        try:
            sent = self._move(lambda: sock.send(record), sock, WRITABLE, deadline, wake_fd)
        finally:  # also when a signal handler raises
            if sent < 0:
                self._begun, self._half_sent = bytes(record), True
        return sent

    def _finish(
        self, record: memoryview, sock: socket.socket, deadline: float | None, wake_fd: int | None
    ) -> int:
        """Send the rest of a record, and count what of it the caller has offered again."""
        same = min(len(record), len(self._begun))
        if record[:same] != self._begun[:same]:
            raise UsageError(
                "a TLS record of the send that ended early is half on its way and cannot be taken back: "
                "go on with data[error.sent_bytes:], or close the connection"
            )
        if self._half_sent:
            sent = self._send(self._begun, sock, deadline, wake_fd)
            if sent < 0:
                return sent
            self._begun, self._half_sent = self._begun[:sent], False
            same = min(same, sent)
        self._begun = self._begun[same:]
        return same

    def farewell(self, sock: ssl.SSLSocket) -> None:
        """Send close_notify without waiting; what comes in from now on is lost.

        Not after half a record: the peer could make nothing of what follows.
        """
        if not self._half_sent:
            # unwrap() sends it first and then looks for the peer's, which nobody needs.
            with self._lock, suppress(OSError, ValueError):
                sock.unwrap()

    def after_fork(self) -> None:
        """See :mod:`holdfast.hold.forks`."""
        self._lock = freed(self._lock)

    def _move(
        self,
        attempt: Callable[[], _T],
        sock: socket.socket,
        plain: int,
        deadline: float | None,
        wake_fd: int | None,
    ) -> _T | int:
        limit = Limit(sock, deadline)
        while True:
            try:
                with self._lock:
                    return attempt()
            except ssl.SSLWantReadError:
                events = READABLE
            except ssl.SSLWantWriteError:  # also while reading: a key update must go out first
                events = WRITABLE
            except BlockingIOError:  # unwrap() has taken TLS off: the socket's own call found nothing to do
                events = plain
            except ssl.SSLEOFError as error:
                raise _reset_or_cut(sock, error) from error
            except ssl.SSLError as error:
                raise TlsError.of(error) from error
            # The attempt came before: bytes that OpenSSL has decrypted make no socket readable.
            if end := limit.wait(events, wake_fd):
                return end


def _reset_or_cut(sock: socket.socket, error: ssl.SSLEOFError) -> OSError | Truncated:
    """What CPython means by "EOF": a FIN, or a socket error whose errno it has lost.

    It loses errno before 3.11.9 and 3.12.3 (python/cpython#115627). The state tells: after a FIN the
    connection is in CLOSE_WAIT, after an error in CLOSED. Which error it was is gone; a RST is likeliest.
    """
    lost_errno = "UNEXPECTED_EOF" not in str(error)
    info = read_figures(sock).info
    if lost_errno and info is not None and info.state == states.NUMBERS["CLOSED"]:
        return ConnectionResetError(ECONNRESET, os.strerror(ECONNRESET))
    return Truncated(b"", "its TLS close_notify")


def at_once(sock: ssl.SSLSocket) -> None:
    """From now on the socket's calls do not wait, and do not take a cut stream for its end."""
    sock.settimeout(0.0)  # OpenSSL has no MSG_DONTWAIT
    setattr(sock, _RAGGED, False)


class _Visit:
    """What the calls that are inside one socket at this moment share.

    Attributes:
        calls: theirs.
        inside: how many they are.
        timeout_s, ragged: how the socket was before the first of them.
    """

    def __init__(self) -> None:
        self.calls = TlsCalls()
        self.inside = 0
        self.timeout_s: float | None = None
        self.ragged = True


class TlsVisits:
    """The calls on any TLS socket, whose mode is changed for as long as one is inside, and then put back."""

    def __init__(self) -> None:
        self._door = threading.RLock()
        self._visits: WeakKeyDictionary[socket.socket, _Visit] = WeakKeyDictionary()
        mended_in_child(self, TlsVisits.after_fork)

    def receive(
        self, sock: ssl.SSLSocket, size: int, deadline: float | None, wake_fd: int | None, /
    ) -> bytes | int:
        """See :class:`TlsCalls`."""
        return self._visit(sock, deadline, lambda calls, at_s: calls.receive(sock, size, at_s, wake_fd))

    def receive_into(
        self, sock: ssl.SSLSocket, buffer: Writable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """See :class:`TlsCalls`."""
        return self._visit(
            sock, deadline, lambda calls, at_s: calls.receive_into(sock, buffer, at_s, wake_fd)
        )

    def send_from(
        self, sock: ssl.SSLSocket, buffer: Readable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """See :class:`TlsCalls`."""
        return self._visit(sock, deadline, lambda calls, at_s: calls.send_from(sock, buffer, at_s, wake_fd))

    def after_fork(self) -> None:
        """See :mod:`holdfast.hold.forks`."""
        self._door = freed(self._door)

    def _visit(
        self, sock: ssl.SSLSocket, deadline: float | None, call: Callable[[TlsCalls, float], _T | int]
    ) -> _T | int:
        with self._entered(sock) as visit:
            if deadline is not None or visit.timeout_s is None:
                return call(visit.calls, asked_deadline(deadline))
            if visit.timeout_s:
                return call(visit.calls, time.monotonic() + visit.timeout_s)
            end = call(visit.calls, -math.inf)
            if end == DEADLINE:
                raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
            return end

    @contextmanager
    def _entered(self, sock: ssl.SSLSocket) -> Iterator[_Visit]:
        with self._door:
            visit = self._visits.setdefault(sock, _Visit())
            if not visit.inside:
                visit.timeout_s, visit.ragged = sock.gettimeout(), getattr(sock, _RAGGED)
                at_once(sock)
            visit.inside += 1
        try:
            yield visit
        finally:
            with self._door:
                visit.inside -= 1
                if not visit.inside and sock.fileno() >= 0:
                    sock.settimeout(visit.timeout_s)
                    setattr(sock, _RAGGED, visit.ragged)

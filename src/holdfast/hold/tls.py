"""TLS sockets: what OpenSSL holds comes before any wait, and a stream cut without farewell is an error.

The calls are those of :mod:`holdfast.hold.calls`, with the same answers.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from errno import ECONNRESET
from typing import TypeVar

from holdfast.errors import Truncated
from holdfast.hold.calls import Readable, Writable
from holdfast.hold.loss import read_figures
from holdfast.hold.portable import READABLE, WRITABLE, Limit
from holdfast.linux import states

_T = TypeVar("_T")

RECORD_BYTES = 1 << 14
"""The most that one TLS record holds (RFC 8446 5.1)."""

_RAGGED = "suppress_ragged_eofs"  # an attribute that typeshed does not know


class TlsCalls:
    """The calls on TLS sockets.

    Args:
        lock: held during each call into OpenSSL, which allows one at a time on a connection, and never
            while waiting; None if no two threads use the socket.
    """

    def __init__(self, lock: AbstractContextManager[object] | None = None) -> None:
        self._lock = lock or nullcontext()

    def receive(
        self, sock: socket.socket, size: int, deadline: float | None, wake_fd: int | None, /
    ) -> bytes | int:
        """Up to ``size`` bytes; -1 when the deadline has passed, -2 when woken."""
        if size == 0:  # OpenSSL would wait for a record all the same
            return b""
        return self._move(lambda: sock.recv(size), sock, deadline, wake_fd)

    def receive_into(
        self, sock: socket.socket, buffer: Writable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes came; -1 when the deadline has passed, -2 when woken."""
        if not memoryview(buffer).nbytes:  # ssl would take it for "1,024 bytes"
            return 0
        return self._move(lambda: sock.recv_into(buffer), sock, deadline, wake_fd)

    def send_from(
        self, sock: socket.socket, buffer: Readable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes OpenSSL took; -1 when the deadline has passed, -2 when woken.

        After -1 or -2 the same bytes must come again: OpenSSL may have half a record of them on its way.
        """
        # One record a call: of a longer write OpenSSL does not tell how much went out before it would block.
        record = memoryview(buffer)[:RECORD_BYTES]
        return self._move(lambda: sock.send(record), sock, deadline, wake_fd)

    def _move(
        self, attempt: Callable[[], _T], sock: socket.socket, deadline: float | None, wake_fd: int | None
    ) -> _T | int:
        limit = Limit(sock, deadline)
        with _at_once(sock):
            while True:
                try:
                    with self._lock:
                        return attempt()
                except ssl.SSLWantReadError:
                    events = READABLE
                except ssl.SSLWantWriteError:  # also while reading: a key update must go out first
                    events = WRITABLE
                except ssl.SSLEOFError as error:
                    raise _reset_or_cut(sock, error) from error
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


@contextmanager
def _at_once(sock: socket.socket) -> Iterator[None]:
    """Inside, the socket's calls do not wait, and do not take a cut stream for its end.

    OpenSSL has no MSG_DONTWAIT, so the socket's mode is changed and put back. A Connection sets it once.
    """
    timeout, ragged = sock.gettimeout(), getattr(sock, _RAGGED)
    if timeout != 0.0:
        sock.settimeout(0.0)
    setattr(sock, _RAGGED, False)
    try:
        yield
    finally:
        if timeout != 0.0 and sock.fileno() >= 0:
            sock.settimeout(timeout)
        setattr(sock, _RAGGED, ragged)

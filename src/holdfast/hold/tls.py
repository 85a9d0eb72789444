"""TLS sockets: what OpenSSL holds comes before any wait, and a stream cut without farewell is an error.

The calls are those of :mod:`holdfast.hold.calls`, with the same answers.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from holdfast.errors import Truncated
from holdfast.hold.calls import Readable, Writable
from holdfast.hold.portable import READABLE, WRITABLE, Limit

_T = TypeVar("_T")

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
        return self._move(lambda: sock.send(buffer), sock, deadline, wake_fd)

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
                    raise Truncated(b"", "its TLS close_notify") from error
                # The attempt came before: bytes that OpenSSL has decrypted make no socket readable.
                if end := limit.wait(events, wake_fd):
                    return end


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

"""``recv``, ``recv_into`` and ``sendall`` on an ordinary socket: one deadline, typed errors, nothing lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time
from ssl import SSLSocket
from typing import NoReturn

from holdfast.errors import DeadlineExceeded
from holdfast.hold import calls
from holdfast.hold.asked import asked_deadline, asked_size
from holdfast.hold.calls import Readable, Writable
from holdfast.hold.front import front
from holdfast.hold.loss import lost
from holdfast.hold.tls import TlsVisits

_TLS = TlsVisits()

PIECE_BYTES = 1 << 20
"""How much of a send goes to the kernel before the clock is looked at again."""


def _ended(sock: socket.socket, error: OSError | None, sent_bytes: int = 0) -> NoReturn:
    """Raise what it means that a call ended with this error; None is that time was up."""
    if error is None:
        raise DeadlineExceeded(sent_bytes=sent_bytes)
    found = lost(sock, error, sent_bytes=sent_bytes)
    if found is None:
        raise error
    raise found from error


@front("receive", _ended)
def recv(sock: socket.socket, n: int, *, deadline: float | None = None) -> bytes:
    """Up to ``n`` bytes as soon as any are there; ``b""`` at the end of the peer's stream, or if ``n`` is 0.

    It tries first and waits only if nothing is there. Signals are served and cost no time of the deadline
    that they did not use. It does not remember: after an error Linux shows the next caller an end of stream
    (``b""``); a :class:`Connection` remembers.

    Args:
        sock: a TCP, TLS or Unix stream socket, blocking or not; its mode is left alone.
        n: the most to return.
        deadline: absolute ``time.monotonic()`` seconds; None leaves it to the socket's own timeout. A
            deadline in the past still takes what is there.

    Raises:
        DeadlineExceeded: nothing came in time; the connection lives.
        BlockingIOError: nothing is there, the socket is non-blocking and no deadline was given.
        ConnectionLost: the kernel ended the connection. Data that came before a RST is returned first.
        Truncated: a TLS stream ended without the peer's close_notify.
        TlsError: what came is no TLS.
        UsageError: ``n`` is negative, or the deadline not a number.
        OSError: the call itself was wrong (EBADF for a socket that another thread closed, noticed within
            half a second).
    """
    asked_size(n)
    asked_deadline(deadline)
    try:
        if isinstance(sock, SSLSocket):
            data = _TLS.receive(sock, n, deadline, None)
        else:
            data = calls.receive(sock, n, deadline, None)
    except OSError as error:
        _ended(sock, error)
    if isinstance(data, int):
        _ended(sock, None)
    return data


@front("receive_into", _ended)
def recv_into(sock: socket.socket, buffer: Writable, *, deadline: float | None = None) -> int:
    """How many bytes were put at the start of ``buffer``; 0 at the end of the stream, or if it is empty.

    Args and errors as for :func:`recv`.
    """
    asked_deadline(deadline)
    try:
        if isinstance(sock, SSLSocket):
            count = _TLS.receive_into(sock, buffer, deadline, None)
        else:
            count = calls.receive_into(sock, buffer, deadline, None)
    except OSError as error:
        _ended(sock, error)
    if count < 0:
        _ended(sock, None)
    return count


def sendall(sock: socket.socket, data: Readable, *, deadline: float | None = None) -> None:
    """Hand all of ``data`` to the kernel; never raises SIGPIPE.

    Success means that the kernel took it, not that the peer has it.

    The clock is looked at after each MiB, so a deadline in the past still sends that much if it goes without
    waiting. Over TLS the next send must go on where one that ended early stopped: a part of a record may be
    on its way, so other bytes are refused with UsageError.

    Args and errors as for :func:`recv`; the errors carry ``sent_bytes``, so that the rest can be sent later
    (BlockingIOError calls it ``characters_written``).
    """
    if deadline is None and (timeout := sock.gettimeout()):
        deadline = time.monotonic() + timeout  # for all of it, as the standard library's sendall has it
    limit, sent = asked_deadline(deadline), 0
    # Released on return: a caller may resize its bytearray even while it handles the error.
    with memoryview(data) as whole, whole.cast("B") as view:
        while sent < len(view):
            with view[sent : sent + PIECE_BYTES] as piece:
                sent += _send_some(sock, piece, deadline, sent)
            if sent < len(view) and time.monotonic() >= limit:
                _ended(sock, None, sent)


def _send_some(sock: socket.socket, piece: memoryview, deadline: float | None, sent: int) -> int:
    try:
        if isinstance(sock, SSLSocket):
            count = _TLS.send_from(sock, piece, deadline, None)
        else:
            count = calls.send_from(sock, piece, deadline, None)
    except BlockingIOError as error:
        error.characters_written = sent
        raise
    except OSError as error:
        _ended(sock, error, sent)
    if count < 0:
        _ended(sock, None, sent)
    return count

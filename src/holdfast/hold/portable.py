"""The calls of ``holdfast._native`` in plain Python, where there was no compiler: same answers, slower."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EAGAIN, EBADF
from os import strerror
from typing import TypeVar

from holdfast.hold.asked import asked_deadline, asked_size

_T = TypeVar("_T")

DEADLINE, WOKEN = -1, -2
"""What a call returns instead of a count: time is up; another thread woke it."""

_SLICE_S = 0.5
"""How soon a socket that another thread has closed is noticed: its old file goes on being polled."""

_NAP_S = 0.001

READABLE, WRITABLE = select.POLLIN | select.POLLRDHUP, select.POLLOUT


def receive(sock: socket.socket, size: int, deadline: float | None, wake_fd: int | None, /) -> bytes | int:
    """Up to ``size`` bytes; -1 when the deadline has passed, -2 when woken."""
    if not asked_size(size):  # a Unix socket would wait all the same
        _open_fd(sock)
        return b""
    with _twin(sock) as one:
        return _move(lambda: one.recv(size, socket.MSG_DONTWAIT), sock, READABLE, deadline, wake_fd)


def receive_into(
    sock: socket.socket, buffer: bytearray | memoryview, deadline: float | None, wake_fd: int | None, /
) -> int:
    """How many bytes came; -1 when the deadline has passed, -2 when woken."""
    size = memoryview(buffer).nbytes
    if not size:
        _open_fd(sock)
        return 0
    with _twin(sock) as one:
        return _move(
            lambda: one.recv_into(buffer, size, socket.MSG_DONTWAIT), sock, READABLE, deadline, wake_fd
        )


def send_from(
    sock: socket.socket,
    buffer: bytes | bytearray | memoryview,
    deadline: float | None,
    wake_fd: int | None,
    /,
) -> int:
    """How many bytes the kernel took; -1 when the deadline has passed, -2 when woken."""
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    with _twin(sock) as one:
        return _move(lambda: one.send(buffer, flags), sock, WRITABLE, deadline, wake_fd)


@contextmanager
def _twin(sock: socket.socket) -> Iterator[socket.socket]:
    """A socket object on the same file that never waits.

    Python polls for a socket's own timeout before each call, whatever the flags say; such a socket's file
    is in non-blocking mode already, so the twin changes nothing of it.
    """
    if not sock.gettimeout():
        yield sock
        return
    twin = socket.socket(fileno=_open_fd(sock))
    try:
        twin.settimeout(0.0)
        yield twin
    finally:
        twin.detach()


def _move(
    attempt: Callable[[], _T], sock: socket.socket, events: int, deadline: float | None, wake_fd: int | None
) -> _T | int:
    asked_deadline(deadline)  # refused even if nothing is waited for, as the compiled calls do
    limit: Limit | None = None
    while True:
        try:
            return attempt()
        except BlockingIOError:
            pass
        limit = limit or Limit(sock, deadline)
        end = limit.wait(events, wake_fd)
        if end:
            return end


class Limit:
    """What remains of a deadline, or of the socket's own timeout if there is none."""

    def __init__(self, sock: socket.socket, deadline: float | None) -> None:
        self._sock = sock
        timeout = sock.gettimeout() if deadline is None else None
        self._may_wait = timeout != 0.0
        if deadline is None:
            deadline = None if timeout is None else time.monotonic() + timeout
        self._deadline_s = asked_deadline(deadline)
        self._polled = False  # poll has called the socket ready, and the caller comes again

    def wait(self, events: int, wake_fd: int | None) -> int:
        """0 once the socket is ready, else DEADLINE or WOKEN.

        Raises:
            BlockingIOError: the socket is non-blocking and no deadline was given.
        """
        if not self._may_wait:
            raise BlockingIOError(EAGAIN, strerror(EAGAIN))
        while True:
            poll = select.poll()
            if wake_fd is not None:
                poll.register(wake_fd, select.POLLIN)
            span_s = _NAP_S
            # Ready, and still EAGAIN: an unread error queue keeps POLLERR set. Polling it again would spin.
            if not self._polled:
                poll.register(_open_fd(self._sock), events)
                span_s = _SLICE_S
            left_s = self._deadline_s - time.monotonic()
            # poll counts in milliseconds and rounds up, so it never returns early.
            ready = dict(poll.poll(max(0.0, min(left_s, span_s)) * 1000))
            if wake_fd is not None and ready.get(wake_fd):
                return WOKEN
            _open_fd(self._sock)  # another thread may have closed it
            self._polled = bool(ready)
            if ready:
                return 0
            if left_s <= 0:
                return DEADLINE


def _open_fd(sock: socket.socket) -> int:
    fd = sock.fileno()
    if fd < 0:
        raise OSError(EBADF, strerror(EBADF))
    return fd

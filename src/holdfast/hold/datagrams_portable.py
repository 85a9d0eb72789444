"""The datagram calls of ``holdfast._native`` in plain Python: same answers, no compiler needed."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EBADF
from operator import index
from typing import Any

ROOM_BYTES, CONTROL_BYTES = 65536, 256
UDP_GRO = 104
UNIX_NAME_BYTES = 108
MOST = (0xFFFF, 0xFFFFF, 0xFFFFFFFF)  # port, flow, scope
SLICE_S, NAP_S = 0.5, 0.001


def recv_datagrams(
    sock: socket.socket, control: bool, into: memoryview | None, slot_bytes: int, max_messages: int,
    max_bytes: int, deadline_s: float, out: list[Any], cut: list[int], /,
) -> int | None:  # fmt: skip
    """Append (payload, address) pairs to ``out`` and the places of cut ones to ``cut``.

    Gives an errno that came after the last of them (0 for none), or None if nothing came in time.
    """
    scratch = memoryview(bytearray(max(slot_bytes, ROOM_BYTES))) if into is None else into
    wait = Wait(sock, select.POLLIN, deadline_s)
    taken = 0
    with unwaiting(sock) as one:
        while taken < max_messages:
            at = 0 if into is None else taken * slot_bytes
            room = scratch[at:] if into is None else scratch[at : at + slot_bytes]
            try:
                whole, extra, _, address = one.recvmsg_into(
                    [room], CONTROL_BYTES if control else 0, socket.MSG_DONTWAIT | socket.MSG_TRUNC
                )
            except BlockingIOError:
                if taken:
                    return 0
                if not wait.ready():
                    return None
                continue
            except OSError as error:
                if taken and error.errno:
                    return error.errno
                raise
            taken += 1
            for start, end, kept in pieces(whole, segment_bytes(extra), len(room), max_bytes):
                if kept < end - start:
                    cut.append(len(out))
                part = room[min(start, len(room)) : start + kept]
                out.append((bytes(part) if into is None else part, address))
    return 0


def send_datagrams(
    sock: socket.socket, family: int, segment: bool, messages: Sequence[Any], deadline_s: float, /
) -> int:
    """Send (data, address) pairs; gives how many went before the deadline. An exception has sent_messages."""
    wait = Wait(sock, select.POLLOUT, deadline_s)
    sent = 0
    try:
        with unwaiting(sock) as one:
            while sent < len(messages):
                data, address = pair(messages[sent])
                target = () if address is None else (checked(address, family),)
                try:
                    one.sendmsg([data], [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, *target)
                except BlockingIOError:
                    if not wait.ready():
                        break
                    continue
                sent += 1
    except BaseException as error:
        vars(error)["sent_messages"] = sent
        raise
    return sent


def pieces(whole: int, step: int, room: int, max_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Where the datagrams of one message begin and end, and how many bytes of each there are.

    Args:
        whole: bytes that were sent, even if there was no room.
        step: the size that UDP_GRO joined, 0 for a single datagram.
        room: bytes of memory.
        max_bytes: limit on one datagram.
    """
    for start in range(0, max(whole, 1), step or max(whole, 1)):
        end = min(start + step, whole) if step else whole
        yield start, end, max(0, min(end - start, room - start, max_bytes))


def segment_bytes(extra: list[tuple[int, int, bytes]]) -> int:
    """The size of the datagrams that UDP_GRO joined; 0 if it was a single one."""
    for level, kind, data in extra:
        if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO) and len(data) >= 4:
            return max(0, int.from_bytes(data[:4], sys.byteorder, signed=True))
    return 0


def pair(item: Any) -> tuple[Any, Any]:
    """A message taken apart."""
    if not isinstance(item, tuple) or len(item) != 2:
        raise TypeError("a message is a tuple (data, address)")
    return item[0], item[1]


def checked(address: Any, family: int) -> Any:
    """The address, if the kernel can be given it without asking a name server."""
    if family == socket.AF_UNIX:
        name = os.fsencode(address)
        if not name or len(name) > UNIX_NAME_BYTES - (name[0] != 0):
            raise ValueError("a Unix address has 1 to 107 bytes")
        return name
    if not isinstance(address, tuple):
        raise TypeError("an address of this socket is a tuple")
    host, *numbers = address or ("",)
    if not 1 <= len(numbers) <= (1 if family == socket.AF_INET else 3):
        raise TypeError("an address of this socket has a host and a port")
    if any(not 0 <= index(number) <= most for number, most in zip(numbers, MOST, strict=False)):
        raise ValueError(f"a number is out of range in the address {address!r}")
    try:
        socket.inet_pton(family, host)
    except OSError:
        kind = "IPv4" if family == socket.AF_INET else "IPv6"
        raise ValueError(f"'{host}' is no numeric {kind} address") from None
    return address


@contextmanager
def unwaiting(sock: socket.socket) -> Iterator[socket.socket]:
    """A socket object on the same file that never waits.

    Python polls for a socket's own timeout before each call, whatever the flags say. Such a socket's file
    is in non-blocking mode already, so the twin changes nothing of it.
    """
    if not sock.gettimeout():
        yield sock
        return
    twin = socket.socket(sock.family, sock.type, sock.proto, fileno=open_fd(sock))
    try:
        twin.settimeout(0.0)
        yield twin
    finally:
        twin.detach()


class Wait:
    """Waits for a socket until a time, never for a number of attempts."""

    def __init__(self, sock: socket.socket, events: int, deadline_s: float) -> None:
        self._sock, self._events, self._deadline_s = sock, events, deadline_s
        self._woken = False

    def ready(self) -> bool:
        """Whether to try again; False when the time is up. To be called when the socket said EAGAIN."""
        left_s = math.inf if self._deadline_s == math.inf else self._deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        # Ready, and still EAGAIN: an unread error queue keeps POLLERR set, and a Unix socket without a
        # peer is writable though the receiver is full. Polling it again would spin.
        if self._woken:
            self._woken = False
            time.sleep(min(left_s, NAP_S))
        else:
            poll = select.poll()
            poll.register(open_fd(self._sock), self._events)
            self._woken = bool(poll.poll(min(left_s, SLICE_S) * 1000))
        open_fd(self._sock)
        return True


def open_fd(sock: socket.socket) -> int:
    """The socket's descriptor.

    Raises:
        OSError: EBADF, it is closed.
    """
    fd = sock.fileno()
    if fd < 0:
        raise OSError(EBADF, os.strerror(EBADF))
    return fd

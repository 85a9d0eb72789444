"""Many datagrams for one system call: received, sent, and no error or truncation hidden."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Sequence
from errno import EAGAIN, EINVAL, ENOPROTOOPT, EOPNOTSUPP
from typing import Generic, TypeVar
from weakref import ref

from holdfast.errors import DeadlineExceeded, UsageError
from holdfast.hold.asked import asked_deadline

try:
    from holdfast._native import recv_datagrams, send_datagrams
except ImportError:  # no C compiler when this was built
    from holdfast.hold.datagrams_portable import recv_datagrams, send_datagrams

__all__ = ["Address", "Batch", "DatagramBuffer", "enable_gro", "recv_batch", "send_batch"]

Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes | None
"""As the module ``socket`` has it; None for the peer of a connected socket, or a sender without a name."""

Payload = TypeVar("Payload", bytes, memoryview)
Raised = TypeVar("Raised", bound=BaseException)

MAX_MESSAGES, MAX_BYTES = 1024, 1 << 20
"""The most that one call may ask for, and the largest datagram that it may keep whole."""

ANY_UDP_BYTES = 65535
"""No UDP datagram is larger, nor what the kernel joins."""

UDP_GRO = 104  # include/uapi/linux/udp.h, from Linux 5.0; the module `socket` does not name it
IPPROTOS_UDP = (0, socket.IPPROTO_UDP)

# Plain numbers: comparing with an enum costs as much as the system call saves.
AF_UNIX, SOCK_DGRAM = int(socket.AF_UNIX), int(socket.SOCK_DGRAM)
FAMILIES = frozenset({AF_UNIX, int(socket.AF_INET), int(socket.AF_INET6)})

# What the kernel said after the last datagram of a batch: an errno, for the next call on that socket.
_late: dict[ref[socket.socket], int] = {}

# The properties of socket.socket make an enum at each look, which costs as much as a system call.
_family_of = socket.SocketType.family.__get__
_type_of = socket.SocketType.type.__get__


class Batch(list[tuple[Payload, Address]], Generic[Payload]):
    """What one call received: ``(payload, sender)`` pairs in the order of arrival.

    Attributes:
        truncated: places in this list of datagrams that were longer than the room for them; the rest of
            those is lost.
    """

    truncated: tuple[int, ...] = ()


def recv_batch(
    sock: socket.socket, max_messages: int, *, deadline: float | None = None, max_bytes: int = ANY_UDP_BYTES
) -> Batch[bytes]:
    """At least one datagram, and all others that are there already, up to ``max_messages``.

    It tries first and waits only if nothing is there. Signals are served and recompute the time that is
    left. An error that the kernel meets after some datagrams is raised by the next call on the same socket
    object, and nobody can take it away in between.

    Args:
        sock: UDP over IPv4 or IPv6, or a Unix datagram socket, connected or not; its mode is left alone.
        max_messages: 1 to 1024. After :func:`enable_gro` one message of the kernel can hold up to 128
            datagrams, and all of those are returned.
        deadline: absolute ``time.monotonic()`` seconds; None leaves it to the socket's own timeout. A
            deadline in the past still takes what is there.
        max_bytes: 1 to 1,048,576; longer datagrams are cut and noted in ``truncated``.

    Raises:
        DeadlineExceeded: nothing came in time.
        BlockingIOError: nothing is there, the socket is non-blocking and no deadline was given.
        UsageError: not a datagram socket of those families, or a number out of range.
        OSError: what the kernel says, such as ConnectionRefusedError after an ICMP answer; EBADF for a
            socket that another thread closed, noticed within half a second.

    Source: recvmmsg(2), whose section BUGS tells how a late error is overwritten.
    """
    batch: Batch[bytes] = Batch()
    if not _fill(sock, None, max_messages, max_bytes, _limit(sock, deadline), batch):
        raise _nothing(sock, deadline)
    return batch


class DatagramBuffer:
    """Memory for receiving without copies, used again by each receive; one thread at a time.

    Each receive lends views of it. The next one takes them back: using an old view is then a ValueError
    instead of somebody else's bytes. What was made from a view (``view[4:]``, a NumPy array)
    is not taken back: it shows what comes next. It pays for payloads of several kB; below, :func:`recv_batch`
    is faster.

    Args:
        max_messages: 1 to 1024, as for :func:`recv_batch`.
        max_bytes: room for one datagram, 1 to 1,048,576. After :func:`enable_gro`, 65,535 holds whatever
            the kernel joins; what has no room is cut and noted.

    Its size in memory is the product of both.
    """

    __slots__ = ("_lent", "_max_bytes", "_max_messages", "_memory")

    def __init__(self, max_messages: int = 64, max_bytes: int = ANY_UDP_BYTES) -> None:
        _check_limits(max_messages, max_bytes)
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._memory = memoryview(bytearray(max_messages * max_bytes))
        self._lent: tuple[memoryview, ...] = ()

    def recv(self, sock: socket.socket, *, deadline: float | None = None) -> Batch[memoryview]:
        """Like :func:`recv_batch`, as writable views that are valid until the next ``recv`` on this buffer.

        Raises:
            UsageError: something (such as a ``pickle.PickleBuffer``) still holds a view of the last batch;
                nothing was received.
        """
        self.release()
        batch: Batch[memoryview] = Batch()
        limit_s = _limit(sock, deadline)
        if not _fill(sock, self._memory, self._max_messages, self._max_bytes, limit_s, batch):
            raise _nothing(sock, deadline)
        self._lent = tuple([view for view, _ in batch])
        return batch

    def release(self) -> None:
        """Take back the views of the last batch now.

        Raises:
            UsageError: as for :meth:`recv`.
        """
        try:
            for view in self._lent:
                view.release()
        except BufferError as error:
            raise UsageError("A view of the last batch is still in use; drop it before receiving.") from error
        self._lent = ()


def send_batch(
    sock: socket.socket, messages: Sequence[tuple[bytes | bytearray | memoryview, Address]], *,
    deadline: float | None = None,
) -> int:  # fmt: skip
    """How many of the ``(data, address)`` pairs the kernel took, from the first on.

    It is all of them, unless the socket is non-blocking and no deadline was given: then it is as many as
    go without waiting, at least one. Neighbours of equal size for one address travel as a single message
    that the kernel cuts (UDP_SEGMENT), where it can. The receiver sees no difference.

    Args:
        sock: as for :func:`recv_batch`.
        messages: what to send. An address is numeric, for nobody waits for a name server here; None is the
            peer of a connected socket. What :func:`recv_batch` gave can be given back as it is.
        deadline: absolute ``time.monotonic()`` seconds; None leaves it to the socket's own timeout. A
            deadline in the past still sends what goes without waiting.

    Raises:
        DeadlineExceeded: time is up; ``sent_bytes`` counts payload.
        BlockingIOError: not even the first could go, the socket is non-blocking and no deadline was given.
        UsageError: an address that is not one; a socket of another kind.
        OSError: what the kernel says of the first that it did not send, such as EMSGSIZE. On a connected
            socket it can be the peer's ICMP answer to an earlier one (ConnectionRefusedError).

        Every exception, even one from a signal handler, has ``sent_messages``: so many were sent.

    Source: sendmmsg(2), which by itself hides an error after its first message.
    """
    family = _check_socket(sock)
    segment = family != AF_UNIX and sock.proto in IPPROTOS_UDP
    total = len(messages)  # a generator fails here, before anything is sent
    try:
        sent = send_datagrams(sock, family, segment, messages, _limit(sock, deadline))
    except (ValueError, OverflowError) as error:
        raise _with_progress(UsageError(str(error)), getattr(error, "sent_messages", 0)) from error
    if sent >= total or (sent and deadline is None and sock.gettimeout() == 0.0):
        return sent
    raise _with_progress(
        _nothing(sock, deadline, sum(memoryview(data).nbytes for data, _ in messages[:sent])), sent
    )


def enable_gro(sock: socket.socket, on: bool = True) -> bool:
    """Whether the kernel will join datagrams of equal size from one sender, for this module to divide.

    Several times faster where the sender uses UDP_SEGMENT, as :func:`send_batch` does, or the network card
    joins. It changes the socket for everybody: plain ``sock.recv`` then returns joined datagrams.
    Before Linux 5.0 and on Unix sockets the answer is no.

    Raises:
        UsageError: not a datagram socket.
    """
    if _check_socket(sock) == AF_UNIX or sock.proto not in IPPROTOS_UDP:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(on))
    except OSError as error:
        if error.errno in (ENOPROTOOPT, EINVAL, EOPNOTSUPP):
            return False
        raise
    return on


def attempt(sock: socket.socket, max_messages: int, max_bytes: int) -> Batch[bytes]:
    """What :func:`recv_batch` gives without waiting; empty if nothing is there."""
    batch: Batch[bytes] = Batch()
    _fill(sock, None, max_messages, max_bytes, -math.inf, batch)
    return batch


def _fill(
    sock: socket.socket, into: memoryview | None, max_messages: int, max_bytes: int,
    deadline_s: float, batch: Batch[Payload],
) -> bool:  # fmt: skip
    """Whether anything came."""
    # No room for ancillary data on Unix sockets: it could bring open files that nobody closes.
    control = _check_socket(sock) != AF_UNIX
    if into is None:
        _check_limits(max_messages, max_bytes)
    if _late and (number := _late.pop(ref(sock), 0)):
        raise OSError(number, os.strerror(number))
    cut: list[int] = []
    late = recv_datagrams(sock, control, into, max_bytes, max_messages, max_bytes, deadline_s, batch, cut)
    if cut:
        batch.truncated = tuple(cut)
    if late:
        _late[ref(sock, _forget)] = late
    return late is not None


def _forget(gone: ref[socket.socket]) -> None:
    _late.pop(gone, None)


def _check_limits(max_messages: int, max_bytes: int) -> None:
    if not (1 <= max_messages <= MAX_MESSAGES and 1 <= max_bytes <= MAX_BYTES):
        raise UsageError(
            f"A batch has 1 to {MAX_MESSAGES} messages of 1 to {MAX_BYTES} bytes, "
            f"not {max_messages} of {max_bytes}."
        )


def _check_socket(sock: socket.socket) -> int:
    """The family of a socket that can be used here."""
    family: int = _family_of(sock)
    if _type_of(sock) != SOCK_DGRAM or family not in FAMILIES:
        raise UsageError("Batches need a datagram socket: UDP over IPv4 or IPv6, or Unix.")
    return family


def _limit(sock: socket.socket, deadline: float | None) -> float:
    """When to give up waiting: infinity for never, -infinity for at once."""
    if deadline is None:
        timeout = sock.gettimeout()
        if timeout is None:
            return math.inf
        return time.monotonic() + timeout if timeout else -math.inf
    return asked_deadline(deadline)


def _nothing(sock: socket.socket, deadline: float | None, sent_bytes: int = 0) -> OSError:
    if deadline is None and sock.gettimeout() == 0.0:
        return BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    return DeadlineExceeded(sent_bytes=sent_bytes)


def _with_progress(error: Raised, sent: int) -> Raised:
    vars(error)["sent_messages"] = sent
    return error

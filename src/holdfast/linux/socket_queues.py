"""What waits in one of our own sockets: queues (``SIOCINQ``, ``SIOCOUTQ``) and buffers (``SO_MEMINFO``)."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from dataclasses import dataclass

SO_MEMINFO = 55
_SIOCOUTQNSD = 0x894B  # include/uapi/linux/sockios.h; the other two are terminal requests by number

_WORD_BYTES = 4
_WORDS = 9


@dataclass(frozen=True, slots=True)
class SocketMemory:
    """Kernel memory of one socket (``SK_MEMINFO_*``); a figure is None where the kernel is too old for it.

    Memory is more than payload: headers, and the rest of a page that a small segment occupies, count too.

    Attributes:
        receive_bytes, receive_limit_bytes: taken by what has arrived; ``SO_RCVBUF`` as the kernel has it.
        send_bytes, send_limit_bytes: handed to the network and not freed yet; ``SO_SNDBUF``.
        forward_bytes: reserved for what comes next.
        send_queue_bytes: taken by what was written and is not confirmed.
        option_bytes: taken by options and filters.
        backlog_bytes: arrived while the application was inside a system call on this socket.
        drops: segments that were thrown away here: duplicates, out of window, failed PAWS, over the
            buffer; for a listener connections refused, too. None below Linux 4.7.
    """

    receive_bytes: int | None = None
    receive_limit_bytes: int | None = None
    send_bytes: int | None = None
    send_limit_bytes: int | None = None
    forward_bytes: int | None = None
    send_queue_bytes: int | None = None
    option_bytes: int | None = None
    backlog_bytes: int | None = None
    drops: int | None = None


@dataclass(frozen=True, slots=True)
class Queues:
    """Bytes that wait in a connected socket.

    Attributes:
        unread_bytes: arrived in order, not read by the application (``SIOCINQ``; a FIN is not counted).
        unconfirmed_bytes: written by the application, not confirmed by the peer (``SIOCOUTQ``; a SYN
            or FIN on its way counts as one).
        unsent_bytes: the part of these that was never sent (``SIOCOUTQNSD``).
    """

    unread_bytes: int
    unconfirmed_bytes: int
    unsent_bytes: int


def decode_memory(data: bytes) -> SocketMemory:
    """The figures in an ``SO_MEMINFO`` value or ``INET_DIAG_SKMEMINFO`` attribute; any bytes are accepted."""
    count = min(len(data) // _WORD_BYTES, _WORDS)
    return SocketMemory(*struct.unpack_from(f"={count}I", data))


def memory_of(sock: socket.socket) -> SocketMemory:
    """Memory of a socket of this process; needs Linux 4.12.

    Raises:
        OSError: closed, or an older kernel (``ENOPROTOOPT``).
    """
    return decode_memory(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _WORDS * _WORD_BYTES))


def queues_of(sock: socket.socket) -> Queues:
    """Queues of a TCP socket of this process. It may be reset already: what had arrived still counts.

    Raises:
        OSError: closed, or a listener (``EINVAL``).
    """
    return Queues(_ask(sock, termios.FIONREAD), _ask(sock, termios.TIOCOUTQ), _ask(sock, _SIOCOUTQNSD))


def _ask(sock: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, request, bytes(_WORD_BYTES)), sys.byteorder)

"""Turns the kernel's error on a socket into a typed error with its evidence."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any, TypeVar

from holdfast.errors import ConnectionLost, Loss
from holdfast.events import Endpoint
from holdfast.hold.cause_source import CauseSource, asker
from holdfast.hold.classify import Figures, Phase, classify
from holdfast.hold.log import log_loss
from holdfast.linux import states, tcp_info
from holdfast.linux.socket_queues import queues_of

_SO_COOKIE = 57  # asm-generic/socket.h
_INET = (socket.AF_INET, socket.AF_INET6)

_ENDED_HERE = ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "LAST_ACK", "TIME_WAIT")

_T = TypeVar("_T")


def address(sock: socket.socket, ask: Callable[[socket.socket], Any]) -> str | None:
    """One end of a socket as ``addr:port``, ``[v6]:port`` or a path; None if it has none (any more).

    Args:
        sock: any socket.
        ask: ``socket.socket.getsockname`` or ``socket.socket.getpeername``.
    """
    try:
        name = ask(sock)
    except OSError:
        return None
    if sock.family in _INET:
        return str(Endpoint(str(name[0]).removeprefix("::ffff:"), int(name[1])))
    return _printable(name) or None


def _printable(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def read_figures(sock: socket.socket) -> Figures:
    """What the kernel still knows of this socket. Readable after an error, and consumes none.

    Never SO_ERROR: reading it would clear an error that nobody has seen yet.
    """
    cookie = _or_none(lambda: struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])
    if sock.family not in _INET or sock.type != socket.SOCK_STREAM:
        return Figures(cookie=cookie)
    queues = _or_none(lambda: queues_of(sock))
    return Figures(
        info=_or_none(lambda: tcp_info.of_socket(sock)),
        unsent_bytes=queues.unsent_bytes if queues else None,
        unacked_bytes=queues.unconfirmed_bytes - queues.unsent_bytes if queues else None,
        keepalive=_or_none(lambda: bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))),
        user_timeout_ms=_or_none(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)),
        cookie=cookie,
    )


def _or_none(read: Callable[[], _T]) -> _T | None:
    # A socket that was closed meanwhile, or a kernel that lacks the figure, must not hide the loss itself.
    try:
        return read()
    except (OSError, ValueError):  # ioctl() of a closed socket's -1 is a ValueError
        return None


def unread_bytes(sock: socket.socket) -> int:
    """How many bytes of the stream wait in the kernel: over TLS, as they were sent."""
    return _or_none(lambda: struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]) or 0


def is_over(sock: socket.socket) -> bool:
    """Whether both directions have ended and the error that ended them, if any, was told to somebody.

    A FIN of the peer ends one direction, so on a TCP socket whose own direction is open it was an error.
    """
    fd = sock.fileno()
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, 0)  # the kernel tells POLLHUP and POLLERR unasked
    return poll.poll(0) == [(fd, select.POLLHUP)]


def is_half_closed(sock: socket.socket) -> bool:
    """Whether this end has already closed its direction of a TCP connection."""
    if sock.family not in _INET:
        return False
    state = _or_none(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    return state is not None and states.name(state) in _ENDED_HERE


def lost(
    sock: socket.socket,
    error: OSError,
    phase: Phase | None = None,
    *,
    local: str | None = None,
    peer: str | None = None,
    source: CauseSource | None = None,
    sent_bytes: int = 0,
) -> ConnectionLost | None:
    """As :func:`conclude`, and logged; not raised."""
    found = conclude(sock, error, phase, local=local, peer=peer, source=source, sent_bytes=sent_bytes)
    if found is not None:
        log_loss(found)
    return found


def conclude(
    sock: socket.socket,
    error: OSError,
    phase: Phase | None = None,
    *,
    local: str | None = None,
    peer: str | None = None,
    source: CauseSource | None = None,
    sent_bytes: int = 0,
) -> ConnectionLost | None:
    """The typed error for what a system call on this socket raised.

    None if the error ends no connection (EBADF, EFAULT, ENOMEM, ...): such an error is the caller's own
    and goes up as it is.

    Args:
        sock: the socket it happened on; its figures are read now.
        error: what the call raised; only its ``errno`` counts.
        phase: how far the connection had come; None concludes it from the figures.
        local, peer: the addresses, where they were stored; after a reset the kernel no longer tells the peer.
        source: whom ``explain()`` will ask.
        sent_bytes: of the data given to the failed call, how much the kernel had taken.
    """
    if error.errno is None or classify(error.errno, phase or Phase.OPEN) is None:
        return None
    figures = read_figures(sock)
    verdict = classify(error.errno, phase or figures.phase, figures)
    assert verdict is not None  # phase and figures choose between causes, never whether there is one
    if phase is Phase.CLOSED_HERE:
        figures = figures.without_fin()
    facts = Loss(
        errno=error.errno,
        cause=verdict.cause,
        local=local or address(sock, socket.socket.getsockname),
        peer=peer or address(sock, socket.socket.getpeername),
        unsent_bytes=figures.unsent_bytes,
        unacked_bytes=figures.unacked_bytes,
        acked_bytes=figures.acked_bytes,
        idle_s=figures.idle_s,
        tcp_info=figures.info,
        cookie=figures.cookie,
    )
    ask = asker(source, facts.cookie, facts.local, facts.peer)
    return verdict.error(facts, sent_bytes=sent_bytes, ask=ask)

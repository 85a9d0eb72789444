"""Puts a socket policy on a real socket, and reads back what the kernel took."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import socket
from typing import Any, NamedTuple, NoReturn, Protocol, cast

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.policy import KeepAlive, Profile, SocketPolicy

TCP_FASTOPEN_CONNECT = 30
"""include/uapi/linux/tcp.h; Python's socket module does not have it."""


class OptionSocket(Protocol):
    """What tuning needs of a socket: ``socket.socket``, ``SSLSocket`` and asyncio's wrapper have it."""

    @property
    def family(self) -> int: ...  # noqa: D102 - as in socket.socket
    @property
    def type(self) -> int: ...  # noqa: D102 - likewise
    @property
    def proto(self) -> int: ...  # noqa: D102 - likewise
    def getsockopt(self, level: int, option: int, /) -> int: ...  # noqa: D102 - likewise
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...  # noqa: D102 - likewise


class Transport(Protocol):
    """What has a socket inside: an asyncio transport or ``StreamWriter``."""

    def get_extra_info(self, name: str, /) -> Any: ...  # noqa: D102 - as in asyncio.BaseTransport


class Connected(Protocol):
    """What holds a socket: :class:`~holdfast.hold.connection.Connection`."""

    @property
    def sock(self) -> OptionSocket: ...  # noqa: D102 - as in Connection


class Streaming(Protocol):
    """What holds a transport: :class:`~holdfast.hold.stream.Stream`."""

    @property
    def transport(self) -> Transport: ...  # noqa: D102 - as in Stream


Tunable = OptionSocket | Transport | Connected | Streaming


class _Option(NamedTuple):
    name: str
    level: int
    number: int
    needs: str


_SOL, _TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP
_ON = _Option("SO_KEEPALIVE", _SOL, socket.SO_KEEPALIVE, "a kernel with TCP keep-alive")
_IDLE = _Option("TCP_KEEPIDLE", _TCP, socket.TCP_KEEPIDLE, "Linux 2.4")
_INTERVAL = _Option("TCP_KEEPINTVL", _TCP, socket.TCP_KEEPINTVL, "Linux 2.4")
_COUNT = _Option("TCP_KEEPCNT", _TCP, socket.TCP_KEEPCNT, "Linux 2.4")
_USER_TIMEOUT = _Option("TCP_USER_TIMEOUT", _TCP, socket.TCP_USER_TIMEOUT, "Linux 2.6.37")
_NOTSENT_LOWAT = _Option("TCP_NOTSENT_LOWAT", _TCP, socket.TCP_NOTSENT_LOWAT, "Linux 3.12")
_NODELAY = _Option("TCP_NODELAY", _TCP, socket.TCP_NODELAY, "a kernel with TCP_NODELAY")
_FASTOPEN = _Option(
    "TCP_FASTOPEN_CONNECT", _TCP, TCP_FASTOPEN_CONNECT, "Linux 4.11 with bit 1 set in net.ipv4.tcp_fastopen"
)


def apply(policy: SocketPolicy | Profile, sock: Tunable) -> None:
    """Set on a socket what differs from the policy; TCP_FASTOPEN_CONNECT only has a meaning before connect.

    Args:
        policy: all of it counts, its defaults too: ``SocketPolicy()`` switches everything off. A profile
            stands for its policy.
        sock: a TCP socket in any state, or what has one: a Connection, a Stream, an asyncio transport or
            stream writer.

    Raises:
        UsageError: not a TCP socket, closed, or too late for the option.
        KernelUnavailable: the kernel refused; the error names option and value. Options before it in the
            list of :class:`SocketPolicy` are set already.
    """
    found = _tcp_socket(sock)
    policy = policy.policy if isinstance(policy, Profile) else policy
    if not isinstance(policy, SocketPolicy):
        raise UsageError(f"The policy is {policy!r}: give a SocketPolicy, or a profile of PROFILES.")
    for option, value in _settings(policy):
        if _read(found, option) != value:
            try:
                found.setsockopt(option.level, option.number, value)
            except OSError as problem:
                too_late = option is _FASTOPEN and problem.errno == errno.EINVAL
                if too_late and not value:
                    continue  # it concerns the next connect only, and there will be none
                _refused(option, value, problem, found, "set it before connect()" if too_late else "")


def effective(sock: Tunable) -> SocketPolicy:
    """What the kernel has for this socket, whoever set it; an option that it does not know reads as off.

    Raises:
        UsageError: not a TCP socket, or closed; or keep-alive is on with net.ipv4.tcp_keepalive_* beyond
            what a socket option can hold.
    """
    found = _tcp_socket(sock)
    keepalive = None
    if _read(found, _ON):
        keepalive = KeepAlive(*(_read(found, option) for option in (_IDLE, _INTERVAL, _COUNT)))
    return SocketPolicy(
        keepalive=keepalive,
        user_timeout_ms=_read(found, _USER_TIMEOUT),
        notsent_lowat_bytes=_read(found, _NOTSENT_LOWAT),
        nodelay=bool(_read(found, _NODELAY)),
        fastopen_connect=bool(_read(found, _FASTOPEN)),
    )


def _settings(policy: SocketPolicy) -> list[tuple[_Option, int]]:
    """Every option with its value, in the order in which they are set."""
    alive = policy.keepalive
    # Times come before the switch: with the switch on, each of them would start the timer again.
    times = [(_IDLE, alive.idle_s), (_INTERVAL, alive.interval_s), (_COUNT, alive.count)] if alive else []
    return [
        *times,
        (_ON, int(alive is not None)),
        (_USER_TIMEOUT, policy.user_timeout_ms),
        (_NOTSENT_LOWAT, policy.notsent_lowat_bytes),
        (_NODELAY, int(policy.nodelay)),
        (_FASTOPEN, int(policy.fastopen_connect)),
    ]


def _read(sock: OptionSocket, option: _Option) -> int:
    try:
        return sock.getsockopt(option.level, option.number)
    except OSError as problem:
        if problem.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            return 0
        raise _closed(problem) from problem


def _refused(option: _Option, value: int, problem: OSError, sock: OptionSocket, mend: str) -> NoReturn:
    what = f"{option.name} = {value}"
    if problem.errno == errno.EBADF:
        raise _closed(problem) from problem
    if problem.errno == errno.EINVAL:
        words = os.strerror(errno.EINVAL)
        raise UsageError(f"The kernel refused {what} ({words}): {mend or 'give another value'}.") from problem
    if problem.errno in (errno.EPERM, errno.EACCES):
        raise KernelUnavailable(what, "the right to set it; a sandbox forbids it") from problem
    needs = option.needs
    if sock.proto == socket.IPPROTO_MPTCP:
        needs += ", or a socket of plain TCP: this one is Multipath TCP"
    raise KernelUnavailable(what, needs) from problem


def _closed(problem: OSError) -> UsageError:
    return UsageError(f"The socket cannot be tuned ({problem.strerror}): tune it before it is closed.")


def _tcp_socket(sock: Any) -> OptionSocket:
    """The socket itself, once it is known to speak TCP."""
    # A StreamWriter has both, and so it is asked first.
    if not hasattr(sock, "get_extra_info"):
        sock = getattr(sock, "sock", getattr(sock, "transport", sock))
    if hasattr(sock, "get_extra_info"):
        sock = sock.get_extra_info("socket")
        if sock is None:
            raise UsageError("This transport has no socket (any more): tune it while it is connected.")
    if not all(hasattr(sock, name) for name in ("family", "type", "proto", "getsockopt", "setsockopt")):
        raise UsageError(f"There is nothing to tune in {sock!r}: give a TCP socket, or what has one.")
    found = cast("OptionSocket", sock)
    if found.family not in (socket.AF_INET, socket.AF_INET6):
        name = getattr(found.family, "name", found.family)
        raise UsageError(f"This is no TCP socket but one of family {name}: it has nothing to tune.")
    if found.type != socket.SOCK_STREAM or found.proto not in (0, _TCP, socket.IPPROTO_MPTCP):
        name = getattr(found.type, "name", found.type)
        raise UsageError(f"This is no TCP socket but a {name} of protocol {found.proto}: give one of TCP.")
    return found

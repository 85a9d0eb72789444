"""The public ``connect`` and ``serve``: a pair or a socket means a connection, a URL a session."""

# SPDX-License-Identifier: Apache-2.0
# Rule: the shape of the first argument decides, nothing else. (host, port) and sockets came first and keep
# their meaning; a session needs more than they say (which transport), which is what a URL is for.
from __future__ import annotations

import asyncio
import os
import socket
import ssl as tls_module
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, overload

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.hold import dial, stream
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.resolve import Resolver
from holdfast.hold.retry import Budget, Retried
from holdfast.policy import RetryPolicy

if TYPE_CHECKING:
    from holdfast.hold.drivers.client import Dial
    from holdfast.hold.drivers.policy import Observer, SessionPolicy
    from holdfast.hold.drivers.server import SessionServer
    from holdfast.hold.drivers.session import Session

Key = bytes | str | os.PathLike[str]


@overload
def connect(
    address: tuple[str, int],
    *,
    policy: RetryPolicy | None = None,
    deadline: float | None = None,
    budget: Budget | None = None,
    on_retry: Callable[[Retried], object] | None = None,
    prepare: dial.Prepare | None = None,
    attempt_delay_s: float = ...,
    resolver: Resolver = ...,
    clock: dial.Clock = ...,
    sleep: Callable[[float], object] = ...,
    chance: Callable[[], float] = ...,
) -> socket.socket: ...


@overload
def connect(
    address: str,
    *,
    policy: SessionPolicy | None = None,
    psk: Key | None = None,
    tls: tls_module.SSLContext | None = None,
    deadline: float | None = None,
    observer: Observer | None = None,
    peers: Collection[int] | None = None,
) -> Dial: ...


def connect(address: tuple[str, int] | str, **terms: Any) -> socket.socket | Dial:
    """A connected TCP socket for ``(host, port)``; a session for ``tls://``, ``tcp://`` or ``unix://``.

    See :func:`holdfast.hold.dial.connect` for the first. A URL gives a
    :class:`~holdfast.hold.drivers.client.Dial`: ``async with`` it or ``await`` it for a
    :class:`~holdfast.hold.drivers.session.Session`, ``with`` it for a
    :class:`~holdfast.hold.drivers.blocking.BlockingSession`.

    Raises:
        UsageError: it is no address, or what is asked for would not be safe.
        KernelUnavailable: a session, without the packages that it needs.
    """
    if not isinstance(address, str):
        return dial.connect(address, **terms)
    try:
        from holdfast.hold.drivers.client import Dial
    except ImportError as error:
        raise _packages(error) from error
    return Dial(address, **terms)


@overload
def serve(
    handle: Callable[[stream.Stream], Awaitable[None]],
    sock: socket.socket,
    *,
    ssl: tls_module.SSLContext | None = None,
    causes: CauseSource | None = None,
) -> Coroutine[Any, Any, asyncio.Server]: ...


@overload
def serve(
    handle: Callable[[Session], Awaitable[None]],
    url: str,
    /,
    *,
    policy: SessionPolicy | None = None,
    psk: Key | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    location: str | None = None,
    observer: Observer | None = None,
    peers: Collection[int] | None = None,
    memory_bytes: int = ...,
    most_sessions: int = ...,
    most_half_open: int = ...,
) -> SessionServer: ...


def serve(
    handle: Any, sock: socket.socket | str, **terms: Any
) -> Coroutine[Any, Any, asyncio.Server] | SessionServer:
    """A server of streams on a bound socket, or of sessions on a URL.

    See :func:`holdfast.hold.stream.serve` for the first, which is awaited. A URL gives a
    :class:`~holdfast.hold.drivers.server.SessionServer`: ``async with`` it or ``await`` it.

    Raises:
        UsageError: it is no address, or what is asked for would not be safe.
        KernelUnavailable: sessions, without the packages that they need.
    """
    if isinstance(sock, socket.socket):
        return stream.serve(handle, sock, **terms)
    if not isinstance(sock, str):
        raise UsageError(f"Served is a URL (sessions) or a bound socket (streams), not {sock!r}.")
    try:
        from holdfast.hold.drivers.server import SessionServer
    except ImportError as error:
        raise _packages(error) from error
    return SessionServer(handle, sock, **terms)


def _packages(error: ImportError) -> KernelUnavailable:
    return KernelUnavailable("A session", f"the package {error.name}: pip install 'holdfast[session]'")

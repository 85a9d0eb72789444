"""The socket on which a server listens: binds it, accepts on it, leaves nothing of it behind."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from functools import partial

from holdfast.hold.drivers.wire import LOGGER
from holdfast.hold.session.half_open import HalfOpen, Place
from holdfast.hold.transports.target import Target, origin

BACKLOG, ACCEPTS = 1024, 16
"""How many may wait to be accepted, and how many are in one turn: asyncio logs each that fails for want of a
descriptor, and tries as many as the backlog that it is told.
"""

AGAIN_S = 1.0
"""How long nothing is accepted after that failed, for want of descriptors as a rule."""


def bound(target: Target) -> socket.socket:
    """A socket that is bound to a target, and does not listen yet.

    Raises:
        OSError: it cannot be; it names the target.
    """
    try:
        return _bound(target)
    except OSError as error:
        raise type(error)(error.errno, f"{target}: {error.strerror}") from error


def _bound(target: Target) -> socket.socket:
    if target.scheme == "unix":
        if isinstance(target.sockaddr, str):
            _remove_left_over(target.sockaddr)
        family, address = socket.AF_UNIX, target.sockaddr
    else:
        family, _, _, _, address = socket.getaddrinfo(  # type: ignore[assignment]  # of any family
            target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    sock = socket.socket(family)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Gives every transport that is accepted a protocol, TLS first where that is called for.

    Args:
        sock: bound; the listener's from here on.
        protocol: makes one; it is given the place of its TLS handshake, which is its from then on.
        tls: the server's context; None: no TLS.
        handshake_s: how long a TLS handshake may take.
        half_open: the places for TLS handshakes; for whom there is none is closed at once.
        bound_here: the file of a Unix socket was made here, so that it is removed again.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[Place | None], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
        half_open: HalfOpen,
        bound_here: bool,
    ) -> None:
        self._sock, self._protocol = sock, protocol
        self._tls, self._handshake_s, self._half_open = tls, handshake_s, half_open
        self._server: asyncio.Server | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}
        self._file = _identity(sock) if bound_here else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Begin to listen."""
        self._sock.setblocking(False)
        if self._tls is None:
            self._server = await asyncio.get_running_loop().create_server(
                partial(self._protocol, None), sock=self._sock, backlog=ACCEPTS
            )
        self._sock.listen(BACKLOG)
        if self._tls is not None:
            self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="accepts TLS")
            # Not before: the loop would let go of whatever has got the same number meanwhile.
            self._accepting.add_done_callback(lambda _: self._sock.close())

    def close(self) -> None:
        """Accept nothing more; handshakes of TLS end, and so does our file of a Unix socket."""
        if self._file is not None and self._file == _identity(self._sock):
            with contextlib.suppress(OSError):
                os.unlink(self._sock.getsockname())
        if self._server is not None:
            self._server.close()
        if self._accepting is not None:
            self._accepting.cancel()
        else:
            self._sock.close()
        for sock in self._shaking.values():
            _cut(sock)

    async def wait_closed(self) -> None:
        """Until the address is free again."""
        if self._accepting is not None:
            await asyncio.wait([self._accepting])

    async def _accept(self) -> None:
        """As ``create_server`` does, which would begin any number of TLS handshakes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                LOGGER.warning("nothing was accepted: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            place = self._half_open.enter(origin(address[0]), partial(_cut, sock))
            if place is None:
                sock.close()
                continue
            task = loop.create_task(self._shake(sock, place))
            self._shaking[task] = sock
            task.add_done_callback(self._shaking.pop)

    async def _shake(self, sock: socket.socket, place: Place) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._protocol, place), sock, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except (OSError, ssl.SSLError) as error:
            LOGGER.debug("no TLS: %s", error)
            self._half_open.leave(place)
            sock.close()


def _cut(sock: socket.socket) -> None:
    """End a TLS handshake; its task is not cancelled, since uvloop 0.23 logs an error for each that is."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _identity(sock: socket.socket) -> tuple[int, int] | None:
    """Which file a Unix socket's name stands for at the moment; None if there is none."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or not isinstance(name, str) or not name:
        return None
    with contextlib.suppress(OSError):
        found = os.lstat(name)
        return found.st_dev, found.st_ino
    return None


def _remove_left_over(path: str) -> None:
    """Remove the socket of a server that is gone; a file, or a socket on which somebody listens, stays."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)

"""Opens one transport to one address, for asyncio."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.errors import NotTrusted, UsageError
from holdfast.events import Endpoint
from holdfast.hold.options import apply
from holdfast.hold.race import Address, interleave
from holdfast.hold.resolve import RESOLVER
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.keys import NO_KEY
from holdfast.hold.transports.location import followed
from holdfast.hold.transports.target import Target
from holdfast.hold.transports.trust import (
    certificate_hash,
    channel,
    check_client_tls,
    check_creds,
    check_plain,
)
from holdfast.policy import SocketPolicy

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


def own_users() -> frozenset[int]:
    """Whose processes are trusted on a Unix socket unless others are named: ours and root's."""
    return frozenset({os.geteuid(), 0})


@dataclass(frozen=True, slots=True)
class Dialer:
    """How to reach one target.

    Attributes:
        target: where.
        key: the pre-shared key, 32 zero octets for none.
        tls: the client's context for ``tls://``; it verifies the server.
        socket_policy: the options of a TCP socket.
        peers: whose processes may be at the other end of a Unix socket.

    Raises:
        UsageError: the context would not verify the server.
    """

    target: Target
    key: bytes
    tls: ssl.SSLContext | None = None
    socket_policy: SocketPolicy | None = None
    peers: Collection[int] = field(default_factory=own_users)

    def __post_init__(self) -> None:
        if self.tls is not None:
            check_client_tls(self.tls, self.key)

    async def addresses(self, timeout_s: float) -> list[Address]:
        """Every address to try, in the order to try them.

        Raises:
            OSError: the name has none.
        """
        target = self.target
        if target.scheme == "unix":
            return [Address(socket.AF_UNIX, (target.sockaddr,))]
        return interleave(await RESOLVER.resolve_async(target.host, target.port, timeout_s))

    def home(self, told: tuple[bytes, int], last: Address | None) -> Address | None:
        """Where the server says that it is reached itself; None: nothing that is followed.

        Args:
            told: address, 4 or 16 octets, and port.
            last: what carried the session last.
        """
        if self.target.scheme == "unix":
            return None
        return followed(told, self.target.scheme == "tcp" and self.key is NO_KEY, last)

    async def open(self, address: Address, protocol: Callable[[], _P]) -> tuple[_P, Channel]:
        """A transport to one address, with what a handshake on it is bound to.

        Raises:
            OSError, ssl.SSLError: it could not be opened.
            NotTrusted: another than was asked for answered.
            UsageError: it must not be, without encryption or authentication.
        """
        loop = asyncio.get_running_loop()
        if self.target.scheme == "tcp":
            check_plain(address.sockaddr[0], self.key)
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if address.family != socket.AF_UNIX and self.socket_policy is not None:
                apply(self.socket_policy, sock)
            where = address.sockaddr[0] if address.family == socket.AF_UNIX else address.sockaddr
            await connect(sock, where)
            if address.family == socket.AF_UNIX:
                check_creds(sock, self.peers)
            name = self.target.host if self.tls is not None else None
            transport, made = await loop.create_connection(
                protocol, sock=sock, ssl=self.tls, server_hostname=name
            )
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise NotTrusted(
                f"The server's certificate does not hold ({error.verify_message.rstrip('.')}): dial the name "
                "to which it is made out, or give tls= a context that trusts whoever signed it."
            ) from error
        except BaseException as error:
            sock.close()
            # The event loops say it without a word: it is a server that expects something else, as a rule.
            if self.tls is not None and isinstance(error, ConnectionResetError) and not str(error):
                why = "The connection ended within the TLS handshake, as if nobody served tls:// there"
                raise ConnectionResetError(errno.ECONNRESET, why, _there(where)) from error
            raise
        try:
            return made, channel(self.target, self.key, _binding(transport))
        except BaseException:
            transport.abort()
            raise


async def connect(sock: socket.socket, where: str | bytes | tuple[Any, ...]) -> None:
    """Connect a socket that does not block to an address that needs no lookup.

    ``loop.sock_connect`` of uvloop hands every address to the resolver's threads, literal ones too.

    Raises:
        OSError: it could not be connected.
    """
    error = sock.connect_ex(where)
    if error == errno.EINPROGRESS:
        # On loopback the handshake was over before the call returned; asked again, the kernel says so.
        error = sock.connect_ex(where)
    if error == errno.EALREADY:
        loop, settled = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, settled.set)
        try:
            await settled.wait()
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error), _there(where))


def _there(where: str | bytes | tuple[Any, ...]) -> str | bytes:
    """An address as an OSError names it, in the place of a file."""
    return str(Endpoint(*where[:2])) if isinstance(where, tuple) else where


def _binding(transport: asyncio.BaseTransport) -> bytes:
    """What only this TLS connection has; nothing for others."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return b""
    if tls.version() != "TLSv1.3":
        raise NotTrusted(f"The server speaks {tls.version()}: a session needs TLS 1.3, at both ends.")
    der = tls.getpeercert(binary_form=True)
    if not der:
        raise UsageError("The TLS context asks for no certificate: a session needs one to bind to.")
    return certificate_hash(der)

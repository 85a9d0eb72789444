"""The two ends of a socket that is to be held: a stream, and connected."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket

from holdfast.errors import UsageError
from holdfast.hold.loss import address, read_figures
from holdfast.linux import states


def ends(sock: socket.socket) -> tuple[str | None, str | None]:
    """Local and peer address, as :func:`~holdfast.hold.loss.address` gives them.

    Raises:
        UsageError: it carries datagrams, or it is not connected and never was.
    """
    if sock.type != socket.SOCK_STREAM:
        raise UsageError("the socket carries datagrams; a connection needs a stream socket")
    local, peer = address(sock, socket.socket.getsockname), address(sock, socket.socket.getpeername)
    if peer is None and sock.family != socket.AF_UNIX and not _was_connected(sock):
        raise UsageError("the socket is not connected; connect it before wrapping it")
    return local, peer


def _was_connected(sock: socket.socket) -> bool:
    """Whether a socket without a peer had one: a RST may come before accept() returns."""
    info = read_figures(sock).info
    return info is not None and info.state == states.NUMBERS["CLOSED"] and bool(info.segs_in)

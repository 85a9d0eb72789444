"""The system calls on a socket: compiled where the build could, portable elsewhere."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from typing import Protocol

try:
    from holdfast._native import DEADLINE, WOKEN, receive, receive_into, send_from
except ImportError:  # no C compiler when this was built
    from holdfast.hold.portable import DEADLINE, WOKEN, receive, receive_into, send_from

__all__ = ["DEADLINE", "WOKEN", "Calls", "Readable", "Writable", "receive", "receive_into", "send_from"]

Readable = bytes | bytearray | memoryview
Writable = bytearray | memoryview


class Calls(Protocol):
    """What this module offers, and :class:`holdfast.hold.tls.TlsCalls` too."""

    def receive(
        self, sock: socket.socket, size: int, deadline: float | None, wake_fd: int | None, /
    ) -> bytes | int:
        """Up to ``size`` bytes; DEADLINE or WOKEN."""

    def receive_into(
        self, sock: socket.socket, buffer: Writable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes came; DEADLINE or WOKEN."""

    def send_from(
        self, sock: socket.socket, buffer: Readable, deadline: float | None, wake_fd: int | None, /
    ) -> int:
        """How many bytes were taken; DEADLINE or WOKEN."""

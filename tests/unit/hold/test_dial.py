"""Addresses race, the losers are closed, and every loss is told."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket

from holdfast.hold import dial


def test_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, dial.connect(server.getsockname()) as sock:
        assert sock.getpeername() == server.getsockname()
        assert sock.gettimeout() is None

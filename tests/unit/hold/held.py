"""What tests of a Connection share: one on a socket whose other end is plain."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.drivers import tcp_pair

from holdfast.hold.connection import Connection

Pair = tuple[Connection, socket.socket]


@contextmanager
def held_pair() -> Iterator[Pair]:
    """A Connection and the socket at its other end; both are closed in the end."""
    near, far = tcp_pair()
    held = Connection(near)
    yield held, far
    held.close()
    far.close()


def soon(seconds: float = 10) -> float:
    """A deadline for what should be there at once."""
    return time.monotonic() + seconds

# SPDX-License-Identifier: Apache-2.0
"""A relay on loopback that resets the connections through it, again and again, at any byte."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LINGER_ZERO = b"\1\0\0\0\0\0\0\0"


class Relay:
    """Passes bytes on, and resets both sides after a random number of them.

    Attributes:
        resets: how often it did.
    """

    def __init__(self, port: int, seed: int, mean_bytes: int, most_resets: int) -> None:
        self._to, self._chance, self._mean = port, random.Random(seed), mean_bytes
        self._left = most_resets
        self.resets = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._budget: dict[socket.socket, int] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._other:
                    self._pass(key.fileobj)
        for sock in list(self._other):
            self._drop(sock)
        self._listener.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._other[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        self._budget[near] = self._budget[far] = int(self._chance.expovariate(1 / self._mean)) + 1

    def _pass(self, sock: socket.socket) -> None:
        other = self._other[sock]
        try:
            data = sock.recv(1 << 14)
        except OSError:
            data = b""
        budget = self._budget[sock] if self._left > 0 else len(data) + 1
        self._budget[sock] = self._budget[other] = budget - len(data)
        with suppress(OSError):
            other.sendall(data[:budget])
        if not data or len(data) >= budget:
            if data:
                self._left -= 1
                self.resets += 1
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        other = self._other.pop(sock, None)
        if other is None:
            return
        self._other.pop(other, None)
        for one in (sock, other):
            self._selector.unregister(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            one.close()

    def close(self) -> None:
        self._ended = True
        self._thread.join(5)


@contextmanager
def relay(port: int, seed: int = 1, mean_bytes: int = 2000, most_resets: int = 20) -> Iterator[Relay]:
    """A relay to a port of this host."""
    made = Relay(port, seed, mean_bytes, most_resets)
    try:
        yield made
    finally:
        made.close()

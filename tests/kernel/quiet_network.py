"""A network namespace of our own, in which nobody else makes a reset or moves a counter."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[Callable[[], T]], T]

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_UP_RUNNING = 0x41


def _enter() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_RUNNING))


@contextmanager
def quiet_network() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """A function that runs another inside a fresh namespace whose loopback is up; gone at the end."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_enter).result(10)
        yield lambda work: thread.submit(work).result(30)


def netns() -> int:
    """Inode number of the calling thread's namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def connections(host: str, count: int) -> list[tuple[socket.socket, socket.socket]]:
    """Pairs of connected sockets (client, server) on a loopback address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=count) as listener:
        clients = [socket.create_connection(listener.getsockname()[:2], timeout=10) for _ in range(count)]
        by_port = {client.getsockname()[1]: client for client in clients}
        servers = [listener.accept()[0] for _ in range(count)]
    return [(by_port[server.getpeername()[1]], server) for server in servers]

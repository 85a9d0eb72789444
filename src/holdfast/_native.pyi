# SPDX-License-Identifier: Apache-2.0
import socket
from collections.abc import Sequence
from typing import Any

DEADLINE: int
WOKEN: int

class Inbox:
    reserve_bytes: int
    @property
    def capacity_bytes(self) -> int: ...
    def __len__(self) -> int: ...
    def space(self) -> memoryview: ...
    def add(self, count: int, /) -> None: ...
    def peek(self, n: int, /) -> bytes: ...
    def take(self, n: int, /) -> bytes: ...
    def take_into(self, buffer: bytearray | memoryview, /) -> int: ...
    def take_exactly(self, n: int, /) -> bytes | None: ...
    def take_until(self, delimiter: bytes, limit: int, /) -> bytes | None: ...

def receive(
    sock: socket.socket, size: int, deadline: float | None, wake_fd: int | None, /
) -> bytes | int: ...
def receive_into(
    sock: socket.socket, buffer: bytearray | memoryview, deadline: float | None, wake_fd: int | None, /
) -> int: ...
def send_from(
    sock: socket.socket,
    buffer: bytes | bytearray | memoryview,
    deadline: float | None,
    wake_fd: int | None,
    /,
) -> int: ...
def recv_datagrams(
    sock: socket.socket,
    control: bool,
    into: memoryview | None,
    slot_bytes: int,
    max_messages: int,
    max_bytes: int,
    deadline_s: float,
    out: list[Any],
    cut: list[int],
    /,
) -> int | None: ...
def send_datagrams(
    sock: socket.socket, family: int, segment: bool, messages: Sequence[Any], deadline_s: float, /
) -> int: ...

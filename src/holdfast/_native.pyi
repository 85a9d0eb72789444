import socket

DEADLINE: int
WOKEN: int

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

"""What docs/reference/hold/flags.md says of Linux is so, on real sockets."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ECONNRESET
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_WAITALL

import pytest

from holdfast import Connection, ConnectionLost, ConnectionReset, DeadlineExceeded, recv
from holdfast.linux import states

Pair = tuple[socket.socket, socket.socket]
LOOK = MSG_PEEK | MSG_DONTWAIT


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with near, far:
        yield near, far


def state(near: socket.socket) -> str:
    """The kernel's, asked without taking an error."""
    return states.name(near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


def reset(near: socket.socket, far: socket.socket) -> None:
    """The far end sends a RST; it has arrived on return."""
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    await_state(near, "CLOSED")


def end(near: socket.socket, far: socket.socket) -> None:
    """The far end sends a FIN; it has arrived on return."""
    far.close()
    await_state(near, "CLOSE_WAIT")


def await_state(near: socket.socket, wanted: str) -> None:
    limit_s = time.monotonic() + 10
    while state(near) != wanted and time.monotonic() < limit_s:
        time.sleep(0.001)
    assert state(near) == wanted


@contextmanager
def alarm(handler: Callable[[], object], restart: bool) -> Iterator[None]:
    """A signal soon, and again and again, lest it come before the wait."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("restart", [False, True], ids=["", "SA_RESTART"])
def test_waitall_returns_short_at_a_signal(pair: Pair, restart: bool) -> None:
    near, far = pair
    far.sendall(b"abc")
    with alarm(lambda: None, restart):
        assert near.recv(10, MSG_WAITALL) == b"abc"


@pytest.mark.parametrize("restart", [False, True], ids=["", "SA_RESTART"])
def test_recv_exactly_serves_the_signal_and_goes_on(pair: Pair, restart: bool) -> None:
    near, far = pair
    far.sendall(b"abc")
    rest = iter([b"", b"defg", b"hij"])
    with alarm(lambda: far.sendall(next(rest, b"")), restart):
        assert Connection(near).recv_exactly(10, deadline=time.monotonic() + 5) == b"abcdefghij"


def test_waitall_returns_short_at_a_reset_and_the_error_comes_next_and_then_an_end(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"abc")
    reset(near, far)
    assert near.recv(10, MSG_WAITALL) == b"abc"
    with pytest.raises(ConnectionResetError):
        near.recv(10, MSG_WAITALL)
    assert near.recv(10, MSG_WAITALL) == b""


def test_recv_exactly_tells_the_reset_at_once_and_keeps_what_came(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near)
    far.sendall(b"abc")
    reset(near, far)
    with pytest.raises(ConnectionReset) as caught:
        connection.recv_exactly(10)
    assert caught.value.partial == connection.recv(10) == b"abc"
    with pytest.raises(ConnectionReset):
        connection.recv(10)


def test_waitall_returns_short_at_the_end_of_the_stream(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"abc")
    end(near, far)
    assert near.recv(10, MSG_WAITALL) == b"abc"


def test_waitall_returns_short_when_the_sockets_own_timeout_is_over(pair: Pair) -> None:
    near, far = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20_000))
    far.sendall(b"abc")
    assert near.recv(10, MSG_WAITALL) == b"abc"


def test_dontwait_wins_over_waitall(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"abc")
    assert near.recv(10, MSG_WAITALL | MSG_DONTWAIT) == b"abc"


def test_dontwait_is_for_one_call_and_says_eagain(pair: Pair) -> None:
    near, _ = pair
    with pytest.raises(BlockingIOError):
        near.recv(10, MSG_DONTWAIT)
    assert near.getblocking()
    with pytest.raises(DeadlineExceeded):
        recv(near, 10, deadline=0)
    assert near.getblocking()


def test_python_waits_before_a_call_with_dontwait_if_the_socket_has_a_timeout(pair: Pair) -> None:
    near, _ = pair
    near.settimeout(0.02)
    with pytest.raises(TimeoutError):
        near.recv(10, MSG_DONTWAIT)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        recv(near, 10, deadline=0)
    assert time.monotonic() - began < 0.02


BROKEN_PIPE = """
import signal, socket, sys
from holdfast import Connection, ConnectionLost

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in a program in C
near, far = socket.socketpair()
far.close()
how = sys.argv[1]
try:
    if how == "recv":
        near.recv(1)
    elif how == "Holdfast":
        Connection(near).sendall(b"x")
    else:
        near.send(b"x", socket.MSG_NOSIGNAL if how == "nosignal" else 0)
except (BrokenPipeError, ConnectionLost) as error:
    print(type(error).__name__)
print("alive")
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("send", -signal.SIGPIPE, []),
        ("nosignal", 0, ["BrokenPipeError", "alive"]),
        ("Holdfast", 0, ["ConnectionClosed", "alive"]),
        ("recv", 0, ["alive"]),
    ],
)
def test_who_dies_of_sigpipe(how: str, code: int, said: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN_PIPE, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the log of the loss
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout.split()) == (code, said)


def test_python_ignores_sigpipe_from_its_start() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    assert answer.stdout == b"True\n"


def test_recv_takes_nosignal_and_does_the_same(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"abc")
    assert near.recv(2, MSG_NOSIGNAL) == b"ab"
    reset(near, far)
    assert near.recv(2, MSG_NOSIGNAL) == b"c"
    with pytest.raises(ConnectionResetError):
        near.recv(2, MSG_NOSIGNAL)


def test_peek_takes_the_error_and_the_next_recv_shows_an_end(pair: Pair) -> None:
    near, far = pair
    reset(near, far)
    with pytest.raises(ConnectionResetError):
        near.recv(1, LOOK)
    assert near.recv(1) == b""


def test_so_error_takes_the_error_too(pair: Pair) -> None:
    near, far = pair
    reset(near, far)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == ECONNRESET
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert near.recv(1) == b""


def test_the_peek_of_a_connection_takes_no_error(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near)
    reset(near, far)
    assert [connection.peek(1), connection.peek(1)] == [b"", b""]
    for _ in range(2):
        with pytest.raises(ConnectionLost) as caught:
            connection.recv(1)
        assert caught.value.errno == ECONNRESET


@pytest.mark.parametrize("finish", [reset, end], ids=["RST", "FIN"])
def test_peek_does_not_see_the_end_behind_a_byte(
    pair: Pair, finish: Callable[[socket.socket, socket.socket], None]
) -> None:
    near, far = pair
    far.sendall(b"x")
    finish(near, far)
    assert [near.recv(9, LOOK) for _ in range(3)] == [b"x"] * 3


def test_peek_at_a_silent_peer_says_only_that_nothing_came(pair: Pair) -> None:
    near, _ = pair
    with pytest.raises(BlockingIOError):
        near.recv(1, LOOK)

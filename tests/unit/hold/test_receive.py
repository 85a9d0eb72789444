# SPDX-License-Identifier: Apache-2.0
"""The functions on an ordinary socket, with the C extension, half of it and without it."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from conformance.drivers import Certificate, handshaking, leave_on_the_error_queue, reset, tcp_pair, unix_pair

from holdfast import _native
from holdfast.errors import ConnectionLost, ConnectionReset, DeadlineExceeded, Truncated, UsageError
from holdfast.hold import portable, receive
from holdfast.hold.receive import sendall


@pytest.fixture(params=["front", "native", "portable"], autouse=True)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled front; the Python function behind it, on compiled calls; and on portable ones."""
    name: str = request.param
    if name != "front":
        monkeypatch.setattr(receive, "calls", _native if name == "native" else portable)
        monkeypatch.setattr(receive, "recv", inspect.unwrap(receive.recv))
        monkeypatch.setattr(receive, "recv_into", inspect.unwrap(receive.recv_into))
    return name


def recv(sock: socket.socket, n: int, **named: float | None) -> bytes:
    return receive.recv(sock, n, **named)


def recv_into(sock: socket.socket, buffer: bytearray | memoryview, **named: float | None) -> int:
    return receive.recv_into(sock, buffer, **named)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = tcp_pair()
    yield near, far
    near.close()
    far.close()


Pair = tuple[socket.socket, socket.socket]


def test_data_an_empty_request_and_the_end(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"hello")
    assert [recv(near, 0), recv(near, 4), recv(near, 9)] == [b"", b"hell", b"o"]
    far.close()
    assert [recv(near, 9), recv(near, 9)] == [b"", b""]


def test_into_a_buffer_and_into_an_empty_one(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"hello")
    buffer = bytearray(8)
    assert recv_into(near, bytearray()) == 0
    assert (recv_into(near, memoryview(buffer)[2:]), buffer) == (5, bytearray(b"\0\0hello\0"))


def test_nothing_is_not_waited_for() -> None:
    """The kernel would, on a Unix socket."""
    near, far = unix_pair()
    assert (recv(near, 0), recv_into(near, bytearray())) == (b"", 0)
    near.close()
    far.close()
    for call in (lambda: recv(near, 0), lambda: recv_into(near, bytearray())):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("timeout", [None, 0.0, 30.0])
def test_the_deadline_governs_whatever_mode_the_socket_has(pair: Pair, timeout: float | None) -> None:
    near, _ = pair
    near.settimeout(timeout)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        recv(near, 9, deadline=began + 0.05)
    assert 0.05 <= time.monotonic() - began < 5
    assert (near.gettimeout(), caught.value.errno) == (timeout, None)


def test_a_deadline_is_exact(pair: Pair) -> None:
    """Never early, and within 5 ms whenever the machine lets us run: the best of twenty tries."""
    near, _ = pair
    late_s = []
    for _ in range(20):
        deadline = time.monotonic() + 0.02
        with pytest.raises(DeadlineExceeded):
            recv(near, 9, deadline=deadline)
        late_s.append(time.monotonic() - deadline)
    assert min(late_s) >= 0
    assert min(late_s) < 0.005


def test_without_a_deadline_the_sockets_own_timeout_holds(pair: Pair) -> None:
    near, _ = pair
    near.settimeout(0.05)
    with pytest.raises(DeadlineExceeded):
        recv(near, 9)
    near.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        recv(near, 9)


def test_a_deadline_in_the_past_takes_what_is_there(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"here")
    assert recv(near, 9, deadline=0.0) == b"here"
    with pytest.raises(DeadlineExceeded):
        recv(near, 9, deadline=0.0)


def test_nonsense_is_refused_even_if_data_waits(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"data")
    nan = float("nan")
    for call in (lambda: recv(near, 9, deadline=nan), lambda: recv_into(near, bytearray(9), deadline=nan),
                 lambda: sendall(near, b"x", deadline=nan)):  # fmt: skip
        with pytest.raises(UsageError, match=r"^the deadline is nan; give seconds of time.monotonic\(\)"):
            call()
    with pytest.raises(UsageError, match=r"^-1 bytes were asked for; ask for 0 or more$"):
        recv(near, -1)
    with pytest.raises(TypeError):
        recv(near, 2.0)  # type: ignore[arg-type]
    assert recv(near, 9) == b"data"


def test_a_storm_of_signals_neither_ends_nor_prolongs_a_wait(pair: Pair) -> None:
    near, far = pair
    hits = []
    before = signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            recv(near, 9, deadline=began + 0.1)
        assert 0.1 <= time.monotonic() - began < 5
        threading.Timer(0.05, far.sendall, [b"data"]).start()
        assert recv(near, 9, deadline=time.monotonic() + 10) == b"data"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(hits) > 5


def test_what_a_signal_handler_raises_goes_up(pair: Pair) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            recv(pair[0], 9, deadline=time.monotonic() + 10)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_that_another_thread_took_is_served_while_this_one_waits(pair: Pair) -> None:
    """The kernel may give it to any thread; Python runs the handler in the main one."""
    near, far = pair
    before = signal.signal(signal.SIGUSR1, lambda *_: far.sendall(b"served"))
    threading.Timer(0.02, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).start()
    try:
        assert recv(near, 9, deadline=time.monotonic() + 5) == b"served"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_unread_error_queue_neither_ends_a_wait_nor_spins(pair: Pair) -> None:
    near, far = pair
    leave_on_the_error_queue(near)
    began, busy = time.monotonic(), time.thread_time()
    with pytest.raises(DeadlineExceeded):
        recv(near, 9, deadline=began + 0.2)
    with pytest.raises(DeadlineExceeded):
        sendall(near, bytes(16 << 20), deadline=time.monotonic() + 0.2)
    assert 0.4 <= time.monotonic() - began < 5
    assert time.thread_time() - busy < 0.1
    threading.Timer(0.05, far.sendall, [b"data"]).start()
    assert recv(near, 9, deadline=time.monotonic() + 10) == b"data"


def test_a_signal_is_served_in_spite_of_an_unread_error_queue(pair: Pair) -> None:
    leave_on_the_error_queue(pair[0])
    test_what_a_signal_handler_raises_goes_up(pair)


def test_a_socket_that_another_thread_closes_is_noticed(pair: Pair) -> None:
    near, _ = pair
    threading.Timer(0.05, near.close).start()
    with pytest.raises(OSError) as caught:
        recv(near, 9, deadline=time.monotonic() + 10)
    assert caught.value.errno == errno.EBADF


def test_a_handler_that_closes_the_socket_is_noticed_too(pair: Pair) -> None:
    near, _ = pair
    before = signal.signal(signal.SIGALRM, lambda *_: near.close())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(OSError) as caught:
            recv(near, 9, deadline=time.monotonic() + 10)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught.value.errno == errno.EBADF


def test_queued_data_comes_first_and_the_reset_once(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"last words")
    reset(far)
    time.sleep(0.02)
    assert recv(near, 99) == b"last words"
    with pytest.raises(ConnectionReset) as caught:
        recv(near, 99)
    assert caught.value.errno == errno.ECONNRESET
    assert recv(near, 99) == b""  # why there is a Connection: these functions do not remember


def test_all_is_sent_in_pieces(pair: Pair) -> None:
    near, far = pair
    data = os.urandom(4 << 20)
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(far.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    sendall(near, memoryview(data).cast("B", (2, 2 << 20)), deadline=time.monotonic() + 20)
    reader.join(20)
    assert bytes(received) == data


def test_a_send_out_of_time_says_how_far_it_came() -> None:
    near, far = unix_pair()
    with pytest.raises(DeadlineExceeded) as caught:
        sendall(near, bytes(8 << 20), deadline=time.monotonic() + 0.05)
    sent, got = caught.value.sent_bytes, 0
    near.close()
    while data := far.recv(1 << 20):
        got += len(data)
    far.close()
    assert got == sent > 0


def test_what_was_given_may_be_resized_while_the_error_is_handled() -> None:
    near, far = unix_pair()
    data = bytearray(8 << 20)
    try:
        sendall(near, data, deadline=time.monotonic() + 0.05)
    except DeadlineExceeded as error:
        del data[: error.sent_bytes]
    assert 0 < len(data) < 8 << 20
    far.close()
    try:
        sendall(near, data)
    except ConnectionLost:
        data.clear()
    assert not data
    near.close()


def test_a_send_that_may_not_wait_says_how_far_it_came() -> None:
    near, far = unix_pair()
    near.setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        sendall(near, bytes(8 << 20))
    assert caught.value.characters_written > 0
    near.close()
    far.close()


def test_a_sockets_own_timeout_is_for_the_whole_send() -> None:
    near, far = unix_pair()
    near.settimeout(0.1)
    reader = threading.Timer(0.05, lambda: [far.recv(1 << 14) for _ in range(3)])
    reader.start()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        sendall(near, bytes(8 << 20))
    assert time.monotonic() - began < 5
    reader.join()
    near.close()
    far.close()


def test_no_sigpipe(pair: Pair) -> None:
    """Python ignores it; a program that embeds Python may not."""
    near, _ = pair
    near.shutdown(socket.SHUT_WR)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(BrokenPipeError):
            sendall(near, b"x")
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_tls_without_a_connection(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> None:
    certificate = Certificate(tmp_path_factory.mktemp("certificate"))
    near, far = pair
    with handshaking(certificate, far) as made:
        near = certificate.client.wrap_socket(near, server_hostname="localhost")
    sendall(near, b"question")
    assert made[0].recv(99) == b"question"
    made[0].sendall(b"answer")
    soon = time.monotonic() + 9
    assert [recv(near, 0), recv(near, 2, deadline=soon), recv(near, 9)] == [b"", b"an", b"swer"]
    with pytest.raises(DeadlineExceeded):
        recv(near, 9, deadline=time.monotonic() + 0.02)
    assert (near.gettimeout(), near.suppress_ragged_eofs) == (None, True)  # type: ignore[attr-defined]
    socket.socket.close(made[0])
    with pytest.raises(Truncated):
        recv(near, 9)
    near.close()

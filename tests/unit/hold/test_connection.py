# SPDX-License-Identifier: Apache-2.0
"""What a blocking connection adds to the stream that every driver gives: threads, and a memory of its own."""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import socket
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from conformance.drivers import reset, tcp_pair
from unit.hold.held import Pair, held_pair, soon

import holdfast.hold.portable
from holdfast.errors import (
    Cancelled,
    ConnectionClosed,
    ConnectionLost,
    ConnectionReset,
    DeadlineExceeded,
    Truncated,
    UsageError,
)
from holdfast.hold.connection import Connection
from holdfast.hold.loss import unread_bytes


@pytest.fixture
def pair() -> Iterator[Pair]:
    with held_pair() as made:
        yield made


def waits(one: threading.Thread) -> None:
    """Give the other thread time to reach its wait."""
    one.start()
    time.sleep(0.05)


def in_thread(call: object) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            raised.append(error)

    thread = threading.Thread(target=run)
    waits(thread)
    return thread, raised


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_another_thread_ends_the_wait_and_nothing_is_lost(pair: Pair, end: str) -> None:
    near, far = pair
    far.sendall(b"part")
    thread, raised = in_thread(lambda: near.recv_exactly(9, deadline=soon()))
    getattr(near, end)()
    thread.join(10)
    assert [type(error) for error in raised] == [Cancelled]
    assert isinstance(raised[0], Cancelled) and raised[0].partial == b"part"
    if end == "cancel":
        assert near.recv(9) == b"part"
        with pytest.raises(Cancelled):
            near.recv(9)


def test_a_cancelled_send_says_how_far_it_came(pair: Pair) -> None:
    near, far = pair
    thread, raised = in_thread(lambda: near.sendall(bytes(64 << 20)))
    near.cancel()
    thread.join(10)
    assert isinstance(raised[0], Cancelled)
    assert raised[0].sent_bytes == near.counters.bytes_sent > 0
    far.close()


def test_two_threads_in_one_direction_are_refused(pair: Pair) -> None:
    near, far = pair
    thread, raised = in_thread(lambda: near.recv_exactly(3, deadline=soon()))
    with pytest.raises(UsageError, match="another thread is receiving"):
        near.recv(1)
    near.sendall(b"the other direction is free")
    far.sendall(b"end")
    thread.join(10)
    assert raised == []


def test_both_directions_at_once(pair: Pair) -> None:
    near, far = pair
    data = os.urandom(4 << 20)

    def echo() -> None:
        left = len(data)
        while left:
            chunk = far.recv(1 << 16)
            far.sendall(chunk)
            left -= len(chunk)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(echo)
        pool.submit(near.sendall, data)
        assert near.recv_exactly(len(data), deadline=soon(20)) == data


def test_a_mistake_of_the_caller_is_no_end_of_the_connection(pair: Pair) -> None:
    near, far = pair
    with pytest.raises((TypeError, BufferError)):
        near.recv_into(b"read only")  # type: ignore[arg-type]
    far.sendall(b"fine")
    assert (near.recv(9), near.error) == (b"fine", None)


def test_a_socket_that_is_not_connected_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(UsageError, match="not connected"):
        Connection(sock)


def test_a_datagram_socket_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(UsageError, match="stream"):
        Connection(sock)


def test_a_negative_length_is_refused(pair: Pair) -> None:
    with pytest.raises(UsageError):
        pair[0].recv_exactly(-1)


def test_an_announced_length_costs_no_memory(pair: Pair) -> None:
    """A peer may announce any length; what is held grows with what it really sends."""
    near, far = pair
    far.sendall(b"x" * 1000)
    with pytest.raises(DeadlineExceeded):
        near.recv_exactly(1 << 40, deadline=soon(0.05))
    assert near._inbox.capacity_bytes <= 1 << 17


def test_the_latched_error_keeps_no_growing_traceback(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"unread")
    reset(far)
    lengths = []
    for _ in range(3):
        with pytest.raises(ConnectionReset) as caught:
            near.recv(1)
        lengths.append(len(caught.traceback))
    assert len(set(lengths[1:])) == 1


def test_descriptors_are_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        near, far = tcp_pair()
        with Connection(near), far:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_socket_that_was_reset_before_it_is_wrapped_still_gives_its_data() -> None:
    near, far = tcp_pair()
    far.sendall(b"hasty")
    time.sleep(0.02)
    reset(far)
    time.sleep(0.02)
    with Connection(near) as held:
        assert (held.peer, held.recv(9)) == (None, b"hasty")
        with pytest.raises(ConnectionReset):
            held.recv(9)


def test_the_error_of_an_earlier_call_does_not_change(pair: Pair) -> None:
    near, far = pair
    far.close()
    first = None
    while first is None:
        try:
            near.sendall(bytes(1 << 20))
        except ConnectionLost as error:
            first = error
    sent = first.sent_bytes
    with pytest.raises(ConnectionLost) as caught:
        near.recv(1)
    assert (first.sent_bytes, caught.value.sent_bytes, caught.value.loss) == (sent, 0, first.loss)


def test_a_handler_that_closes_what_it_interrupts(pair: Pair) -> None:
    near, _ = pair
    before = signal.signal(signal.SIGALRM, lambda *_: near.close())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(Cancelled):
            near.recv(9, deadline=soon())
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_connection_that_is_dropped_gives_its_descriptors_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        near, far = socket.socketpair()
        Connection(near)
        near.close()
        far.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("portable", [False, True])
def test_a_buffer_can_be_resized_after_an_error(pair: Pair, portable: bool) -> None:
    """Its traceback is still there, and must not hold a view."""
    near, _ = pair
    if portable:
        near._calls = holdfast.hold.portable
    data, room = bytearray(32 << 20), bytearray(9)
    try:
        near.sendall(data, deadline=soon(0.05))
    except DeadlineExceeded as error:
        del data[: error.sent_bytes]
        assert 0 < len(data) < 32 << 20
    try:
        near.recv_into(room, deadline=soon(-1))
    except DeadlineExceeded:
        room.extend(b"more")
    assert len(room) == 13


class Endless:
    """Calls that always find something, and always have room."""

    def receive_into(self, sock: socket.socket, buffer: memoryview, *_: object) -> int:
        return min(len(buffer), 1000)

    def send_from(self, sock: socket.socket, buffer: memoryview, *_: object) -> int:
        return min(len(buffer), 1000)


def test_a_deadline_ends_a_stream_of_data_that_never_pauses(pair: Pair) -> None:
    near, _ = pair
    near._calls = Endless()  # type: ignore[assignment]
    began_s = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        near.recv_until(b"no such thing", 1 << 40, deadline=soon(0.05))
    assert len(caught.value.partial) > 1000
    with pytest.raises(DeadlineExceeded) as caught:
        near.sendall(bytes(1 << 30), deadline=soon(0.05))
    assert 1000 < caught.value.sent_bytes < 1 << 30
    assert time.monotonic() - began_s < 2


def test_a_deadline_in_the_past_takes_a_frame_that_is_there_in_pieces() -> None:
    """More than one read brings."""
    near, far = socket.socketpair()
    with far, Connection(near) as held:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        far.settimeout(5)
        far.sendall(bytes(100_000))
        assert len(held.recv_exactly(100_000, deadline=soon(-1))) == 100_000


def test_what_came_is_copied_only_if_somebody_looks(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"part")
    time.sleep(0.02)
    for look in (lambda error: error.partial, lambda error: pickle.loads(pickle.dumps(error)).partial):
        with pytest.raises(DeadlineExceeded) as caught:
            near.recv_exactly(9, deadline=soon(-1))
        assert callable(vars(caught.value)["_partial"])
        assert look(caught.value) == b"part"
    near.close()
    with pytest.raises(UsageError):
        near.recv(1)
    assert caught.value.partial == b"part"


def test_the_first_error_keeps_nothing_of_its_caller(pair: Pair) -> None:
    near, far = pair

    class Big:
        pass

    def use() -> weakref.ref[Big]:
        big = Big()
        with suppress(ConnectionReset):
            near.recv(1)
        return weakref.ref(big)

    reset(far)
    left = use()
    gc.collect()
    assert isinstance(near.error, ConnectionReset) and left() is None


def test_a_long_message_that_is_all_there_is_not_copied_through_the_inbox(pair: Pair) -> None:
    near, far = pair
    message = bytes(range(256)) * 256
    far.sendall(message)
    while unread_bytes(near.sock) < len(message):
        pass
    tracemalloc.start()
    received = near.recv_exactly(len(message))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert received == message and peak_bytes < 3 * len(message) // 2


def test_a_long_delimiter_makes_no_long_sentence(pair: Pair) -> None:
    near, far = pair
    far.close()
    with pytest.raises(Truncated) as caught:
        near.recv_until(b"x" * 1_000_000, 1 << 30)
    assert str(caught.value).endswith("... of 1000000 bytes.") and len(str(caught.value)) < 200


def test_who_shuts_the_socket_itself_is_told_so_and_the_peer_is_not_blamed(pair: Pair) -> None:
    near, far = pair
    near.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionClosed) as caught:
        near.sendall(b"too late")
    assert caught.value.cause == "written_after_close"
    far.sendall(b"answer")
    assert near.recv_exactly(6) == b"answer"


@pytest.mark.parametrize("waiting", [b"", b"something"])
@pytest.mark.parametrize("call", ["recv", "recv_exactly"])
def test_a_deadline_that_is_no_number_is_refused(pair: Pair, call: str, waiting: bytes) -> None:
    near, far = pair
    far.sendall(waiting + b"\n")
    near.recv_until(b"\n" if not waiting else b"s", 99)
    with pytest.raises(UsageError, match="the deadline is nan"):
        getattr(near, call)(1, deadline=math.nan)
    with pytest.raises(UsageError, match="the deadline is nan"):
        near.sendall(b"x", deadline=math.nan)


def test_a_negative_size_is_refused_by_every_call(pair: Pair) -> None:
    near, _ = pair
    for call in (near.recv, near.recv_exactly, near.peek):
        with pytest.raises(UsageError):
            call(-1)

# SPDX-License-Identifier: Apache-2.0
"""One stream, whatever carries it: the same bytes, the same errors, on every driver."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import ECONNRESET, EPIPE
from typing import Any

import pytest
from conformance.drivers import Certificate, Drivers, End, reset

from holdfast.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnectionReset,
    DeadlineExceeded,
    LimitExceeded,
    Truncated,
    UsageError,
)
from holdfast.hold.tls import TlsError

BIG = bytes(range(256)) * (1 << 15)  # 8 MiB: more than a socket buffer holds here


@dataclass
class Pair:
    """Both ends of one connection."""

    near: End
    far: socket.socket
    name: str


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    drivers = Drivers(Certificate(tmp_path_factory.mktemp("certificate")))
    yield drivers
    drivers.close()


@pytest.fixture(params=Drivers.NAMES)
def pair(request: pytest.FixtureRequest, drivers: Drivers) -> Iterator[Pair]:
    raw = drivers.sockets(request.param)
    near, far = drivers.pair(request.param, *raw)
    yield Pair(near, far, request.param)
    far.close()
    near.close()


TLS = [name for name in Drivers.NAMES if "tls" in name]
PLAIN = [name for name in Drivers.NAMES if name not in TLS]


def only(names: list[str]) -> pytest.MarkDecorator:
    """For what only these drivers can do."""
    return pytest.mark.parametrize("pair", names, indirect=True)


def soon(seconds: float = 0.05) -> float:
    return time.monotonic() + seconds


def settle(near: End, size: int) -> None:
    """Wait until so many bytes have come."""
    limit = soon(10)
    while len(near.peek(size)) < size and time.monotonic() < limit:
        time.sleep(0.001)
    assert len(near.peek(size)) == size


def test_what_came_is_received(pair: Pair) -> None:
    pair.far.sendall(b"hello")
    assert pair.near.recv(100) == b"hello"


def test_no_more_than_asked_for(pair: Pair) -> None:
    pair.far.sendall(b"hello")
    assert [pair.near.recv_exactly(2), pair.near.recv(1)] == [b"he", b"l"]


def test_zero_bytes_are_nothing_even_if_data_waits(pair: Pair) -> None:
    pair.far.sendall(b"hello")
    assert pair.near.recv(0) == b""
    assert pair.near.recv_exactly(0) == b""
    assert pair.near.recv_exactly(5) == b"hello"


def end(pair: Pair) -> None:
    """The far end closes in good order."""
    if isinstance(pair.far, ssl.SSLSocket):
        pair.far.settimeout(0.0)
        with suppress(ssl.SSLWantReadError):
            pair.far.unwrap()
    pair.far.close()


def test_the_end_stays_the_end(pair: Pair) -> None:
    pair.far.sendall(b"bye")
    end(pair)
    assert [pair.near.recv_exactly(3), pair.near.recv(9), pair.near.recv(9)] == [b"bye", b"", b""]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_split_of_a_frame_gives_the_same_frame(pair: Pair, size: int) -> None:
    frame = b"0123456789\r\nabc"
    for at in range(0, len(frame), size):
        pair.far.sendall(frame[at : at + size])
        time.sleep(0.001)
    assert pair.near.recv_until(b"\r\n", 64) == b"0123456789\r\n"
    assert pair.near.recv_exactly(3) == b"abc"


@pytest.mark.parametrize("size", [(1 << 15) + 1, 1 << 16, (1 << 16) + 1])
def test_a_long_message_comes_whole_however_it_is_cut(pair: Pair, size: int) -> None:
    message = BIG[5 : 5 + size]
    with pytest.raises(DeadlineExceeded):
        pair.near.recv_exactly(size, deadline=0.0)
    pair.far.sendall(message + message[:1000])
    assert pair.near.recv_exactly(size) == message
    with pytest.raises(DeadlineExceeded) as caught:
        pair.near.recv_exactly(size, deadline=soon())
    assert caught.value.partial == message[:1000]
    pair.far.sendall(message[1000:] + message[:1000])
    assert [pair.near.recv_exactly(size), pair.near.recv_exactly(1000)] == [message, message[:1000]]
    pair.far.sendall(message[:-1])
    end(pair)
    with pytest.raises(Truncated) as cut:
        pair.near.recv_exactly(size)
    assert cut.value.partial == message[:-1] == pair.near.recv_exactly(size - 1)


def test_a_stream_that_ends_inside_a_frame_is_truncated_and_keeps_its_bytes(pair: Pair) -> None:
    pair.far.sendall(b"abc")
    end(pair)
    with pytest.raises(Truncated) as caught:
        pair.near.recv_exactly(10)
    assert caught.value.partial == b"abc"
    with pytest.raises(Truncated) as caught:
        pair.near.recv_until(b"\n", 10)
    assert caught.value.partial == b"abc"
    assert pair.near.recv(10) == b"abc"


def test_an_end_between_frames_is_truncated_with_nothing(pair: Pair) -> None:
    end(pair)
    with pytest.raises(Truncated) as caught:
        pair.near.recv_exactly(10)
    assert caught.value.partial == b""


def test_bytes_past_the_delimiter_stay(pair: Pair) -> None:
    pair.far.sendall(b"one\ntwo\nrest")
    assert [pair.near.recv_until(b"\n", 10) for _ in range(2)] == [b"one\n", b"two\n"]
    assert pair.near.recv(10) == b"rest"


def test_a_frame_over_its_limit_is_refused_and_stays(pair: Pair) -> None:
    pair.far.sendall(b"0123456789\n")
    settle(pair.near, 11)
    with pytest.raises(LimitExceeded) as caught:
        pair.near.recv_until(b"\n", 10)
    assert caught.value.partial == b"0123456789"
    assert pair.near.recv_until(b"\n", 11) == b"0123456789\n"


def test_a_deadline_loses_nothing(pair: Pair) -> None:
    pair.far.sendall(b"half")
    with pytest.raises(DeadlineExceeded) as caught:
        pair.near.recv_exactly(8, deadline=soon())
    assert (caught.value.partial, caught.value.errno) == (b"half", None)
    pair.far.sendall(b"more")
    assert pair.near.recv_exactly(8, deadline=soon(5)) == b"halfmore"


def test_a_deadline_in_the_past_takes_what_is_there(pair: Pair) -> None:
    with pytest.raises(DeadlineExceeded):
        pair.near.recv(10, deadline=soon(-1))
    pair.far.sendall(b"here")
    time.sleep(0.05)
    assert pair.near.recv(10, deadline=soon(-1)) == b"here"


def test_data_comes_before_the_reset_that_followed_it(pair: Pair) -> None:
    if "unix" in pair.name:
        pair.near.sendall(b"unread")  # leaving it unread is how a Unix socket resets
    pair.far.sendall(b"last words")
    reset(pair.far)
    time.sleep(0.05)
    received = b""
    with pytest.raises(ConnectionReset) as caught:
        while True:
            data = pair.near.recv(4)
            assert data, "an end of stream where there was a reset"
            received += data
    assert received == b"last words"
    assert caught.value.errno == ECONNRESET


def test_a_reset_is_told_again_and_never_as_an_end(pair: Pair) -> None:
    pair.near.sendall(b"unread")
    reset(pair.far)
    first = None
    for call in (
        lambda: pair.near.recv(9),
        lambda: pair.near.recv_exactly(9),
        lambda: pair.near.sendall(b"x"),
    ):
        with pytest.raises(ConnectionReset) as caught:
            call()
        first = first or caught.value
        assert caught.value.loss is first.loss


def test_a_reset_inside_a_frame_carries_what_came(pair: Pair) -> None:
    pair.near.sendall(b"unread")
    pair.far.sendall(b"par")
    settle(pair.near, 3)
    reset(pair.far)
    with pytest.raises(ConnectionReset) as caught:
        pair.near.recv_exactly(9)
    assert caught.value.partial == b"par"


def send_until_refused(near: End) -> ConnectionLost:
    limit = soon(10)
    while time.monotonic() < limit:
        try:
            near.sendall(b"x" * 1000)
        except ConnectionLost as error:
            return error
        time.sleep(0.01)
    raise AssertionError("the peer has closed and every send succeeded")


@only([*PLAIN, "tls"])  # asyncio keeps no bytes of a TLS connection that failed while writing
def test_data_is_still_to_be_had_after_a_send_met_the_error(pair: Pair) -> None:
    pair.near.sendall(b"unread")
    pair.far.sendall(b"answer")
    time.sleep(0.02)
    pair.far.close()  # with something unread: a reset follows the answer
    first = send_until_refused(pair.near)
    received = b""
    with pytest.raises(ConnectionLost) as caught:
        while data := pair.near.recv(100):
            received += data
    assert received == b"answer"
    assert caught.value.loss is first.loss


@only(PLAIN)
def test_the_end_of_the_peers_stream_stays_its_end_whatever_a_later_send_meets(pair: Pair) -> None:
    pair.far.sendall(b"bye")
    end(pair)
    assert [pair.near.recv_exactly(3), pair.near.recv(1)] == [b"bye", b""]
    told = send_until_refused(pair.near)
    assert (pair.near.recv(1), told.cause) == (b"", "peer_closed_then_reset")
    with pytest.raises(Truncated):
        pair.near.recv_exactly(1)
    with pytest.raises(ConnectionClosed):
        pair.near.sendall(b"x")


def test_peek_takes_neither_data_nor_errors(pair: Pair) -> None:
    pair.far.sendall(b"look")
    settle(pair.near, 4)
    assert pair.near.peek(2) == b"lo"
    assert pair.near.recv(10) == b"look"
    pair.near.sendall(b"unread")
    reset(pair.far)
    time.sleep(0.05)
    assert [pair.near.peek(1), pair.near.peek(1)] == [b"", b""]
    with pytest.raises(ConnectionReset):
        pair.near.recv(1)


def test_a_send_that_runs_out_of_time_can_go_on_where_it_stopped(pair: Pair) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        pair.near.sendall(BIG, deadline=soon(0.2))
    sent = caught.value.sent_bytes
    assert 0 < sent < len(BIG)
    received = bytearray()

    def read() -> None:
        while len(received) < len(BIG) and (data := pair.far.recv(1 << 20)):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    rest = BIG[sent:]
    while rest:
        try:
            pair.near.sendall(rest, deadline=soon())
            break
        except DeadlineExceeded as error:
            rest = rest[error.sent_bytes :]
    reader.join(20)
    assert bytes(received) == BIG


@only(TLS)
def test_one_direction_of_tls_cannot_be_closed_and_asking_for_it_changes_nothing(pair: Pair) -> None:
    pair.far.sendall(b"under way")
    time.sleep(0.05)
    with pytest.raises(UsageError):
        pair.near.shutdown_write()
    assert pair.near.recv_exactly(9) == b"under way"
    pair.near.sendall(b"question")
    assert pair.far.recv(8) == b"question"
    pair.far.sendall(b"answer")
    assert pair.near.recv_exactly(6) == b"answer"


@only(PLAIN)
def test_one_direction_can_be_closed(pair: Pair) -> None:
    pair.far.sendall(b"under way")
    pair.near.sendall(b"question")
    pair.near.shutdown_write()
    assert [pair.far.recv(8), pair.far.recv(1)] == [b"question", b""]
    pair.far.sendall(b"answer")
    assert pair.near.recv_exactly(15) == b"under wayanswer"


@only(PLAIN)
def test_writing_after_ones_own_end_is_told_and_receiving_goes_on(pair: Pair) -> None:
    pair.near.shutdown_write()
    with pytest.raises(ConnectionClosed) as caught:
        pair.near.sendall(b"too late")
    assert (caught.value.errno, caught.value.cause) == (EPIPE, "written_after_close")
    pair.far.sendall(b"answer")
    assert pair.near.recv_exactly(6) == b"answer"


def counted(pair: Pair) -> tuple[int, int, int]:
    """What a reset says of the bytes that were sent: so many arrived, may have arrived, did not."""
    reset(pair.far)
    with pytest.raises(ConnectionReset) as caught:
        pair.near.recv(1)
    error = caught.value
    assert error.acked_bytes is not None
    assert error.unacked_bytes is not None
    assert error.unsent_bytes is not None
    return error.acked_bytes, error.unacked_bytes, error.unsent_bytes


@only([name for name in PLAIN if "unix" not in name])
def test_the_end_that_was_sent_is_not_counted_among_the_bytes_at_risk(pair: Pair) -> None:
    """The kernel counts a FIN as one, until it is acknowledged."""
    pair.near.sendall(b"request")
    pair.near.shutdown_write()
    assert counted(pair) in ((7, 0, 0), (0, 7, 0))  # all in one segment


@only(["tcp", "tcp portable"])  # asyncio keeps the FIN, and the rest, until the kernel has room
@pytest.mark.parametrize("shut", [False, True])
def test_every_byte_of_a_lost_connection_is_counted_once(pair: Pair, shut: bool) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        pair.near.sendall(BIG, deadline=soon())
    if shut:
        pair.near.shutdown_write()
    assert sum(counted(pair)) == caught.value.sent_bytes


def test_a_closed_end_is_not_used_again(pair: Pair) -> None:
    pair.near.close()
    calls: list[Any] = [lambda: pair.near.recv(1), lambda: pair.near.sendall(b"x")]
    for call in calls:
        with pytest.raises(UsageError):
            call()
    pair.near.close()


def test_the_peer_is_known_after_a_reset(pair: Pair) -> None:
    pair.near.sendall(b"unread")
    name = pair.far.getsockname() if "unix" not in pair.name else None
    reset(pair.far)
    with pytest.raises(ConnectionReset) as caught:
        pair.near.recv(1)
    assert caught.value.peer == (name and f"{name[0]}:{name[1]}")


def test_what_went_through_is_counted(pair: Pair) -> None:
    pair.near.sendall(b"12345")
    pair.far.sendall(b"123")
    pair.near.recv_exactly(3)
    counters = pair.near.counters
    assert (counters.bytes_sent, counters.bytes_received) == (5, 3)


def test_nothing_is_read_that_nobody_takes(pair: Pair) -> None:
    """The peer is stopped by a full window: memory here is bounded."""
    pair.far.settimeout(0.2)
    sent = 0
    with suppress(TimeoutError, ssl.SSLWantWriteError):
        while sent < 64 << 20:
            sent += pair.far.send(b"x" * (1 << 20))
    assert sent < 32 << 20
    pair.far.settimeout(20)


@only(TLS)
def test_a_stream_cut_without_farewell_is_truncated(pair: Pair) -> None:
    """TLS: whoever cuts the TCP connection cannot make it look like the end."""
    pair.far.sendall(b"half")
    assert pair.near.recv_exactly(4) == b"half"
    socket.socket.close(pair.far)
    with pytest.raises(Truncated):
        pair.near.recv(1)
    with pytest.raises(Truncated):
        pair.near.recv_exactly(1)


@only(TLS)
@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x20" + bytes(32)], ids=["plain text", "damaged"]
)
def test_what_is_no_tls_is_told_as_such_by_every_later_call(pair: Pair, garbage: bytes) -> None:
    pair.far.sendall(b"said before")
    settle(pair.near, 11)
    with socket.socket(fileno=pair.far.detach()) as raw:
        raw.sendall(garbage)
        with pytest.raises(TlsError) as caught:
            pair.near.recv_exactly(99, deadline=soon(10))
        assert caught.value.reason and caught.value.partial == b"said before"
        assert pair.near.recv_exactly(11) == b"said before"
        calls: list[Any] = [
            lambda: pair.near.recv(1), lambda: pair.near.sendall(b"x"), lambda: pair.near.recv_until(b"x", 9)
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(TlsError) as later:
                call()
            assert later.value.reason == caught.value.reason

"""Receiving batches: both implementations give what recvfrom gives, and say what is missing."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unit.hold.datagram_pairs import BOTH, KINDS, Ends, ends, refused_port, use

from holdfast.errors import DeadlineExceeded, UsageError
from holdfast.hold.datagrams import DatagramBuffer, enable_gro, recv_batch, send_batch

PAYLOADS = [b"", b"one", bytes(range(256)) * 5, b"x" * 60_000, b"last"]
IP_RECVERR, UDP_SEGMENT, UDP_GRO = 11, 103, 104  # linux/in.h, linux/udp.h


@pytest.fixture(autouse=True, params=BOTH)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


@contextmanager
def alarms(every_s: float, handler: object) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)  # type: ignore[arg-type] # the signature of handlers
    signal.setitimer(signal.ITIMER_REAL, every_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_what_recvfrom_gives_one_by_one(kind: str) -> None:
    with ends(kind) as two:
        for _ in range(2):
            for payload in PAYLOADS:
                two.sender.sendmsg([payload], [], 0, *([two.to] if two.to else []))
        one_by_one = [two.receiver.recvfrom(65535) for _ in PAYLOADS]
        batch = recv_batch(two.receiver, 64, deadline=time.monotonic() + 5)
    assert batch == one_by_one
    assert [data for data, _ in batch] == PAYLOADS
    assert batch.truncated == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_gives_the_same_without_copying(kind: str) -> None:
    with ends(kind) as two:
        for _ in range(2):
            for payload in PAYLOADS:
                two.sender.sendmsg([payload], [], 0, *([two.to] if two.to else []))
        one_by_one = [two.receiver.recvfrom(65535) for _ in PAYLOADS]
        batch = DatagramBuffer(64).recv(two.receiver, deadline=time.monotonic() + 5)
        assert [(bytes(view), address) for view, address in batch] == one_by_one


def test_a_sender_without_a_name_is_none() -> None:
    with ends("unix path") as two, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        nameless.sendto(b"who", two.receiver.getsockname())
        assert recv_batch(two.receiver, 4) == [(b"who", None)]


def test_addresses_are_not_mixed_up_when_many_send() -> None:
    """More senders than the native cache of addresses has places."""
    with ends() as two:
        expected = []
        for number in range(300):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind((f"127.0.{number % 7}.{number % 250 + 1}", 0))
                for _ in range(2):
                    one.sendto(str(number).encode(), two.to)
                    expected.append((str(number).encode(), one.getsockname()))
            if number % 50 == 49:
                assert recv_batch(two.receiver, 1024) == expected
                expected = []


def test_no_more_than_asked_for_and_the_rest_stays() -> None:
    with ends() as two:
        send_batch(two.sender, [(b"%d" % number, two.to) for number in range(150)])
        counts = [len(recv_batch(two.receiver, most)) for most in (1, 3, 100, 1024)]
    assert counts == [1, 3, 100, 46]


def test_what_is_cut_is_noted() -> None:
    with ends() as two:
        send_batch(two.sender, [(data, two.to) for data in (b"1234", b"12345", b"", b"123456", b"1")])
        batch = recv_batch(two.receiver, 64, max_bytes=4)
    assert [data for data, _ in batch] == [b"1234", b"1234", b"", b"1234", b"1"]
    assert batch.truncated == (1, 3)


def test_a_unix_datagram_larger_than_any_of_udp_can_be_had_whole() -> None:
    with ends("unix pair") as two:
        got = []
        for room in (65_535, 65_540, 65_600, 100_000):
            two.sender.send(bytes(65_600))
            batch = recv_batch(two.receiver, 1, max_bytes=room)
            got.append((len(batch[0][0]), batch.truncated))
    assert got == [(65_535, (0,)), (65_540, (0,)), (65_600, ()), (65_600, ())]


# ---- time


def test_a_deadline_in_the_past_still_takes_what_is_there() -> None:
    with ends() as two:
        two.sender.sendto(b"there", two.to)
        assert recv_batch(two.receiver, 4, deadline=-math.inf)[0][0] == b"there"


def test_nothing_in_time_is_a_timeout_and_no_kernel_error() -> None:
    with ends() as two, pytest.raises(DeadlineExceeded) as caught:
        recv_batch(two.receiver, 4, deadline=time.monotonic() + 0.01)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.errno is None


def test_without_a_deadline_the_sockets_own_timeout_counts() -> None:
    with ends() as two:
        two.receiver.settimeout(0.01)
        with pytest.raises(DeadlineExceeded):
            recv_batch(two.receiver, 4)
        two.sender.sendto(b"there", two.to)
        assert len(recv_batch(two.receiver, 4)) == 1


def test_a_non_blocking_socket_does_not_wait_unless_a_deadline_is_given() -> None:
    with ends() as two:
        two.receiver.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            recv_batch(two.receiver, 4)
        assert caught.value.errno == errno.EAGAIN
        threading.Timer(0.02, two.sender.sendto, (b"later", two.to)).start()
        assert recv_batch(two.receiver, 4, deadline=time.monotonic() + 5)[0][0] == b"later"


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_a_blocking_socket_waits_and_keeps_its_mode(timeout_s: float | None) -> None:
    with ends() as two:
        two.receiver.settimeout(timeout_s)
        threading.Timer(0.02, two.sender.sendto, (b"later", two.to)).start()
        assert recv_batch(two.receiver, 4)[0][0] == b"later"
        assert two.receiver.gettimeout() == timeout_s
        assert os.get_blocking(two.receiver.fileno()) is (timeout_s is None)


def test_signals_are_served_and_neither_end_nor_lengthen_the_wait() -> None:
    served = []
    deadline = time.monotonic() + 0.05
    with ends() as two, alarms(0.002, lambda *_: served.append(1)), pytest.raises(DeadlineExceeded):
        recv_batch(two.receiver, 4, deadline=deadline)
    assert time.monotonic() >= deadline
    assert served


def test_what_a_signal_handler_raises_comes_through() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ends() as two, alarms(0.01, interrupt), pytest.raises(KeyboardInterrupt):
        recv_batch(two.receiver, 4, deadline=time.monotonic() + 5)


@pytest.mark.slow
def test_a_socket_that_another_thread_closes_is_noticed_though_its_number_is_in_use_again() -> None:
    with ends() as two, ends() as others:
        others.sender.sendto(b"not ours", others.to)
        fd = two.receiver.fileno()

        def close_and_reuse() -> None:
            two.receiver.close()
            os.dup2(others.receiver.fileno(), fd)

        threading.Timer(0.02, close_and_reuse).start()
        with pytest.raises(OSError, match="Bad file descriptor"):
            recv_batch(two.receiver, 4, deadline=time.monotonic() + 5)
        os.close(fd)


# ---- errors


def test_an_icmp_answer_is_raised_and_what_had_come_follows() -> None:
    with ends("udp4 connected") as two:
        two.sender.send(b"before")
        two.sender.close()
        two.receiver.send(b"nobody")
        with pytest.raises(ConnectionRefusedError):
            recv_batch(two.receiver, 4)
        assert [data for data, _ in recv_batch(two.receiver, 4)] == [b"before"]


def test_an_unread_error_queue_does_not_end_the_wait() -> None:
    """It keeps the socket ready with nothing to receive."""
    with ends() as two:
        two.receiver.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        two.receiver.sendto(b"nobody", refused_port())
        with pytest.raises(ConnectionRefusedError):
            recv_batch(two.receiver, 4)
        threading.Timer(0.02, two.sender.sendto, (b"later", two.to)).start()
        assert recv_batch(two.receiver, 4, deadline=time.monotonic() + 5)[0][0] == b"later"


def test_a_closed_socket_is_ebadf() -> None:
    with ends() as two:
        two.receiver.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            recv_batch(two.receiver, 4)


def test_open_files_that_come_with_a_datagram_are_not_kept() -> None:
    with ends("unix pair") as two:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            socket.send_fds(two.sender, [b"take"], [two.sender.fileno()])
        assert len(recv_batch(two.receiver, 3)) == 3
        assert len(DatagramBuffer(4).recv(two.receiver)) == 2
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("most", "most_bytes", "deadline"),
    [(0, 1, 0.0), (1025, 1, 0.0), (-1, 1, 0.0), (1, 0, 0.0), (1, (1 << 20) + 1, 0.0), (1, 1, math.nan)],
)
def test_numbers_out_of_range_are_refused_and_nothing_is_taken(
    most: int, most_bytes: int, deadline: float
) -> None:
    with ends() as two:
        two.sender.sendto(b"kept", two.to)
        with pytest.raises(UsageError):
            recv_batch(two.receiver, most, max_bytes=most_bytes, deadline=deadline)
        assert two.receiver.recv(10) == b"kept"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_of_another_kind_is_refused(kind: socket.SocketKind) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        for call in (recv_batch, send_batch):
            with pytest.raises(UsageError, match="datagram socket"):
                call(one, 1 if call is recv_batch else [])  # type: ignore[operator] # two signatures


# ---- what the kernel joins


def send_joined(two: Ends, data: bytes, size: int) -> None:
    """By hand, for the portable send_batch does not join."""
    cut = (socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
    two.sender.sendmsg([data], [cut], 0, *([two.to] if two.to else []))


@pytest.mark.parametrize("kind", KINDS[:3])
def test_joined_datagrams_are_divided_again(kind: str) -> None:
    data = bytes(range(250))
    with ends(kind) as two:
        assert enable_gro(two.receiver)
        for receive in (lambda: recv_batch(two.receiver, 64), lambda: DatagramBuffer().recv(two.receiver)):
            send_joined(two, data, 4)
            send_joined(two, data, 100)
            two.sender.sendmsg([b""], [], 0, *([two.to] if two.to else []))
            batch = receive()
            assert [bytes(part) for part, _ in batch] == [
                *(data[at : at + 4] for at in range(0, 250, 4)), data[:100], data[100:200], data[200:], b"",
            ]  # fmt: skip
            assert {address for _, address in batch} == {two.sender.getsockname()}


def test_joined_datagrams_are_cut_one_by_one() -> None:
    with ends() as two:
        enable_gro(two.receiver)
        send_joined(two, b"abcdefghi", 4)
        batch = recv_batch(two.receiver, 1, max_bytes=3)
    assert [data for data, _ in batch] == [b"abc", b"efg", b"i"]
    assert batch.truncated == (0, 1)


def test_joined_datagrams_that_have_no_room_are_counted() -> None:
    with ends() as two:
        enable_gro(two.receiver)
        send_joined(two, b"abcdefghijklm", 4)
        batch = DatagramBuffer(2, 6).recv(two.receiver)
        assert [bytes(view) for view, _ in batch] == [b"abcd", b"ef", b"", b""]
        assert batch.truncated == (1, 2, 3)


def test_other_ancillary_data_does_not_hide_how_datagrams_were_joined() -> None:
    with ends() as two:
        enable_gro(two.receiver)
        for level, option in (
            (socket.SOL_SOCKET, 35),  # SO_TIMESTAMPNS, linux/socket.h
            (socket.SOL_SOCKET, 40),  # SO_RXQ_OVFL
            (socket.IPPROTO_IP, 8),  # IP_PKTINFO, linux/in.h
            (socket.IPPROTO_IP, socket.IP_RECVTOS),
        ):
            two.receiver.setsockopt(level, option, 1)
        send_joined(two, b"abcdefghi", 4)
        assert [data for data, _ in recv_batch(two.receiver, 1)] == [b"abcd", b"efgh", b"i"]


def test_the_kernel_joins_only_where_it_can() -> None:
    with ends("unix pair") as two:
        assert not enable_gro(two.receiver)
    with ends() as two:
        assert enable_gro(two.receiver)
        assert two.receiver.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 1
        assert not enable_gro(two.receiver, on=False)
        assert two.receiver.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 0

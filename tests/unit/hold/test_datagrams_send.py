"""Sending batches: everything arrives once and in order, and an exception says how far it came."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import math
import signal
import socket
import threading
import time

import pytest
from unit.hold.datagram_pairs import BOTH, KINDS, NATIVE, Ends, ends, refused_port, use

from holdfast.errors import DeadlineExceeded, UsageError
from holdfast.hold.datagrams import Address, enable_gro, recv_batch, send_batch

SO_NO_CHECK = 11  # asm-generic/socket.h
TOO_LONG = bytes(65_508)  # the first size that UDP over IPv4 cannot carry


@pytest.fixture(params=BOTH)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


pytestmark = pytest.mark.usefixtures("implementation")


def arrived(two: Ends) -> list[bytes]:
    return [data for data, _ in recv_batch(two.receiver, 1024, deadline=0)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_arrive_once_and_in_order(kind: str) -> None:
    sent = [b"", b"one", b"two", b"three", bytes(60_000), b"x", b"x", b"", b"last"]
    with ends(kind) as two:
        assert send_batch(two.sender, [(data, two.to) for data in sent]) == len(sent)
        assert arrived(two) == sent


@pytest.mark.parametrize("size", [1, 4, 1400, 9000, 20_000])
def test_equal_sizes_arrive_like_all_others(size: int) -> None:
    sent = [bytes([number]) * size for number in range(70)] + [b"!"]
    with ends() as two:
        two.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        assert send_batch(two.sender, [(data, two.to) for data in sent]) == 71
        assert arrived(two) == sent


def test_neighbours_for_other_addresses_go_there() -> None:
    with ends() as one, ends() as two:
        send_batch(one.sender, [(b"1", one.to), (b"2", one.to), (b"3", two.to), (b"4", one.to)])
        assert (arrived(one), arrived(two)) == ([b"1", b"2", b"4"], [b"3"])


def test_a_connected_socket_can_send_to_others_in_between() -> None:
    with ends("udp4 connected") as two, ends() as other:
        send_batch(two.sender, [(b"1", None), (b"2", other.to), (b"3", None), (b"4", None)])
        assert (arrived(two), arrived(other)) == ([b"1", b"3", b"4"], [b"2"])


def test_every_kind_of_buffer_is_taken() -> None:
    sent = [b"bytes", bytearray(b"array"), memoryview(b"a view")[2:]]
    with ends() as two:
        assert send_batch(two.sender, [(data, two.to) for data in sent]) == 3
        assert arrived(two) == [b"bytes", b"array", b"view"]


def test_a_batch_can_be_given_back() -> None:
    with ends() as two:
        send_batch(two.sender, [(b"a", two.to), (b"b", two.to)])
        send_batch(two.receiver, recv_batch(two.receiver, 4))
        assert recv_batch(two.sender, 4) == [(b"a", two.to), (b"b", two.to)]


def test_nothing_to_send_is_nothing_sent() -> None:
    with ends() as two:
        two.sender.setblocking(False)
        assert send_batch(two.sender, []) == 0


def test_a_generator_is_refused_before_anything_is_sent() -> None:
    with ends() as two:
        with pytest.raises(TypeError):
            send_batch(two.sender, ((data, two.to) for data in (b"1", b"2")))  # type: ignore[arg-type] # tested
        two.receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            recv_batch(two.receiver, 4)


# ---- how far it came


def test_an_error_says_how_many_went_before_it() -> None:
    with ends() as two:
        messages = [(b"1", two.to), (b"22", two.to), (TOO_LONG, two.to), (b"4", two.to)]
        with pytest.raises(OSError, match="Message too long") as caught:
            send_batch(two.sender, messages)
        assert caught.value.errno == errno.EMSGSIZE
        assert vars(caught.value)["sent_messages"] == 2
        assert arrived(two) == [b"1", b"22"]


@pytest.mark.parametrize(
    "address",
    [("localhost", 9), ("", 9), ("::1", 9), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("127.0.0.1", 1 << 70)],
    ids=["name", "empty", "IPv6", "port too large", "port below 0", "port far too large"],
)
def test_an_address_that_is_none_is_refused_in_its_turn(address: Address) -> None:
    with ends() as two:
        with pytest.raises(UsageError) as caught:
            send_batch(two.sender, [(b"1", two.to), (b"2", address)])
        assert vars(caught.value)["sent_messages"] == 1
        assert arrived(two) == [b"1"]


@pytest.mark.parametrize("message", [b"12", (b"1",), (b"1", None, 0), [b"1", None], (1, None), ("1", None)])
def test_what_is_no_message_is_a_type_error(message: object) -> None:
    with ends("unix pair") as two:
        with pytest.raises(TypeError) as caught:
            send_batch(two.sender, [(b"1", None), message])  # type: ignore[list-item] # what is tested
        assert vars(caught.value)["sent_messages"] == 1


@pytest.mark.parametrize("path", ["", "x" * 108, b"\0" + b"x" * 108])
def test_a_unix_name_has_its_bounds(path: Address) -> None:
    with ends("unix path") as two, pytest.raises(UsageError, match="107"):
        send_batch(two.sender, [(b"1", path)])


def test_nobody_at_a_unix_name_is_what_the_kernel_says() -> None:
    with ends("unix path") as two, pytest.raises(FileNotFoundError) as caught:
        send_batch(two.sender, [(b"1", two.to), (b"2", "/nobody/here")])
    assert vars(caught.value)["sent_messages"] == 1


def test_the_peers_icmp_answer_is_not_lost_between_two_messages() -> None:
    """Sendmmsg would return 1 and forget it, and so at each further call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(refused_port())
        with pytest.raises(ConnectionRefusedError) as caught:
            send_batch(one, [(b"1", None), (b"22", None), (b"333", None)])
        assert vars(caught.value)["sent_messages"] == 1


# ---- time


def fill(two: Ends) -> int:
    """Until the receiver has no room; how many that took."""
    count = 0
    while True:
        try:
            two.sender.send(b"full", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return count
        count += 1


def test_a_non_blocking_socket_takes_what_goes_and_then_says_so() -> None:
    with ends("unix pair") as two:
        room = fill(two)
        arrived(two)
        two.sender.setblocking(False)
        messages = [(b"%d" % number, None) for number in range(room + 5)]
        assert send_batch(two.sender, messages) == room
        with pytest.raises(BlockingIOError) as caught:
            send_batch(two.sender, messages[room:])
        assert vars(caught.value)["sent_messages"] == 0


@pytest.mark.parametrize("deadline", [-math.inf, 0.0])
def test_a_deadline_says_how_many_and_how_much(deadline: float) -> None:
    with ends("unix pair") as two:
        room = fill(two)
        arrived(two)
        with pytest.raises(DeadlineExceeded) as caught:
            send_batch(two.sender, [(b"abc", None)] * (room + 5), deadline=deadline)
        assert vars(caught.value)["sent_messages"] == room
        assert caught.value.sent_bytes == 3 * room


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_it_goes_on_when_there_is_room_again(timeout_s: float | None) -> None:
    with ends("unix pair") as two:
        fill(two)
        two.sender.settimeout(timeout_s)
        timer = threading.Timer(0.02, arrived, (two,))
        timer.start()
        assert send_batch(two.sender, [(b"late", None)] * 3) == 3
        timer.join()


def test_a_full_unix_socket_without_a_peer_ends_with_the_deadline() -> None:
    """Poll calls it writable all the time."""
    with ends("unix path") as two, pytest.raises(DeadlineExceeded):
        send_batch(two.sender, [(b"x", two.to)] * 5000, deadline=time.monotonic() + 0.02)


def test_what_a_signal_handler_raises_says_how_far_it_came() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ends("unix pair") as two:
        room = fill(two)
        arrived(two)
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt) as caught:
            send_batch(two.sender, [(b"x", None)] * (room + 1))
        signal.signal(signal.SIGALRM, before)
        assert vars(caught.value)["sent_messages"] == room


def test_a_socket_that_was_shut_down_is_a_broken_pipe() -> None:
    with ends("unix pair") as two:
        two.sender.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError) as caught:
            send_batch(two.sender, [(b"x", None)])
        assert vars(caught.value)["sent_messages"] == 0


# ---- what the kernel cuts


@pytest.mark.parametrize("implementation", [NATIVE], indirect=True)
def test_neighbours_of_equal_size_travel_as_one() -> None:
    with ends() as two:
        assert enable_gro(two.receiver)
        send_batch(two.sender, [(data, two.to) for data in (b"abcd", b"efgh", b"i", b"j")])
        assert [two.receiver.recv(100) for _ in range(2)] == [b"abcdefghi", b"j"]


def test_where_the_kernel_refuses_to_cut_they_go_one_by_one() -> None:
    """It refuses on a socket that sends no checksums."""
    with ends() as two:
        two.sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        sent = [b"%02d" % number for number in range(70)]
        assert send_batch(two.sender, [(data, two.to) for data in sent]) == 70
        assert arrived(two) == sent

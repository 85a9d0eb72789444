# SPDX-License-Identifier: Apache-2.0
"""One error for every thread, whoever met it; one call at a time, whoever interrupts it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from conformance.drivers import reset, tcp_pair
from unit.hold.held import Pair, held_pair, soon

from holdfast.errors import ConnectionReset, UsageError
from holdfast.hold import calls
from holdfast.hold.connection import Connection


@pytest.fixture
def pair() -> Iterator[Pair]:
    with held_pair() as made:
        yield made


class Slow:
    """The calls, one of which hesitates with an error that it has met until the other direction has asked."""

    def __init__(self, name: str) -> None:
        self.met = threading.Event()
        self._name = name

    def __getattr__(self, name: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(calls, name)
        if name != self._name:
            return call

        def hesitating(*args: object) -> object:
            try:
                return call(*args)
            except OSError:
                self.met.set()
                time.sleep(0.05)
                raise

        return hesitating


def raised_by(call: Callable[[], object], into: list[BaseException]) -> threading.Thread:
    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            into.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("first", ["send_from", "receive_into"])
def test_a_reset_that_the_other_direction_consumed_is_told_alike(pair: Pair, first: str) -> None:
    """The second to ask sees an end of stream, or a broken pipe: Linux has told the reset already."""
    near, far = pair
    slow = Slow(first)
    near._calls = slow  # type: ignore[assignment]
    send, receive = lambda: near.sendall(bytes(64 << 20)), lambda: near.recv_exactly(9)
    raised: list[BaseException] = []
    thread = raised_by(send if first == "send_from" else receive, raised)
    time.sleep(0.05)
    reset(far)
    assert slow.met.wait(10)
    with pytest.raises(ConnectionReset) as caught:
        (receive if first == "send_from" else send)()
    thread.join(10)
    assert isinstance(raised[0], ConnectionReset) and near.error is not None
    assert raised[0].loss is caught.value.loss
    assert getattr(near.error, "loss", None) is caught.value.loss


def test_who_comes_while_another_thread_closes_is_told_so(pair: Pair) -> None:
    """close() has one direction and waits for the other: nobody is receiving, and no mistake was made."""
    near, _ = pair
    raised: list[BaseException] = []
    with near._sending.lock:
        closing = raised_by(near.close, raised)
        while near._receiving.lock.acquire(blocking=False):  # until close() has it
            near._receiving.lock.release()
            time.sleep(0.001)
        receiving = raised_by(lambda: near.recv(1), raised)
        time.sleep(0.02)
    for thread in (closing, receiving):
        thread.join(10)
    assert [str(error) for error in raised] == ["the connection is closed; connect again"]


def test_who_comes_while_the_other_direction_asks_for_a_verdict_has_its_turn(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"x")
    raised: list[BaseException] = []
    with near._receiving.lock:
        receiving = raised_by(lambda: near.recv(1), raised)
        time.sleep(0.02)
    receiving.join(10)
    assert not raised and near.counters.bytes_received == 1


def test_a_reset_that_somebody_else_consumed_is_no_end_of_stream(pair: Pair) -> None:
    near, far = pair
    reset(far)
    time.sleep(0.02)
    near.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with pytest.raises(ConnectionReset):
        near.recv(1)


def test_an_end_of_stream_before_a_reset_is_an_end_of_stream(pair: Pair) -> None:
    near, far = pair
    far.close()
    near.sendall(b"answered by a reset")
    time.sleep(0.02)
    assert near.recv(1) == b""


def test_the_end_of_a_stream_whose_other_direction_ended_before_it_was_wrapped() -> None:
    near, far = tcp_pair()
    near.shutdown(socket.SHUT_WR)
    with Connection(near) as held:
        assert far.recv(1) == b""
        far.close()
        assert held.recv(1, deadline=soon()) == b""


@contextmanager
def alarm(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: handler() and None)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("call", ["recv", "recv_exactly", "peek"])
def test_a_handler_cannot_receive_in_the_middle_of_a_receive(pair: Pair, call: str) -> None:
    near, far = pair
    refused: list[UsageError] = []

    def handler() -> None:
        far.sendall(b"ABCD")
        with pytest.raises(UsageError, match="signal") as caught:
            getattr(near, call)(2)
        refused.append(caught.value)
        far.sendall(b"efgh\n")

    with alarm(handler):
        assert near.recv_until(b"\n", 99, deadline=soon()) == b"ABCDefgh\n"
    assert len(refused) == 1


def test_a_handler_may_send_in_the_middle_of_a_receive(pair: Pair) -> None:
    near, far = pair
    with alarm(lambda: (near.sendall(b"still here"), far.sendall(b"x"))):
        assert near.recv(1, deadline=soon()) == b"x"
    assert far.recv(99) == b"still here"


@pytest.mark.parametrize("call", ["recv_exactly", "sendall"])
def test_what_a_handler_raises_between_two_steps_leaves_nobody_a_turn_for_ever(pair: Pair, call: str) -> None:
    """As a limit of time by SIGALRM does, or Ctrl-C: it can come at the end of a call, too."""

    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    near, far = pair
    work = (lambda: far.sendall(bytes(4096))) if call == "recv_exactly" else (lambda: far.recv(1 << 16))
    stop = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while not stop.is_set():
                work()

    peer = threading.Thread(target=serve)
    before = signal.signal(signal.SIGALRM, ring)
    peer.start()
    one: Callable[[], object]
    one = (lambda: near.recv_exactly(64)) if call == "recv_exactly" else (lambda: near.sendall(bytes(64)))
    try:
        for number in range(400):
            with suppress(Alarm):
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + number * 1e-6)
                while True:
                    one()
    finally:
        signal.signal(signal.SIGALRM, before)
        stop.set()
        closing = threading.Thread(target=near.close, daemon=True)
        closing.start()
        closing.join(5)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)
        peer.join(5)
    assert (closing.is_alive(), peer.is_alive()) == (False, False)

# SPDX-License-Identifier: Apache-2.0
"""After fork() each process has its own waits and locks, whatever threads its parent had."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from conformance.drivers import reset
from unit.hold.held import Pair, held_pair, soon

from holdfast.errors import Cancelled, ConnectionReset, DeadlineExceeded
from holdfast.hold import log
from holdfast.hold.race import Address
from holdfast.hold.resolve import Resolver


@pytest.fixture
def pair() -> Iterator[Pair]:
    with held_pair() as made:
        yield made


def child(work: Callable[[], object]) -> int:
    """The pid of a forked process that ends with 0 if the work is done, 1 if it raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def ended(pid: int, limit_s: float = 5) -> bool:
    """Whether it ended well within that time."""
    limit = soon(limit_s)
    while time.monotonic() < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_what_the_child_ends_lives_on_in_the_parent(pair: Pair, end: str) -> None:
    near, far = pair
    assert ended(child(getattr(near, end)))
    with pytest.raises(DeadlineExceeded):
        near.recv(1, deadline=soon(0.02))
    far.sendall(b"on")
    assert near.recv_exactly(2, deadline=soon()) == b"on"


def test_a_forking_server_closes_its_copy_and_the_child_serves(pair: Pair) -> None:
    near, far = pair
    pid = child(lambda: near.sendall(near.recv_until(b"\n", 99, deadline=soon())))
    near.close()
    far.sendall(b"request\n")
    assert ended(pid)
    assert far.recv(99) == b"request\n"


def test_a_cancelled_connection_is_cancelled_in_the_child_too(pair: Pair) -> None:
    near, _ = pair
    near.cancel()

    def work() -> None:
        with pytest.raises(Cancelled):
            near.recv(1, deadline=soon())

    assert ended(child(work))


def test_the_child_does_not_wait_for_threads_that_it_has_not(pair: Pair) -> None:
    near, _ = pair

    def receive() -> None:
        with pytest.raises(Cancelled):
            near.recv(1)

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.05)
    assert ended(child(near.close))
    near.cancel()
    thread.join(10)


def test_a_thread_that_logs_at_the_fork_stops_no_log_of_the_child(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"unread")
    reset(far)

    def work() -> None:
        with pytest.raises(ConnectionReset):
            near.recv(1, deadline=soon())

    with log._LIMIT._lock:
        # Another thread's, for a lock that its own thread holds is no obstacle.
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(child(work)))
        thread.start()
        thread.join(10)
    assert ended(pids[0])


def test_a_resolver_of_the_child_does_not_wait_for_threads_of_its_parent() -> None:
    answer = threading.Event()

    def lookup(host: str, port: int, **how: int) -> list[tuple[object, ...]]:
        if "flags" in how:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    resolver = Resolver(lookup)  # type: ignore[arg-type]
    with pytest.raises(socket.gaierror):
        resolver.resolve("db", 80, 0.001)

    def ask() -> None:
        answer.set()
        assert resolver.resolve("db", 80, 4) == [Address(socket.AF_INET, ("10.0.0.1", 80))]

    assert ended(child(ask))
    answer.set()

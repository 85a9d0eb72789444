"""What needs no network of its own: the memory of paths, and connections on loopback."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from holdfast.errors import ConnectionRefused, ConnectionTimedOut, DeadlineExceeded, GaveUp, UsageError
from holdfast.events import Endpoint
from holdfast.hold.fastopen import FastOpen, Outcome, PathMemory
from holdfast.hold.options import effective
from holdfast.hold.resolve import Resolver
from holdfast.policy import PROFILES

HOUR_S = 3600.0


def test_a_path_is_avoided_for_an_hour_and_longer_each_time() -> None:
    memory, now_s, lengths = PathMemory(), 0.0, []
    for _ in range(9):
        memory.lost("192.0.2.1", now_s)
        hours = next(
            hours for hours in range(1, 99) if not memory.avoids("192.0.2.1", now_s + hours * HOUR_S)
        )
        lengths.append(hours)
        now_s += hours * HOUR_S
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_a_path_that_lets_one_through_begins_anew() -> None:
    memory = PathMemory()
    for _ in range(3):
        memory.lost("192.0.2.1", 0.0)
    memory.passed("192.0.2.1")
    assert not memory.avoids("192.0.2.1", 1.0)
    memory.lost("192.0.2.1", 0.0)
    assert [memory.avoids("192.0.2.1", at_s) for at_s in (3599.9, 3600.0)] == [True, False]


def test_paths_are_told_apart_and_a_passing_stranger_is_no_matter() -> None:
    memory = PathMemory()
    memory.lost("192.0.2.1", 0.0)
    memory.passed("192.0.2.2")
    assert [memory.avoids(ip, 1.0) for ip in ("192.0.2.1", "192.0.2.2")] == [True, False]


def test_a_memory_is_bounded_and_forgets_the_oldest() -> None:
    memory = PathMemory(most=2)
    for ip in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        memory.lost(ip, 0.0)
    remembered = [memory.avoids(f"192.0.2.{host}", 1.0) for host in (1, 2, 3)]
    assert remembered == [True, False, True]


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as sock:
        yield sock


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def address(listener: socket.socket) -> Endpoint:
    return Endpoint(*listener.getsockname()[:2])


def received(listener: socket.socket) -> bytes:
    with listener.accept()[0] as server:
        return server.recv(1 << 20, socket.MSG_WAITALL)


def test_it_is_off_unless_the_message_is_marked(listener: socket.socket) -> None:
    to, lan = address(listener), PROFILES["lan"].policy
    sock, outcome = FastOpen().connect(to, b"hello", deadline=soon(), policy=lan)
    with sock:
        assert effective(sock) == lan
        assert sock.gettimeout() is None
    assert (outcome, received(listener)) == (Outcome.NOT_IDEMPOTENT, b"hello")


def test_an_avoided_path_is_connected_the_usual_way(listener: socket.socket) -> None:
    to, fast = address(listener), FastOpen(clock=lambda: 5.0)
    fast.memory.lost(to.ip, 4.0)
    sock, outcome = fast.connect(to, b"hello", deadline=soon(), idempotent=True)
    sock.close()
    assert (outcome, received(listener)) == (Outcome.AVOIDED, b"hello")


def test_a_first_message_larger_than_a_segment_arrives_whole(listener: socket.socket) -> None:
    message = bytes(range(256)) * 2000
    sock, outcome = FastOpen().connect(address(listener), message, deadline=soon(), idempotent=True)
    sock.close()
    # What this host's net.ipv4.tcp_fastopen allows is not ours to say.
    assert outcome in (Outcome.NO_COOKIE, Outcome.UNAVAILABLE, Outcome.USED)
    assert received(listener) == message


def test_a_reset_after_the_handshake_is_no_fault_of_fast_open(listener: socket.socket) -> None:
    """It is raised as it is: the message is not sent a second time behind the caller's back."""

    def reset() -> None:
        server = listener.accept()[0]
        listener.close()
        server.recv(1, socket.MSG_PEEK)
        server.close()  # with unread data: an RST

    fast, to = FastOpen(), address(listener)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(reset)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            fast.connect(to, bytes(64 << 20), deadline=soon(), idempotent=True)
    assert not fast.memory.avoids(to.ip, 0.0)


def test_without_a_first_message_nothing_would_ever_leave(listener: socket.socket) -> None:
    with pytest.raises(UsageError, match="no first message"):
        FastOpen().connect(address(listener), b"", deadline=soon(), idempotent=True)


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_closed_port_is_refused(idempotent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        to = address(gone)
    fast = FastOpen()
    with pytest.raises(GaveUp) as caught:
        fast.connect(to, b"hello", deadline=soon(), idempotent=idempotent)
    assert [type(loss) for loss in caught.value.losses] == [ConnectionRefused]
    assert not fast.memory.avoids(to.ip, 0.0)


@pytest.mark.parametrize("idempotent", [False, True])
def test_time_that_is_up_is_a_timeout(idempotent: bool) -> None:
    with pytest.raises(GaveUp) as caught:
        FastOpen().connect(("127.0.0.1", 9), b"hello", deadline=soon(-1), idempotent=idempotent)
    assert [type(loss) for loss in caught.value.losses] == [ConnectionTimedOut]


def test_a_message_that_takes_too_long_says_how_far_it_came(listener: socket.socket) -> None:
    message, began_s = bytes(64 << 20), time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        FastOpen().connect(address(listener), message, deadline=soon(0.2), idempotent=True)
    assert 0 < caught.value.sent_bytes < len(message)
    assert time.monotonic() - began_s < 2


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_name_is_looked_up_and_its_addresses_race(listener: socket.socket, idempotent: bool) -> None:
    """The first of them refuses; the message goes to the second, once."""
    to = listener.getsockname()
    with socket.socket(listener.family) as closed:
        closed.bind((to[0], 0))
        family, kind = listener.family, socket.SOCK_STREAM
        found = [(family, kind, 6, "", closed.getsockname()), (family, kind, 6, "", to)]
        resolver = Resolver(lambda *_, **__: found)
        sock, outcome = FastOpen().connect(
            ("db.test", to[1]), b"hello", deadline=math.inf, idempotent=idempotent, resolver=resolver
        )
    sock.close()
    assert (
        outcome is (Outcome.LOST if idempotent else Outcome.NOT_IDEMPOTENT) or outcome is Outcome.UNAVAILABLE
    )
    assert received(listener) == b"hello"


def test_a_name_without_addresses_is_told() -> None:
    def nothing(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(GaveUp) as caught:
        FastOpen().connect(("db.test", 80), b"hello", deadline=soon(), resolver=Resolver(nothing))
    assert [type(loss) for loss in caught.value.losses] == [socket.gaierror]


def test_what_makes_no_sense_is_refused() -> None:
    for to, deadline in ((("127.0.0.1", 0), None), (None, None), (("127.0.0.1", 9), math.nan)):
        with pytest.raises(UsageError):
            FastOpen().connect(to, b"hello", deadline=deadline)  # type: ignore[arg-type]

"""Names are looked up with a time limit, and a dead name server costs one thread for each name."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from holdfast.hold.race import Address
from holdfast.hold.resolve import Resolver

WAIT_S = 10.0
FOUND = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::1", 80, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
]
ADDRESSES = [
    Address(socket.AF_INET6, ("fd00::1", 80, 0, 0)),
    Address(socket.AF_INET, ("10.0.0.1", 80)),
]


class NameServer:
    """A lookup that answers once ``answer`` is set; literals it knows at once, as the C library does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.answer, self.asked = threading.Event(), threading.Event()
        self.names: list[str] = []
        self._error = error

    def __call__(self, host: str, port: int, type: int, flags: int = 0) -> Sequence[tuple[Any, ...]]:  # noqa: A002  getaddrinfo's name
        if flags:
            return socket.getaddrinfo(host, port, type=type, flags=flags)
        self.names.append(host)
        self.asked.set()
        assert self.answer.wait(WAIT_S)
        if self._error is not None:
            raise self._error
        return FOUND


Ask = Callable[[Resolver, str, float], list[Address]]


def blocking(resolver: Resolver, host: str, timeout_s: float) -> list[Address]:
    return resolver.resolve(host, 80, timeout_s)


def in_loop(resolver: Resolver, host: str, timeout_s: float) -> list[Address]:
    return asyncio.run(resolver.resolve_async(host, 80, timeout_s))


@pytest.fixture(params=[blocking, in_loop], ids=lambda way: way.__name__)
def ask(request: pytest.FixtureRequest) -> Ask:
    way: Ask = request.param
    return way


def test_each_address_comes_once_in_the_order_of_the_library(ask: Ask) -> None:
    server = NameServer()
    server.answer.set()
    assert ask(Resolver(server), "db", WAIT_S) == ADDRESSES


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("idna")])
def test_what_the_library_says_goes_up(ask: Ask, error: Exception) -> None:
    server = NameServer(error)
    server.answer.set()
    with pytest.raises(type(error)) as caught:
        ask(Resolver(server), "db", WAIT_S)
    assert caught.value is error


def test_a_literal_address_needs_no_thread(ask: Ask) -> None:
    server = NameServer()
    literal = Address(socket.AF_INET, ("127.0.0.1", 80))
    assert (ask(Resolver(server), "127.0.0.1", 0.0), server.names) == ([literal], [])


def test_no_answer_in_time_is_an_error_that_says_so(ask: Ask) -> None:
    server = NameServer()
    with pytest.raises(socket.gaierror, match=r"No answer from the name servers within 0\.01 s") as caught:
        ask(Resolver(server), "db", 0.01)
    assert caught.value.errno == socket.EAI_AGAIN
    server.answer.set()


def test_who_asks_again_waits_for_the_same_answer(ask: Ask) -> None:
    server = NameServer()
    resolver = Resolver(server)
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            ask(resolver, "db", 0.001)
    assert server.names == ["db"]
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ask, resolver, "db", WAIT_S)
        server.answer.set()
        assert late.result(WAIT_S) == ADDRESSES


def test_another_name_is_asked_at_once() -> None:
    server = NameServer()
    resolver = Resolver(server)
    for host in ("db", "cache"):
        with pytest.raises(socket.gaierror):
            resolver.resolve(host, 80, 0.001)
    server.answer.set()
    assert sorted(server.names) == ["cache", "db"]


def test_an_answer_is_not_kept(ask: Ask) -> None:
    server = NameServer()
    server.answer.set()
    resolver = Resolver(server)
    assert ask(resolver, "db", WAIT_S) == ask(resolver, "db", WAIT_S)
    assert server.names == ["db", "db"]


def test_a_task_that_stops_waiting_leaves_the_answer_to_others() -> None:
    server = NameServer()
    resolver = Resolver(server)

    async def run() -> list[Address]:
        first, second = (asyncio.create_task(resolver.resolve_async("db", 80, WAIT_S)) for _ in range(2))
        await asyncio.to_thread(server.asked.wait, WAIT_S)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.answer.set()
        return await second

    assert (asyncio.run(run()), server.names) == (ADDRESSES, ["db"])


def test_a_name_that_no_thread_could_ask_for_is_asked_for_again(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NameServer()
    server.answer.set()
    resolver = Resolver(server)

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refused)
        with pytest.raises(socket.gaierror, match="can't start new thread") as caught:
            ask(resolver, "db", 0.5)
    assert caught.value.errno == socket.EAI_AGAIN
    assert ask(resolver, "db", 0.5) == ADDRESSES

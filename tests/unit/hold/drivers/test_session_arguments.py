# SPDX-License-Identifier: Apache-2.0
"""What callers ask a session for: refused at once where it cannot be, whatever the session does meanwhile."""

from __future__ import annotations

import asyncio
import functools
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy
import pytest

import holdfast
from holdfast import BlockingSession, Session, UsageError
from holdfast.hold.drivers.blocking import _Loop

Use = Callable[[Session], Awaitable[Any]]


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def use(work: Use) -> Any:
    """A session with a server that gives back what it is given."""

    async def go() -> Any:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0") as server, holdfast.connect(server.url) as one:
            return await asyncio.wait_for(work(one), 5)

    return asyncio.run(go())


RECEIVES: tuple[Callable[[Session, Any], Awaitable[bytes]], ...] = (Session.recv, Session.recv_exactly)


@pytest.mark.parametrize("receive", RECEIVES)
@pytest.mark.parametrize("there", [b"", b"hello"])
@pytest.mark.parametrize(("size", "error"), [(-1, UsageError), (2.5, TypeError), ("5", TypeError)])
def test_a_size_that_is_none_is_refused_whether_bytes_are_there_or_not(
    receive: Callable[[Session, Any], Awaitable[bytes]], there: bytes, size: Any, error: type[Exception]
) -> None:
    async def work(one: Session) -> bytes:
        await one.send(there)
        while one.core.into.held_bytes < len(there):
            await asyncio.sleep(0.001)
        with pytest.raises(error):
            await receive(one, size)
        return await one.recv_exactly(len(there))

    assert use(work) == there


CALLS: tuple[Callable[[Session, Any], Awaitable[Any]], ...] = (
    lambda one, when: one.recv(5, deadline=when),
    lambda one, when: one.recv_exactly(5, deadline=when),
    lambda one, when: one.send(b"x", deadline=when),
    lambda one, when: one.flush(deadline=when),
    lambda one, when: one.close(deadline=when),
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("deadline", "error"), [(math.nan, UsageError), ("5", TypeError)])
def test_a_deadline_that_is_none_is_refused_and_nothing_happens(
    call: Callable[[Session, Any], Awaitable[Any]], deadline: Any, error: type[Exception]
) -> None:
    async def work(one: Session) -> bytes:
        with pytest.raises(error):
            await call(one, deadline)
        await one.send(b"still there")
        return await one.recv_exactly(11)

    assert use(work) == b"still there"


def test_a_deadline_without_end_is_no_deadline() -> None:
    async def work(one: Session) -> bytes:
        late = asyncio.create_task(one.recv_exactly(5, deadline=math.inf))
        await asyncio.sleep(0.01)
        await one.send(b"hello", deadline=math.inf)
        await one.flush(deadline=math.inf)
        return await late

    assert use(work) == b"hello"


@pytest.mark.parametrize("size", [-1, 2.5])
def test_the_blocking_session_refuses_the_same(size: Any) -> None:
    with serving() as url, holdfast.connect(url) as one:
        assert isinstance(one, BlockingSession)
        for receive in (one.recv, one.recv_exactly):
            with pytest.raises((UsageError, TypeError)):
                receive(size, deadline=time.monotonic() + 5)
        one.send(b"on")
        assert one.recv_exactly(2) == b"on"


@contextmanager
def serving() -> Iterator[str]:
    """A server in a thread of its own."""
    loop = _Loop()
    server = loop.run(holdfast.serve(echo, "tcp://127.0.0.1:0").start)
    yield server.url
    loop.run(server.close)


@pytest.mark.parametrize("data", ["text", 5, None, [b"a"]])
def test_what_is_no_buffer_is_refused(data: Any) -> None:
    async def work(one: Session) -> bytes:
        with pytest.raises(TypeError, match="bytes-like"):
            await one.send(data)
        await one.send(b"on")
        return await one.recv_exactly(2)

    assert use(work) == b"on"


def test_rows_of_a_table_are_sent_one_after_the_other() -> None:
    async def work(one: Session) -> bytes:
        await one.send(numpy.arange(6, dtype="u1").reshape(2, 3).data)
        await one.send(numpy.zeros((0, 3)).data)
        return await one.recv_exactly(6)

    assert use(work) == bytes(range(6))


@pytest.mark.parametrize("gaps", [memoryview(b"abcdefgh")[::2], numpy.zeros((2, 3), order="F").data])
def test_bytes_that_are_not_in_a_row_are_refused_as_sockets_do(gaps: memoryview) -> None:
    async def work(one: Session) -> int:
        with pytest.raises(BufferError):
            await one.send(gaps)
        return one.counters.bytes_sent

    assert use(work) == 0


async def listens(event: Any) -> None:
    """An observer whose coroutine nobody would await."""


class Listens:
    async def __call__(self, event: Any) -> None: ...


TERMS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"policy": {}}, "policy is {}: give a SessionPolicy"),
    ({"policy": 0}, "policy is 0: give a SessionPolicy"),
    ({"policy": holdfast.RetryPolicy()}, "give a SessionPolicy"),
    ({"peers": 0}, "peers is 0: give the numbers of users"),
    ({"peers": ["www-data"]}, "peers is ['www-data']: give the numbers of users"),
    ({"peers": "1000"}, "peers is '1000': give the numbers of users"),
    ({"observer": 5}, "observer is 5: give a function that takes a SessionEvent"),
    ({"observer": listens}, "observer is an async function"),
    ({"observer": functools.partial(listens)}, "observer is an async function"),
    ({"observer": Listens()}, "observer is an async function"),
)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        *TERMS,
        ({"deadline": "5"}, "deadline is '5': give seconds"),
        ({"deadline": math.nan}, "deadline is nan"),
    ],
)
def test_connect_refuses_at_once_what_it_cannot_use(terms: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        holdfast.connect("tcp://127.0.0.1:9", **terms)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        *TERMS,
        ({"most_sessions": -1}, "most_sessions is -1"),
        ({"most_half_open": 0}, "most_half_open is 0"),
        ({"memory_bytes": 0}, "memory_bytes is 0: give a whole number from 8192"),
        ({"memory_bytes": 1e9}, "memory_bytes is 1000000000.0"),
    ],
)
def test_serve_refuses_at_once_what_it_cannot_use(terms: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        holdfast.serve(echo, "tcp://127.0.0.1:0", **terms)


class Serves:
    async def __call__(self, session: Session) -> None: ...

    async def method(self, session: Session) -> None: ...

    def plain(self, session: Session) -> None: ...


def decorated(handle: Callable[[Session], Awaitable[None]]) -> Callable[[Session], Awaitable[None]]:
    @functools.wraps(handle)
    def called(session: Session) -> Awaitable[None]:
        return handle(session)

    return called


SERVING = (echo, functools.partial(echo), Serves(), Serves().method, decorated(echo), mock.AsyncMock())
PLAIN = (None, 5, lambda session: None, Serves().plain, functools.partial(Serves().plain))


@pytest.mark.parametrize("handle", [*SERVING, mock.Mock()])
def test_whatever_is_async_in_the_end_may_serve(handle: Any) -> None:
    holdfast.serve(handle, "tcp://127.0.0.1:0")


@pytest.mark.parametrize("handle", PLAIN)
def test_what_is_not_async_may_not_serve(handle: Any) -> None:
    with pytest.raises(UsageError, match="give an async function"):
        holdfast.serve(handle, "tcp://127.0.0.1:0")


@pytest.mark.parametrize("after_s", [-1, 1e9, "x", math.nan])
def test_a_drain_over_no_time_is_refused_and_nothing_is_drained(after_s: Any) -> None:
    async def go() -> bool:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0") as server:
            with pytest.raises(UsageError, match="after_s"):
                server.drain(after_s)
            return server.host.draining

    assert asyncio.run(go()) is False

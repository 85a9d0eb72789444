# SPDX-License-Identifier: Apache-2.0
"""What the user of a stream relies on: all that comes is theirs, an end is one, a timeout holds."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from conformance.drivers import Certificate, reset, tcp_pair
from unit.hold.test_stream import LOOPS, Run, clog, read, tls_pair, with_stream

from holdfast.errors import ConnectionClosed, ConnectionReset, UsageError
from holdfast.hold.inbox_portable import Inbox
from holdfast.hold.stream import Stream, wrap
from holdfast.hold.stream_protocol import HIGH_WATER_BYTES

pytestmark = pytest.mark.parametrize("run", LOOPS, ids=["asyncio", "uvloop"])

Call = Callable[[Stream], Coroutine[Any, Any, bytes]]
CALLS: list[Call] = [
    lambda stream: stream.recv(2),
    lambda stream: stream.recv_exactly(2),
    lambda stream: stream.recv_until(b"f", 9),
    lambda stream: stream.recv(0),
]


@pytest.mark.parametrize("portable", [False, True], ids=["compiled", "portable"])
@pytest.mark.parametrize(
    "size", [4, HIGH_WATER_BYTES + (1 << 16)], ids=["short", "above the high-water mark"]
)
def test_nobody_takes_the_beginning_of_what_another_task_waits_for(
    run: Run, size: int, portable: bool
) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        if portable:
            stream.inbox = stream.protocol.inbox = Inbox()
        reader = asyncio.create_task(stream.recv_exactly(size + 1))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.to_thread(far.sendall, b"half" * (size // 4))
        while len(stream.inbox) < size:
            await asyncio.sleep(0)
        for call in CALLS:
            with pytest.raises(UsageError, match="another task is receiving"):
                await call(stream)
        assert stream.peek(2) == b"ha"
        far.sendall(b"!more")
        assert await reader == b"half" * (size // 4) + b"!"
        assert [await stream.recv_exactly(2), await stream.recv(9)] == [b"mo", b"re"]

    with_stream(run, work)


def test_a_task_that_stops_waiting_leaves_what_came_to_the_next(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        far.sendall(b"half")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.recv_exactly(8), 0.05)
        assert [await stream.recv(2), await stream.recv_exactly(2)] == [b"ha", b"lf"]

    with_stream(run, work)


# ---- the end


def test_a_reset_that_somebody_else_consumed_is_no_end_of_stream(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        reset(far)
        stream.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        for _ in range(2):
            with pytest.raises(ConnectionReset) as caught:
                await stream.recv(1)
        assert stream.peer is not None and caught.value.peer == stream.peer

    with_stream(run, work)


def test_a_socket_that_was_shut_before_it_was_wrapped_is_a_stream_that_only_receives(run: Run) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        near.shutdown(socket.SHUT_WR)
        async with await wrap(near) as stream:
            assert far.recv(1) == b""
            with pytest.raises(ConnectionClosed) as caught:
                await stream.sendall(b"too late")
            assert caught.value.cause == "written_after_close"
            far.sendall(b"answer")
            far.close()
            assert [await stream.recv_exactly(6), await stream.recv(1)] == [b"answer", b""]

    run(main())


# ---- leaving by an exception


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_a_timeout_around_the_block_holds_though_the_peer_does_not_read(
    run: Run, encrypted: bool, tmp_path: Path
) -> None:
    async def main() -> None:
        if encrypted:
            stream, far = await tls_pair(Certificate(tmp_path))
        else:
            near, far = tcp_pair()
            stream = await wrap(near)
        began = time.monotonic()
        with far, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), stream:
                await stream.sendall(bytes(64 << 20))
        assert time.monotonic() - began < 5

    run(main())


def test_a_timeout_around_a_close_gives_the_socket_back(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        await clog(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stream.close()
        await asyncio.wait_for(asyncio.shield(stream.protocol._gone), 5)
        assert stream.error is None

    with_stream(run, work)


def test_what_was_sent_before_an_exception_arrives(run: Run) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        with pytest.raises(ZeroDivisionError):
            async with await wrap(near) as stream:
                await stream.sendall(bytes(1 << 17))
                raise ZeroDivisionError
        with far:
            assert await read(far, 1 << 17) == bytes(1 << 17)

    run(main())


# ---- what is no stream


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (socket.socket, "is not connected"),
        (lambda: socket.create_server(("127.0.0.1", 0)), "is not connected"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "carries datagrams"),
    ],
    ids=["unconnected", "listening", "datagrams"],
)
def test_what_has_no_peer_cannot_become_a_stream_and_stays_the_callers(
    run: Run, make: Callable[[], socket.socket], why: str
) -> None:
    async def main() -> None:
        with make() as sock:
            with pytest.raises(UsageError, match=why):
                await wrap(sock)
            assert sock.gettimeout() is None

    run(main())

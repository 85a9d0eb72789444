# SPDX-License-Identifier: Apache-2.0
"""What only a Stream can do wrong: lend the caller's memory, blame the peer for our own close."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import socket
import ssl
import time
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from errno import EMFILE
from pathlib import Path
from typing import Any

import pytest
import uvloop
from conformance.drivers import Certificate, leave_on_the_error_queue, reset, tcp_pair

from holdfast.errors import ConnectionLost, DeadlineExceeded, Truncated, UsageError
from holdfast.hold import stream_protocol
from holdfast.hold.stream import Stream, serve, wrap
from holdfast.hold.tls import TlsError

LOOPS = [asyncio.run, uvloop.run]

pytestmark = pytest.mark.parametrize("run", LOOPS, ids=["asyncio", "uvloop"])

Run = Callable[[Coroutine[Any, Any, None]], None]
Work = Callable[[Stream, socket.socket], Awaitable[None]]


def with_stream(run: Run, work: Work) -> None:
    """Run ``work`` with a stream and its far end."""

    async def main() -> None:
        near, far = tcp_pair()
        with far:
            stream = await wrap(near)
            await asyncio.wait_for(work(stream, far), 20)
            await stream.close(deadline=0.0)

    run(main())


def soon(seconds: float = 0.05) -> float:
    return time.monotonic() + seconds


async def read(far: socket.socket, size: int) -> bytes:
    """So many bytes from the far end."""
    received = bytearray()
    while len(received) < size:
        received += await asyncio.to_thread(far.recv, 1 << 20)
    return bytes(received)


async def clog(stream: Stream) -> None:
    """Send until the kernel takes no more."""
    with pytest.raises(DeadlineExceeded):
        await stream.sendall(bytes(16 << 20), deadline=soon())


# ---- the caller's memory


def test_what_was_given_may_be_changed_once_sendall_has_returned(run: Run) -> None:
    """However it returned, and though the transport goes on sending."""

    async def work(stream: Stream, far: socket.socket) -> None:
        data = bytearray(b"a" * (8 << 20))
        with pytest.raises(DeadlineExceeded) as caught:
            await stream.sendall(data, deadline=soon())
        sent = caught.value.sent_bytes
        data[:] = b"b" * len(data)
        assert await read(far, sent) == b"a" * sent

    with_stream(run, work)


def test_what_was_given_may_be_resized_while_the_error_is_handled(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        data = bytearray(8 << 20)
        try:
            await stream.sendall(data, deadline=soon())
        except DeadlineExceeded as error:
            del data[: error.sent_bytes]
        assert 0 < len(data) < 8 << 20

    with_stream(run, work)


# ---- limits


def test_nonsense_is_refused_at_once(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        nan = float("nan")
        far.sendall(b"waiting")
        while not stream.peek(1):
            await asyncio.sleep(0.001)
        for call in (
            stream.recv(1, deadline=nan),
            stream.recv_exactly(1, deadline=nan),
            stream.recv_until(b"g", 9, deadline=nan),
            stream.sendall(b"x", deadline=nan),
            stream.close(deadline=nan),
        ):
            with pytest.raises(UsageError, match="the deadline is nan"):
                await call
        assert await stream.recv(9) == b"waiting"
        for n in (-1, -(2**70)):
            with pytest.raises(UsageError, match=f"^{n} bytes were asked for"):
                await stream.recv(n)
        for wrong in (2.0, "2"):
            with pytest.raises(TypeError):
                await stream.recv(wrong)  # type: ignore[arg-type]

    with_stream(run, work)


def test_a_deadline_shows_what_came_but_copies_it_only_for_who_looks(run: Run) -> None:
    """It may pass every millisecond: to show all each time would copy all each time."""

    async def work(stream: Stream, far: socket.socket) -> None:
        message = os.urandom(1 << 20)
        sending = asyncio.create_task(asyncio.to_thread(far.sendall, message))
        with pytest.raises(DeadlineExceeded) as caught:
            await stream.recv_exactly(2 << 20, deadline=soon(0.2))
        await sending
        tracemalloc.start()
        with pytest.raises(DeadlineExceeded):
            await stream.recv_exactly(2 << 20, deadline=-math.inf)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < len(message) // 2
        assert caught.value.partial == message
        assert await stream.recv_exactly(1 << 20) == message

    with_stream(run, work)


def test_an_unread_error_queue_neither_ends_a_wait_nor_spins(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        leave_on_the_error_queue(stream.protocol._sock)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await stream.recv(1, deadline=began + 0.2)
        assert time.monotonic() - began < 5
        assert 10 < stream.protocol._in_vain < 1000  # a loop that spins makes tens of thousands
        far.sendall(b"!" + bytes(1 << 20))
        assert await stream.recv_exactly((1 << 20) + 1) == b"!" + bytes(1 << 20)

    with_stream(run, work)


# ---- the end


def test_after_abort_no_call_takes_it_for_the_peers_end(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        waiting = asyncio.create_task(stream.recv_exactly(1))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        stream.abort()
        for call in (waiting, stream.recv(1), stream.recv_until(b"\n", 9), stream.sendall(b"x")):
            with pytest.raises(UsageError, match="the stream is closed"):
                await call
        with pytest.raises(UsageError, match="the stream is closed"):
            stream.shutdown_write()
        assert await asyncio.to_thread(far.recv, 1) == b""
        assert stream.error is None

    with_stream(run, work)


def test_a_close_at_its_deadline_does_not_blame_the_peer(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        await clog(stream)
        await stream.close(deadline=soon())
        assert stream.error is None

    with caplog.at_level(logging.WARNING, "holdfast.hold"):
        with_stream(run, work)
    assert [record.message for record in caplog.records] == []


def test_a_reset_that_keeps_a_close_from_sending_the_rest_is_told(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        await clog(stream)
        closing = asyncio.create_task(stream.close(deadline=soon(10)))
        await asyncio.sleep(0.01)
        reset(far)
        await closing
        assert isinstance(stream.error, ConnectionLost)

    with_stream(run, work)


# ---- no descriptor left


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all descriptors were in use."""

    def dup(fd: int) -> int:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr(stream_protocol.os, "dup", dup)


@pytest.mark.usefixtures("exhausted")
def test_a_socket_that_cannot_become_a_stream_is_closed(run: Run) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        with pytest.raises(OSError) as caught:
            await wrap(near)
        assert caught.value.errno == EMFILE
        assert await asyncio.to_thread(far.recv, 1) == b""
        far.close()

    run(main())


@pytest.mark.usefixtures("exhausted")
def test_a_server_leaves_no_peer_waiting(run: Run) -> None:
    handled: list[Stream] = []
    told: list[dict[str, Any]] = []

    async def handle(stream: Stream) -> None:
        handled.append(stream)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        listener = socket.create_server(("127.0.0.1", 0))
        async with await serve(handle, listener):
            with socket.create_connection(listener.getsockname(), timeout=5) as peer:
                assert await asyncio.to_thread(peer.recv, 1) == b""

    run(main())
    assert (handled, [context["exception"].errno for context in told]) == ([], [EMFILE])


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(Path(tmp_path_factory.mktemp("certificate")))


async def tls_pair(certificate: Certificate) -> tuple[Stream, ssl.SSLSocket]:
    near, far = tcp_pair()

    def accept() -> ssl.SSLSocket:
        return certificate.server.wrap_socket(far, server_side=True)

    accepting = asyncio.create_task(asyncio.to_thread(accept))
    stream = await wrap(near, ssl=certificate.client, server_hostname="localhost")
    return stream, await accepting


def test_what_is_no_tls_is_told_with_what_openssl_said_of_it(run: Run, certificate: Certificate) -> None:
    async def main() -> None:
        stream, far = await tls_pair(certificate)
        far.sendall(b"hello")
        assert await stream.recv_exactly(5) == b"hello"
        with socket.socket(fileno=os.dup(far.fileno())) as raw:
            raw.sendall(b"no TLS record at all")
        for _ in range(2):
            with pytest.raises(TlsError, match="WRONG_VERSION_NUMBER") as caught:
                await stream.recv(1, deadline=soon(10))
            assert isinstance(caught.value.__cause__, ssl.SSLError)
        far.close()

    run(main())


def test_a_tls_server_lives_through_peers_that_speak_no_tls(run: Run, certificate: Certificate) -> None:
    """From the start, or all of a sudden."""
    ends: list[object] = []

    async def handle(stream: Stream) -> None:
        await stream.sendall(b"hello")
        try:
            await stream.recv(1)
        finally:
            ends.append(stream.error)

    async def main() -> None:
        shown: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: shown.append(context))
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        async with await serve(handle, listener, ssl=certificate.server):
            with socket.create_connection(address, 10) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while await asyncio.to_thread(stranger.recv, 99):
                    pass
            stream = await wrap(
                socket.create_connection(address), ssl=certificate.client, server_hostname="localhost"
            )
            assert await stream.recv_exactly(5, deadline=soon(10)) == b"hello"
            with socket.socket(fileno=os.dup(stream.transport.get_extra_info("socket").fileno())) as raw:
                raw.send(b"no TLS record at all")
            while not ends:
                await asyncio.sleep(0.001)
            stream.abort()
            await asyncio.sleep(0.01)
        gc.collect()
        assert [type(end) for end in ends] == [TlsError] and not shown

    run(main())


def test_a_long_delimiter_makes_no_long_sentence(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        far.close()
        with pytest.raises(Truncated) as caught:
            await stream.recv_until(b"x" * 1_000_000, 1 << 30)
        assert str(caught.value).endswith("... of 1000000 bytes.") and len(str(caught.value)) < 200

    with_stream(run, work)


def test_abort_ends_tls_too(run: Run, certificate: Certificate) -> None:
    async def main() -> None:
        stream, far = await tls_pair(certificate)
        stream.abort()
        with pytest.raises(UsageError, match="the stream is closed"):
            await stream.recv(1)
        far.settimeout(5)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(lambda: far.recv(1) or far.unwrap())
        assert stream.error is None
        far.close()

    run(main())


# ---- memory


def test_a_silent_stream_holds_no_memory_for_what_may_come(run: Run) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        assert stream.inbox.capacity_bytes == 0
        far.sendall(bytes(1 << 17))
        await stream.recv_exactly(1 << 17)
        assert stream.inbox.capacity_bytes == 0

    with_stream(run, work)


def test_a_closed_stream_is_gone_without_the_garbage_collector(run: Run) -> None:
    gone: list[weakref.ref[object]] = []

    async def handle(stream: Stream) -> None:
        gone.extend([weakref.ref(stream), weakref.ref(stream.protocol)])
        await stream.sendall(await stream.recv(9))

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        async with await serve(handle, listener):
            peer = socket.create_connection(listener.getsockname())
            peer.setblocking(False)
            async with await wrap(peer) as stream:
                gone.extend([weakref.ref(stream), weakref.ref(stream.protocol)])
                await stream.sendall(b"x")
                assert [await stream.recv(9), await stream.recv(9)] == [b"x", b""]
        del stream
        limit = soon(5)
        while any(one() for one in gone) and time.monotonic() < limit:
            await asyncio.sleep(0.001)
        assert [one() for one in gone] == [None] * 4

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()

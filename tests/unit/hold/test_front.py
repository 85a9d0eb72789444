# SPDX-License-Identifier: Apache-2.0
"""A compiled front is its function to whoever calls, awaits, cancels, inspects or forgets it."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
import uvloop
from conformance.drivers import tcp_pair, unix_pair

import holdfast
from holdfast import _native
from holdfast.errors import DeadlineExceeded, Truncated, UsageError
from holdfast.hold import receive
from holdfast.hold.front import front
from holdfast.hold.stream import Stream, wrap
from holdfast.hold.stream_protocol import HIGH_WATER_BYTES

FRONTS = [receive.recv, receive.recv_into, Stream.recv, Stream.recv_exactly]
LOOPS: list[Callable[[Coroutine[Any, Any, None]], None]] = [asyncio.run, uvloop.run]

loops = pytest.mark.parametrize("run", LOOPS, ids=["asyncio", "uvloop"])


# ---- as a function


@pytest.mark.parametrize("made", FRONTS)
def test_it_looks_like_its_function(made: Any) -> None:
    plain = made.__wrapped__
    assert type(made) is _native.Front
    assert (made.__doc__, made.__name__, made.__module__) == (plain.__doc__, plain.__name__, plain.__module__)
    assert inspect.signature(made) == inspect.signature(plain)
    assert asyncio.iscoroutinefunction(made) == asyncio.iscoroutinefunction(plain)
    assert pickle.loads(pickle.dumps(made)) is made is copy.deepcopy(made)


def test_its_usual_case_must_exist() -> None:
    with pytest.raises(ValueError):
        front("nonsense")(lambda sock, n: None)


@pytest.mark.parametrize(
    ("args", "named"),
    [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1, 2), {"timeout": 3}), ((1, 2), {"deadline": 1, "n": 1})],
)
@pytest.mark.parametrize("made", FRONTS)
def test_a_wrong_call_is_told_by_the_function(
    made: Any, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as expected:
        made.__wrapped__(*args, **named)
    with pytest.raises(TypeError) as caught:
        made(*args, **named)
    assert str(caught.value) == str(expected.value)


def test_arguments_may_have_their_names() -> None:
    near, far = unix_pair()
    far.sendall(b"abcd")
    buffer = bytearray(1)
    assert receive.recv(n=1, sock=near, deadline=time.monotonic() + 9) == b"a"
    assert receive.recv(near, n=1) == b"b"
    assert receive.recv_into(near, buffer=buffer, deadline=None) == 1
    assert (buffer, receive.recv(near, 9, deadline=time.monotonic() + 9)) == (b"c", b"d")
    near.close()
    far.close()


def test_a_subclass_of_socket_is_left_to_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS socket is one."""

    class Calls:
        @staticmethod
        def receive(sock: socket.socket, *_: object) -> bytes:
            return type(sock).__name__.encode()

    class Special(socket.socket): ...

    monkeypatch.setattr(receive, "calls", Calls)
    near, far = unix_pair()
    held = Special(fileno=near.detach())
    far.sendall(b"data")
    assert receive.recv(held, 9) == b"Special"
    held.close()
    far.close()


@pytest.mark.parametrize("wrong", [3, None, "sock"])
def test_what_is_no_socket_is_refused_alike(wrong: Any) -> None:
    for made in (receive.recv, receive.recv_into):
        with pytest.raises((AttributeError, OSError, TypeError)) as expected:
            inspect.unwrap(made)(wrong, 9)  # type: ignore[operator]
        with pytest.raises(type(expected.value)):
            made(wrong, 9)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2**63, 2**70])
def test_a_size_that_no_memory_has_is_refused(size: int) -> None:
    near, far = unix_pair()
    with pytest.raises((OverflowError, MemoryError)):
        receive.recv(near, size)
    near.close()
    far.close()


def test_no_reference_is_kept_on_any_way_out() -> None:
    near, far = unix_pair()
    far.sendall(b"x" * 50)
    deadline = -1.0
    before = sys.getrefcount(near), sys.getrefcount(far), sys.getrefcount(deadline)
    for _ in range(50):
        assert receive.recv(near, 1) == b"x"
        with pytest.raises(DeadlineExceeded):
            receive.recv(far, 1, deadline=deadline)
        with pytest.raises(BufferError):
            receive.recv_into(near, b"read only")  # type: ignore[arg-type]
    far.setblocking(False)
    for _ in range(50):
        with pytest.raises(BlockingIOError):
            receive.recv(far, 1)
    gc.collect()
    assert (sys.getrefcount(near), sys.getrefcount(far), sys.getrefcount(deadline)) == before
    near.close()
    far.close()


WITHOUT = """
import asyncio, socket, sys
sys.modules["holdfast._native"] = None  # as if it had not been built
import holdfast
from holdfast.hold import front, inbox, inbox_portable

async def stream(sock):
    async with await holdfast.wrap(sock) as one:
        return await one.recv_exactly(2) + await one.recv(9)

near, far = socket.socketpair()
far.sendall(b"abcdef")
buffer = bytearray(1)
assert (holdfast.recv(near, 1), holdfast.recv_into(near, buffer), buffer) == (b"a", 1, b"b")
assert asyncio.run(stream(near)) == b"cdef"
assert inbox.Inbox is inbox_portable.Inbox
print(type(holdfast.recv).__name__, type(holdfast.Stream.recv).__name__)
"""


def test_without_the_extension_there_is_the_function() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("function function\n", "")


# ---- as a coroutine


def with_stream(
    run: Callable[[Coroutine[Any, Any, None]], None],
    work: Callable[[Stream, socket.socket], Awaitable[None]],
    data: bytes = b"",
) -> None:
    """Run ``work`` with a stream that has received ``data``, and its far end."""

    async def main() -> None:
        near, far = tcp_pair()
        far.sendall(data)
        with far:
            async with await wrap(near) as stream:
                while len(stream.inbox) < len(data):
                    await asyncio.sleep(0.001)
                await work(stream, far)

    run(main())


@loops
def test_nothing_is_taken_before_it_is_awaited(run: Any) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        begun = stream.recv_exactly(3)
        assert stream.peek(9) == b"abcdef"
        assert await begun == b"abc"
        stream.recv(9).close()  # type: ignore[attr-defined]
        assert await stream.recv(9) == b"def"

    with_stream(run, work, b"abcdef")


@loops
def test_a_task_that_is_cancelled_before_it_begins_loses_nothing(run: Any) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        for call in (stream.recv, stream.recv_exactly):
            task = asyncio.ensure_future(call(3))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await stream.recv_exactly(3) == b"abc"

    with_stream(run, work, b"abc")


@loops
def test_a_task_that_is_cancelled_while_it_waits_loses_nothing(run: Any) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        task = asyncio.create_task(stream.recv_exactly(6))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        far.sendall(b"def")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await stream.recv_exactly(6) == b"abcdef"

    with_stream(run, work, b"abc")


@loops
def test_whatever_takes_a_coroutine_takes_it(run: Any) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        assert await asyncio.create_task(stream.recv(1)) == b"0"  # type: ignore[arg-type]
        assert await asyncio.wait_for(stream.recv_exactly(1), 9) == b"1"
        assert await asyncio.gather(stream.recv(1), stream.recv_exactly(1)) == [b"2", b"3"]
        async with asyncio.timeout(9), asyncio.TaskGroup() as group:
            task = group.create_task(stream.recv_exactly(4))  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
            far.sendall(b"67")
        assert task.result() == b"4567"
        waiting = asyncio.ensure_future(stream.recv(1))
        assert "Stream.recv()" in repr(waiting)
        far.sendall(b"8")
        assert await waiting == b"8"

    with_stream(run, work, b"012345")


@loops
def test_waiting_goes_on_as_the_function_and_its_errors_come_out(run: Any) -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        with pytest.raises(DeadlineExceeded) as late:
            await stream.recv_exactly(6, deadline=time.monotonic() + 0.02)
        assert late.value.partial == b"abc"
        with pytest.raises(UsageError):
            await stream.recv_exactly(-1)
        with pytest.raises(UsageError):
            await stream.recv(-(2**70))
        with pytest.raises(TypeError):
            await stream.recv_exactly("3")  # type: ignore[arg-type]
        assert [await stream.recv(0), await stream.recv_exactly(0)] == [b"", b""]
        far.shutdown(socket.SHUT_WR)
        with pytest.raises(Truncated) as short:
            await stream.recv_exactly(2**70)
        assert short.value.partial == b"abc"
        assert [await stream.recv(2**70), await stream.recv(1)] == [b"abc", b""]

    with_stream(run, work, b"abc")


def test_no_reference_is_kept_by_an_awaitable() -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        size, deadline = int("1000"), time.monotonic() + 9
        before = sys.getrefcount(stream), sys.getrefcount(size), sys.getrefcount(deadline)
        for _ in range(20):
            assert len(await stream.recv_exactly(size, deadline=deadline)) == size
            with pytest.raises(DeadlineExceeded):
                await stream.recv_exactly(1 << 20, deadline=-1.0)
            stream.recv(size, deadline=deadline).close()  # type: ignore[attr-defined]
            with pytest.raises(ValueError):
                stream.recv(size, deadline=deadline).throw(ValueError())  # type: ignore[attr-defined]
        gc.collect()
        assert (sys.getrefcount(stream), sys.getrefcount(size), sys.getrefcount(deadline)) == before

    with_stream(asyncio.run, work, bytes(20_000))


def test_a_program_that_uses_it_can_be_tested_with_a_mock() -> None:
    async def work() -> list[bytes]:
        stream = mock.create_autospec(Stream, instance=True)
        stream.recv.return_value = b"mocked"
        return [await stream.recv(3), await stream.recv(3, deadline=1.0)]

    assert asyncio.run(work()) == [b"mocked", b"mocked"]


def test_it_is_awaited_once() -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        begun = stream.recv(1)
        assert await begun == b"a"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await begun
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            begun.throw(ValueError)  # type: ignore[attr-defined]
        waiting: Any = stream.recv(1)
        task = asyncio.create_task(waiting)
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await waiting
        far.sendall(b"b")
        assert await task == b"b"

    with_stream(asyncio.run, work, b"a")


def test_it_can_be_driven_by_hand() -> None:
    """As libraries do that are not asyncio: send, throw, close, next."""

    async def work(stream: Stream, far: socket.socket) -> None:
        hasty: Any = stream.recv(1)
        with pytest.raises(TypeError, match="can't send non-None value"):
            hasty.send(1)
        with pytest.raises(StopIteration) as end:
            hasty.send(None)
        assert end.value.value == b"a"
        with pytest.raises(StopIteration) as end:
            next(stream.recv(1).__await__())
        assert end.value.value == b"b"
        waiting: Any = stream.recv(1)
        waiting.send(None)
        with pytest.raises(ZeroDivisionError):
            waiting.throw(ZeroDivisionError("by hand"))
        closed: Any = stream.recv(1)
        closed.send(None)
        closed.close()
        closed.close()
        for wrong in ((), (1, 2, 3, 4), (5,)):
            unused: Any = stream.recv(1)
            with pytest.raises(TypeError):
                unused.throw(*wrong)
            unused.close()
        fresh: Any = stream.recv(1)
        with pytest.raises(KeyError, match="one"):
            fresh.throw(KeyError, "one", None)

    with_stream(asyncio.run, work, b"ab")


def test_every_result_is_told_by_an_exception_of_its_own() -> None:
    """From Python 3.12 on one exception serves again and again, unless somebody has kept it."""

    async def work(stream: Stream, far: socket.socket) -> None:
        kept = []
        for _ in range(3):
            try:
                next(stream.recv(1).__await__())
            except StopIteration as end:
                kept.append(end)
            await stream.recv(1)
        assert [end.value for end in kept] == [b"a", b"c", b"e"]
        data, alike = await stream.recv_exactly(1000), bytes(bytearray(1000))
        assert (data, sys.getrefcount(data)) == (alike, sys.getrefcount(alike))

    with_stream(asyncio.run, work, b"abcdef" + bytes(1000))


def test_it_does_not_run_inside_itself() -> None:
    class Stub:
        inbox = None

        @front("take")
        async def recv(self, n: int, *, deadline: float | None = None) -> str:
            for call in (one.send, one.throw):
                with pytest.raises(ValueError, match="already executing"):
                    call(None if call == one.send else KeyError())
            with pytest.raises(ValueError, match="already executing"):
                one.close()
            return "done"

    one: Any = Stub().recv(1)
    with pytest.raises(StopIteration, match="done"):
        one.send(None)


def test_a_forgotten_await_is_told() -> None:
    async def work(stream: Stream, far: socket.socket) -> None:
        with pytest.warns(RuntimeWarning, match=r"coroutine 'Stream.recv_exactly' was never awaited"):
            stream.recv_exactly(1)
        assert stream.peek(9) == b"a"

    with_stream(asyncio.run, work, b"a")


def test_cycles_through_it_are_collected() -> None:
    class Holder:
        @front("take")
        async def recv(self, n: int, *, deadline: float | None = None) -> bytes:
            return await asyncio.get_running_loop().create_future()

    async def work() -> None:
        gone = []
        for step in ("fresh", "waiting"):
            holder: Any = Holder()
            holder.inbox = None
            holder.kept = holder.recv(1)
            if step == "waiting":
                holder.kept.send(None)
            gone.append(weakref.ref(holder))
            del holder
        with pytest.warns(RuntimeWarning, match="never awaited"):
            gc.collect()
        assert [one() for one in gone] == [None, None]

    asyncio.run(work())


@loops
def test_a_reader_that_falls_behind_stops_the_peer_and_starts_it_again(run: Any) -> None:
    """Taken at once or not: below the low-water mark the loop reads on."""

    async def work(stream: Stream, far: socket.socket) -> None:
        far.setblocking(False)
        sent = total = 0
        for call in (stream.recv_exactly, stream.recv):
            while not stream.protocol.paused:
                with suppress(BlockingIOError):
                    sent += far.send(bytes(1 << 16))
                await asyncio.sleep(0)
            assert HIGH_WATER_BYTES <= len(stream.inbox) < 2 * HIGH_WATER_BYTES
            while stream.protocol.paused:
                total += len(await call(1000))
            assert HIGH_WATER_BYTES // 2 - 1000 <= len(stream.inbox) < HIGH_WATER_BYTES // 2
        far.shutdown(socket.SHUT_WR)
        while data := await stream.recv(1 << 16):
            total += len(data)
        assert total == sent

    with_stream(run, work)


def test_the_public_names_are_the_fronts() -> None:
    assert (holdfast.recv, holdfast.recv_into) == (receive.recv, receive.recv_into)

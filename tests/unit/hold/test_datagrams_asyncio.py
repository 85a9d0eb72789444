"""The asyncio reader: batches without a queue of its own, on asyncio's and uvloop's loops."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import importlib
import importlib.util
import math
import os
import socket
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from unit.hold.datagram_pairs import Ends, ends

from holdfast.errors import DeadlineExceeded, UsageError
from holdfast.hold.datagrams import send_batch
from holdfast.hold.datagrams_asyncio import FAIR_BATCHES, DatagramReader

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(
        importlib.util.find_spec("uvloop") is None, reason="uvloop comes with make bench"
    )),
])  # fmt: skip
def run(request: pytest.FixtureRequest) -> Run:
    make = importlib.import_module(request.param).new_event_loop

    def run_one(task: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(asyncio.wait_for(task, 20))

    return run_one


def send(two: Ends, *texts: bytes) -> None:
    send_batch(two.sender, [(text, two.to) for text in texts])


def test_what_is_there_comes_as_one_batch(run: Run) -> None:
    with ends() as two:
        send(two, b"1", b"2", b"")
        batch = run(DatagramReader(two.receiver).recv_batch())
    assert batch == [(text, two_name) for two_name in [batch[0][1]] for text in (b"1", b"2", b"")]


def test_it_waits_for_what_is_not_there_and_then_again(run: Run) -> None:
    async def receive(two: Ends) -> list[bytes]:
        loop, reader, got = asyncio.get_running_loop(), DatagramReader(two.receiver), []
        for text in (b"1", b"2"):
            loop.call_later(0.01, send, two, text)
            got += [data for data, _ in await reader.recv_batch()]
        return got

    with ends() as two:
        assert run(receive(two)) == [b"1", b"2"]


def test_closing_ends_the_iteration_of_a_task_that_waits(run: Run) -> None:
    async def receive(two: Ends) -> list[bytes]:
        async with DatagramReader(two.receiver) as reader:
            asyncio.get_running_loop().call_later(0.02, reader.close)
            got = [data async for batch in reader for data, _ in batch]
            send(two, b"after")
            assert await reader.recv_batch() == []
        return got

    with ends() as two:
        send(two, b"1")
        assert run(receive(two)) == [b"1"]
        assert two.receiver.recv(10) == b"after"


def test_a_deadline_ends_the_wait_and_nothing_else(run: Run) -> None:
    async def receive(two: Ends) -> None:
        reader = DatagramReader(two.receiver)
        deadline = time.monotonic() + 0.02
        with pytest.raises(DeadlineExceeded):
            await reader.recv_batch(deadline=deadline)
        assert time.monotonic() >= deadline
        send(two, b"late")
        assert len(await reader.recv_batch(deadline=deadline)) == 1

    with ends() as two:
        run(receive(two))


def test_cancelling_takes_nothing_away_and_leaves_no_callback(run: Run) -> None:
    async def receive(two: Ends) -> bytes:
        reader = DatagramReader(two.receiver)
        task = asyncio.ensure_future(reader.recv_batch())
        await asyncio.sleep(0.01)
        send(two, b"kept")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not asyncio.get_running_loop().remove_reader(two.receiver.fileno())
        return (await reader.recv_batch())[0][0]

    with ends() as two:
        assert run(receive(two)) == b"kept"


def test_one_task_at_a_time(run: Run) -> None:
    async def receive(two: Ends) -> None:
        reader = DatagramReader(two.receiver)
        first = asyncio.ensure_future(reader.recv_batch())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="Another task"):
            await reader.recv_batch()
        send(two, b"1")
        assert len(await first) == 1

    with ends() as two:
        run(receive(two))


def test_what_nobody_waits_for_stays_in_the_socket(run: Run) -> None:
    async def receive(two: Ends) -> None:
        reader = DatagramReader(two.receiver, max_messages=1)
        assert [data for data, _ in await reader.recv_batch()] == [b"1"]
        await asyncio.sleep(0.01)
        assert two.receiver.recv(10) == b"2"

    with ends() as two:
        send(two, b"1", b"2")
        run(receive(two))


def test_a_flood_leaves_other_tasks_their_turn(run: Run) -> None:
    async def receive(two: Ends) -> list[int]:
        reader, turns, count = DatagramReader(two.receiver, max_messages=1), [], 0

        async def other() -> None:
            while count < 40:
                turns.append(count)
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        while count < 40:
            await reader.recv_batch()
            count += 1
        await task
        return turns

    with ends() as two:
        send(two, *[b"x"] * 40)
        turns = run(receive(two))
    gaps = [after - before for before, after in pairwise(turns)]
    assert len(turns) >= 4
    assert max(gaps) <= FAIR_BATCHES + 1


def test_an_icmp_answer_is_raised(run: Run) -> None:
    with ends("udp4 connected") as two:
        two.sender.close()
        two.receiver.send(b"nobody")
        with pytest.raises(ConnectionRefusedError):
            run(DatagramReader(two.receiver).recv_batch())


def test_a_closed_socket_is_an_error_and_no_wait(run: Run) -> None:
    with ends() as two:
        two.receiver.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            run(DatagramReader(two.receiver).recv_batch())


def test_a_socket_that_is_closed_during_the_wait_ends_it(run: Run) -> None:
    async def receive(two: Ends) -> None:
        task = asyncio.ensure_future(DatagramReader(two.receiver).recv_batch())
        await asyncio.sleep(0.02)
        two.receiver.close()
        await asyncio.wait([task], timeout=5)
        assert task.done()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await task

    with ends() as two:
        run(receive(two))


def test_the_reader_of_a_socket_that_got_the_same_number_is_left_alone() -> None:
    async def receive(two: Ends) -> int:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        near, far = socket.socketpair()
        task = asyncio.ensure_future(DatagramReader(two.receiver).recv_batch())
        await asyncio.sleep(0.02)
        fd = two.receiver.fileno()
        loop.remove_reader(fd)  # as a loop does that is told of the close
        two.receiver.close()
        os.dup2(near.fileno(), fd)
        loop.add_reader(fd, came.set)
        with near, far:
            await asyncio.wait([task], timeout=5)
            far.send(b"x")
            await asyncio.wait_for(came.wait(), 5)
            loop.remove_reader(fd)
        os.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await task
        return came.is_set()

    with ends() as two:
        assert asyncio.run(receive(two))


def test_a_deadline_that_is_no_number_is_refused(run: Run) -> None:
    with ends() as two, pytest.raises(UsageError, match="the deadline is nan"):
        run(DatagramReader(two.receiver).recv_batch(deadline=math.nan))

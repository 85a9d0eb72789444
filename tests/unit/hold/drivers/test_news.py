# SPDX-License-Identifier: Apache-2.0
"""Changes of addresses and routes reach the sessions that they concern, and a storm of them costs little."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
import uvloop

import holdfast
from holdfast import Session, SessionPolicy
from holdfast.hold.drivers import news
from holdfast.hold.drivers.news import Fate, News, RouteWatch, is_here, route_watch, source
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target
from holdfast.linux.rtnetlink import ANYTHING, EVERYWHERE, NOTHING, Changes
from holdfast.policy import Backoff

HERE, ELSEWHERE = ("127.0.0.1", 4000), ("192.0.2.77", 4000)  # RFC 5737: no machine has that
TEN = Changes(frozenset({IPv4Network("10.0.0.0/8")}))
RUNNERS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Kernel:
    """Tells what a test says, as often as it says so."""

    def __init__(self) -> None:
        self.sock, self._tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self._tell.setblocking(False)
        self.changes, self.closed, self.read_often = TEN, False, 0
        self.error: OSError | None = None

    def tell(self) -> None:
        with contextlib.suppress(BlockingIOError):  # as many wait as may
            self._tell.send(b".")

    def read(self) -> Changes:
        self.read_often += 1
        if self.error is not None:
            raise self.error
        came = False
        while True:
            try:
                came = bool(self.sock.recv(1)) or came
            except BlockingIOError:
                return self.changes if came else NOTHING

    def close(self) -> None:
        self.closed = True
        self.sock.close()
        self._tell.close()


class Patient(Backoff):
    """Always waits as long as it may."""

    def delay_s(self, attempt: int, chance: float) -> float:
        return self.limit_s(attempt)


async def until(so: Callable[[], bool]) -> None:
    """Wait until it is; the test's own time ends it."""
    async with asyncio.timeout(5):
        while not so():
            await asyncio.sleep(0.005)


class Curious:
    """Wants to know."""

    def __init__(self, busy_s: float = 0.0) -> None:
        self.busy_s, self.heard = busy_s, 0

    def read(self, news: News) -> None:
        self.heard += 1
        end_s = time.thread_time() + self.busy_s
        while time.thread_time() < end_s:
            pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    one = Kernel()
    monkeypatch.setattr(news, "RouteChanges", lambda: one)
    yield one
    one.close()


@RUNNERS
def test_a_flock_of_changes_is_one_piece_of_news(kernel: Kernel, runner: Callable[..., object]) -> None:
    async def work() -> None:
        watch, session = RouteWatch(), Curious()
        watch.enter(session)
        for _ in range(100):
            kernel.tell()
        await until(lambda: session.heard == 1)
        await asyncio.sleep(0.1)
        assert (session.heard, kernel.read_often) == (1, 1)
        kernel.tell()
        await until(lambda: session.heard == 2)
        assert kernel.read_often == 2
        watch.leave(session)
        assert kernel.closed

    runner(work())


def test_thousands_are_told_in_many_turns_of_the_loop(kernel: Kernel) -> None:
    async def work() -> None:
        watch, sessions = RouteWatch(), [Curious() for _ in range(1000)]
        for one in sessions:
            watch.enter(one)
        kernel.tell()
        most = heard = 0
        while heard < 1000:
            await asyncio.sleep(0)
            before, heard = heard, sum(one.heard for one in sessions)
            most = max(most, heard - before)
        assert (most, heard) == (news.AT_ONCE, 1000)
        await asyncio.sleep(0)
        for one in sessions:
            watch.leave(one)
        assert kernel.closed

    asyncio.run(asyncio.wait_for(work(), 10))


@RUNNERS
def test_a_storm_takes_a_small_part_of_the_time(kernel: Kernel, runner: Callable[..., object]) -> None:
    async def work() -> None:
        watch, session = RouteWatch(), Curious(busy_s=0.01)
        watch.enter(session)
        end_s = time.monotonic() + 0.7
        while time.monotonic() < end_s:
            kernel.tell()
            await asyncio.sleep(0.001)
        watch.leave(session)
        # 10 ms of a processor each, a tenth of it: 100 ms lie between two.
        assert 2 <= session.heard <= 8

    runner(work())


def test_what_is_over_before_it_is_read_is_no_news(kernel: Kernel) -> None:
    async def work() -> None:
        watch, session = RouteWatch(), Curious()
        watch.enter(session)
        kernel.changes = NOTHING
        kernel.tell()
        await until(lambda: kernel.read_often == 1)
        assert session.heard == 0
        watch.leave(session)

    asyncio.run(work())


def test_who_leaves_or_is_forgotten_hears_nothing_and_the_last_closes(kernel: Kernel) -> None:
    async def work() -> None:
        watch, stays, leaves, forgotten = RouteWatch(), Curious(), Curious(), Curious()
        for one in (stays, leaves, forgotten):
            watch.enter(one)
        watch.leave(leaves)
        del forgotten, one
        gc.collect()
        kernel.tell()
        await until(lambda: kernel.read_often == 1)
        assert (stays.heard, leaves.heard, kernel.closed) == (1, 0, False)
        kernel.tell()
        del stays
        gc.collect()
        await until(lambda: kernel.closed)

    asyncio.run(work())


def test_the_last_may_leave_while_changes_are_gathered(kernel: Kernel) -> None:
    async def work() -> None:
        watch, session = RouteWatch(), Curious()
        watch.enter(session)
        kernel.tell()
        await asyncio.sleep(0.01)
        watch.leave(session)
        await asyncio.sleep(0.15)
        assert (session.heard, kernel.read_often, kernel.closed) == (0, 0, True)

    asyncio.run(work())


def test_a_kernel_that_tells_no_more_is_left_alone(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "holdfast.hold.session")

    async def work() -> None:
        watch, session = RouteWatch(), Curious()
        watch.enter(session)
        kernel.error = OSError(9, "Bad file descriptor")
        kernel.tell()
        await until(lambda: kernel.closed)
        watch.enter(Curious())
        assert (session.heard, kernel.closed) == (0, True)

    asyncio.run(work())
    assert [record.levelname for record in caplog.records if "not told" in record.getMessage()] == ["DEBUG"]


def test_a_want_of_descriptors_passes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        watch, session = RouteWatch(), Curious()
        with monkeypatch.context() as patch:
            patch.setattr(news, "RouteChanges", _no_descriptor)
            watch.enter(Curious())
        watch.enter(session)
        kernel.tell()
        await until(lambda: session.heard == 1)
        watch.leave(session)

    asyncio.run(work())


def _no_descriptor() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)
    await session.send_eof()


def test_where_the_kernel_refuses_sessions_work_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a sandbox (seccomp, gVisor) there may be no such sockets."""
    caplog.set_level(logging.DEBUG, "holdfast.hold.session")

    def refuse() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(news, "RouteChanges", refuse)
    monkeypatch.setattr(Target, "remote", True)

    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0") as server:
            for _ in range(2):
                async with holdfast.connect(server.url) as session:
                    await session.send(b"x")
                    assert await session.recv() == b"x"
                    await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 10))
    told = [record for record in caplog.records if "not told" in record.getMessage()]
    assert [record.levelname for record in told] == ["DEBUG"]


@RUNNERS
@pytest.mark.parametrize("named", [False, True])
def test_who_waits_to_dial_again_dials_when_a_way_is_there(
    kernel: Kernel, runner: Callable[..., object], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Where even the name cannot be looked up, any change may be the one that helps."""
    monkeypatch.setattr(Target, "remote", True)
    reach, look_up, tried = Dialer.open, Dialer.addresses, [0, 0]
    away = False

    async def find(dialer: Dialer, *args: Any) -> Any:
        if away and named:
            tried[away] += 1
            raise OSError(errno.EAGAIN, "Temporary failure in name resolution")
        return await look_up(dialer, *args)

    monkeypatch.setattr(Dialer, "addresses", find)

    async def dial(dialer: Dialer, *args: Any) -> Any:
        tried[away] += 1
        if away:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return await reach(dialer, *args)

    monkeypatch.setattr(Dialer, "open", dial)
    policy = SessionPolicy(backoff=Patient(first_s=30, cap_s=30))

    async def work() -> None:
        nonlocal away
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0") as server,
            holdfast.connect(server.url, policy=policy) as session,
        ):
            away = True
            assert session.wire is not None
            session.wire.abort()
            while not tried[True]:
                await asyncio.sleep(0.01)
            if not named:
                kernel.tell()
                await until(lambda: kernel.read_often == 1)
                assert tried == [1, 1], "another network than the server's"
                kernel.changes = Changes(EVERYWHERE)
            away = False
            kernel.tell()
            await session.send(b"x")
            assert await session.recv(deadline=time.monotonic() + 5) == b"x"
            assert tried == [2, 1]
            await session.send_eof()

    runner(asyncio.wait_for(work(), 20))


def netlinks() -> int:
    """How many netlink sockets this process has open."""
    lines = Path("/proc/self/net/netlink").read_text().splitlines()[1:]
    known = {f"socket:[{line.split()[9]}]" for line in lines}
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            count += os.readlink(one) in known
    return count


@RUNNERS
def test_one_socket_for_all_sessions_of_a_loop_and_none_afterwards(
    runner: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0") as server:
            async with holdfast.connect(server.url) as first:
                assert netlinks() == before, "sessions of this machine need none"
                await first.send_eof()
            monkeypatch.setattr(Target, "remote", True)
            async with holdfast.connect(server.url) as first, holdfast.connect(server.url) as second:
                assert netlinks() == before + 1
                assert route_watch() is route_watch()
                await first.send_eof()
                await second.send_eof()
            await asyncio.sleep(0)
            assert netlinks() == before

    before = netlinks()
    runner(asyncio.wait_for(work(), 10))


def test_a_loop_that_is_dropped_leaves_nothing_open() -> None:
    before = netlinks()
    loop = asyncio.new_event_loop()
    session = Curious()

    async def work() -> None:
        route_watch().enter(session)

    loop.run_until_complete(work())
    assert netlinks() == before + 1
    loop.close()
    del loop
    gc.collect()
    assert netlinks() == before


# ---- whom it concerns


@pytest.mark.parametrize(
    ("changes", "host", "concerned"),
    [
        (TEN, "10.1.2.3", True),
        (TEN, "11.1.2.3", False),
        (TEN, "::ffff:10.1.2.3", True),
        (TEN, "2001:db8::1", False),
        (Changes(frozenset({IPv6Network("fe80::/64")})), "fe80::1%eth0", True),
        (Changes(EVERYWHERE), "2001:db8::1", True),
        (Changes(less=True), "10.1.2.3", False),
        (ANYTHING, "/run/a.sock", False),
    ],
)
def test_a_route_concerns_whom_it_leads_to(changes: Changes, host: str, concerned: bool) -> None:
    assert News(changes).concerns(host) is concerned


@pytest.mark.parametrize(
    ("changes", "local", "peer", "fate"),
    [
        (Changes(less=True), HERE, HERE, Fate.SAME),
        (Changes(less=True), ELSEWHERE, HERE, Fate.GONE),
        (Changes(less=True), ("127.0.0.2", 4000), HERE, Fate.CHANGED),
        (TEN, ELSEWHERE, HERE, Fate.SAME),
        (TEN, HERE, ("10.1.2.3", 80), Fate.CHANGED),
    ],
    ids=["unrelated", "address gone", "would come from another", "nothing gone", "route to it"],
)
def test_the_fate_of_a_way(
    changes: Changes, local: tuple[str, int], peer: tuple[str, int], fate: Fate
) -> None:
    assert News(changes).fate(local, peer) is fate


def test_a_scope_is_no_name_to_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its interface gone, the resolver would be asked for ``fe80::1%eth7``, and may take seconds."""
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", asked.append)
    assert not is_here(("fe80::77%eth7", 0, 0, 9999))
    assert source(("fe80::77%eth7", 1, 0, 9999)) is None
    assert asked == []

# SPDX-License-Identifier: Apache-2.0
"""What a session says of its end, and of the ends of its transports: who, why, and what had not arrived."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import holdfast
from holdfast import DeadlineExceeded, GaveUp, Session, SessionEvent, SessionLost, SessionPolicy
from holdfast.hold.drivers import session as driver
from holdfast.hold.drivers.blocking import _Loop
from holdfast.hold.drivers.ended import in_words
from holdfast.hold.drivers.policy import Happened
from holdfast.hold.drivers.wire import LATE, Wire
from holdfast.hold.heartbeat import Life, Rhythm
from holdfast.hold.session.codes import Code, Violation
from holdfast.policy import Backoff

POLICY = SessionPolicy(keep_s=0.3, handshake_s=2, backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0))


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


async def reads(session: Session) -> None:
    while await session.recv():
        pass


def run(work: Callable[[], Awaitable[Any]], limit_s: float = 10) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(work(), limit_s)

    return asyncio.run(limited())


async def until(fact: Callable[[], object]) -> None:
    while not fact():
        await asyncio.sleep(0.005)


def opened(session: Session) -> socket.socket:
    """A second descriptor of the socket that carries it."""
    assert session.wire is not None and session.wire.transport is not None
    return socket.socket(fileno=socket.dup(session.wire.transport.get_extra_info("socket").fileno()))


def reset(session: Session) -> None:
    """Have this end's kernel send a RST."""
    with opened(session) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert session.wire is not None
    session.wire.abort()


# ---- the transport


def test_a_suspension_says_what_ended_the_transport(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.hold.session")
    events: list[SessionEvent] = []

    async def go() -> str:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0") as server,
            holdfast.connect(server.url, observer=events.append) as one,
        ):
            await one.send(b"x")
            await one.recv_exactly(1)
            reset(server.sessions[0])
            await until(lambda: one.counters.resumes)
            assert isinstance(one.parted, ConnectionResetError)
            assert one.parted.__traceback__ is None  # it would keep the whole transport
            return str(one.peer)

    peer = run(go)
    (why,) = [event.why for event in events if event.what is Happened.SUSPENDED]
    assert why == "connection reset by peer [ECONNRESET]"
    assert any(line.endswith(f"with {peer}: suspended: {why}") for line in caplog.messages)


def test_an_orderly_end_is_the_peers_or_our_own() -> None:
    at_client: list[SessionEvent] = []
    at_server: list[SessionEvent] = []

    async def go() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", observer=at_server.append) as server,
            holdfast.connect(server.url, observer=at_client.append) as one,
        ):
            await one.send(b"x")
            await one.recv_exactly(1)
            assert one.wire is not None
            one.wire.give_up()
            await until(lambda: one.counters.resumes and len(at_server) > 2)

    run(go)
    told = [
        [event.why for event in events if event.what is Happened.SUSPENDED]
        for events in (at_client, at_server)
    ]
    assert told[0] == ["this end closed it"]
    assert told[1][0] in ("the peer closed it", "connection reset by peer [ECONNRESET]")


def test_silence_is_named() -> None:
    events: list[SessionEvent] = []
    policy = SessionPolicy(keep_s=5, rhythm=Rhythm(0.02, 0.05, 0.01), backoff=POLICY.backoff)
    loop = _Loop()
    server = loop.run(holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy, observer=events.append).start)

    async def go() -> None:
        async with holdfast.connect(server.url, policy=policy) as one:
            await one.send(b"x")
            await one.recv_exactly(1)
            until_s = time.monotonic() + 5
            while len(events) < 2 and time.monotonic() < until_s:
                time.sleep(0.01)

    run(go)
    loop.run(server.close)
    assert [event.why for event in events][:2] == ["", "the peer gave no sign of life"]


# ---- the session


@pytest.mark.parametrize(
    ("code", "told"),
    [(1, "gave it up: its application gave up the session"), (300, "gave it up with code 300")],
)
def test_it_says_which_end_gave_it_up(code: int, told: str) -> None:
    lost: list[SessionLost] = []

    async def go() -> None:
        async def handle(session: Session) -> None:
            try:
                await session.recv()
            except SessionLost as error:
                lost.append(error)

        async with holdfast.serve(handle, "tcp://127.0.0.1:0") as server:
            async with holdfast.connect(server.url) as one:
                await one.abort(code)
                with pytest.raises(SessionLost) as caught:
                    await one.recv()
                lost.append(caught.value)
            await until(lambda: len(lost) == 2)

    run(go)
    assert {error.why for error in lost} == {f"this end {told}", f"the peer {told}"}
    assert {(error.cause, error.code) for error in lost} == {("unspecified", code)}


def test_after_a_good_end_it_says_that_it_was_closed() -> None:
    async def go() -> str:
        async with holdfast.serve(reads, "tcp://127.0.0.1:0") as server:
            async with holdfast.connect(server.url) as one:
                await one.send(b"all")
            await until(lambda: one.core.ended)
            with pytest.raises(SessionLost) as caught:
                await one.send(b"more")
            return str(caught.value)

    assert "has ended: both ends have closed it; the peer has confirmed 3 of 3 bytes" in run(go)


def test_an_expiry_says_how_long_and_what_was_met() -> None:
    async def go() -> SessionLost:
        async with holdfast.serve(reads, "tcp://127.0.0.1:0", policy=POLICY) as server:
            one = await holdfast.connect(server.url, policy=POLICY)
            await one.send(b"x")
            await one.flush()
            assert server._listener is not None
            address = server._listener.address
            server._listener.close()
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(address)  # and nobody else may have it meanwhile
            reset(server.sessions[0])
            with pytest.raises(SessionLost) as caught:
                await one.recv(deadline=time.monotonic() + 5)
            assert caught.value.why == (
                "no transport carried it for the 0.3 s that it is kept (the last one: connection reset by "
                f"peer [ECONNRESET]; the last attempt: {one.peer}: connection refused [ECONNREFUSED])"
            )
            return caught.value

    with socket.socket() as kept:
        error = run(go)
    assert (error.errno, error.cause) == (errno.ECONNREFUSED, "connection_refused")


def test_a_refusal_says_which_and_when_to_come_again() -> None:
    async def go() -> str:
        async with holdfast.serve(reads, "tcp://127.0.0.1:0", most_sessions=0) as server:
            with pytest.raises(GaveUp) as full:
                await holdfast.connect(server.url, deadline=time.monotonic() + 0.3)
            server.drain()
            with pytest.raises(GaveUp) as draining:
                await holdfast.connect(server.url, deadline=time.monotonic() + 0.3)
            return f"{full.value.losses[-1]} {draining.value.losses[-1]}"

    assert run(go) == (
        "The server refused the session: it has no room for another (BUSY); come again in 1 s. "
        "The server refused the session: it takes no new ones (DRAINING); come again in 1 s."
    )


# ---- what had not arrived


def test_a_deadline_that_passes_says_what_had_not_arrived() -> None:
    async def go() -> tuple[str, str]:
        async def neglects(session: Session) -> None:
            await asyncio.sleep(5)

        async with holdfast.serve(neglects, "tcp://127.0.0.1:0") as server:
            one = await holdfast.connect(server.url)
            await one.send(b"hello")
            await one.flush()
            with pytest.raises(DeadlineExceeded) as closing:
                await one.close(deadline=time.monotonic() + 0.05)
            await one.abort()
            other = await holdfast.connect(server.url)
            await other.send(bytes(1 << 20))
            with pytest.raises(DeadlineExceeded) as flushing:
                await other.flush(deadline=time.monotonic() + 0.05)
            missing = f"{(1 << 20) - other.confirmed_bytes} of {1 << 20}"
            await other.abort()
            assert str(flushing.value) == f"The deadline passed: the peer has not confirmed {missing} bytes."
            return str(closing.value), repr(closing.value.partial)

    assert run(go) == ("The deadline passed: the peer has not ended its direction.", "b''")


def test_leaving_in_vain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LEAVING_S", 0.05)

    async def go() -> None:
        async def neglects(session: Session) -> None:
            await asyncio.sleep(5)

        async with holdfast.serve(neglects, "tcp://127.0.0.1:0") as server, holdfast.connect(server.url):
            pass

    with pytest.raises(DeadlineExceeded) as caught:
        run(go)
    assert str(caught.value) == (
        "The deadline passed: the peer has not ended its direction; so this end gave the session up."
    )


# ---- listening


def test_an_address_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def go() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0") as server:
            for url in (server.url, f"unix://{tmp_path}/file", f"unix://{tmp_path}/none/x.sock"):
                with pytest.raises(OSError, match=f"{url}: ") as caught:
                    await holdfast.serve(echo, url)
                assert caught.value.errno in (errno.EADDRINUSE, errno.ENOENT)

    run(go)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("the peer closed it", "the peer closed it"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "connection timed out [ETIMEDOUT]"),
        (
            OSError(errno.ECONNREFUSED, "Connection refused", "[::1]:7"),
            "[::1]:7: connection refused [ECONNREFUSED]",
        ),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), "[Errno -2] Name not known"),
        (TimeoutError(), "TimeoutError()"),
        (Violation(Code.GAP, "x"), "the peer broke the protocol: bytes are missing before an offset (x)"),
        (Violation(Code.SUPERSEDED), "a newer transport carries the session"),
    ],
)
def test_every_ending_has_words(ending: BaseException | str, words: str) -> None:
    assert in_words(ending) == words


def test_a_transport_that_was_to_be_left_anyway_says_so() -> None:
    wire = Wire(lambda _: None)
    assert wire.ending == "this end closed it"
    wire.link, wire.linked = SimpleNamespace(life=Life.ALIVE, late=False, goaway_s=1.0), True  # type: ignore[assignment]
    assert wire.ending == "the peer asked for another one (GOAWAY)"
    wire.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    assert wire.ending is wire.error


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_who_is_accepted_and_gets_no_answer_learns_just_that(tmp_path: Path, scheme: str) -> None:
    async def work() -> None:
        with socket.socket(socket.AF_INET if scheme == "tcp" else socket.AF_UNIX) as silent:
            silent.bind(("127.0.0.1", 0) if scheme == "tcp" else str(tmp_path / "s.sock"))
            silent.listen()
            name = silent.getsockname()
            url = f"unix://{name}" if scheme == "unix" else f"tcp://127.0.0.1:{name[1]}"
            policy = replace(POLICY, handshake_s=0.1)
            await holdfast.connect(url, policy=policy, deadline=time.monotonic() + 0.3)

    with pytest.raises(GaveUp, match=LATE):
        asyncio.run(work())

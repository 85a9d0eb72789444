# SPDX-License-Identifier: Apache-2.0
"""What connect and serve refuse, notice, and tell, over real sockets of this host."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import GaveUp, Session, SessionLost, SessionPolicy, UsageError
from holdfast.hold.drivers.policy import Happened, SessionEvent
from holdfast.hold.drivers.server import SessionServer
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.options import effective
from holdfast.hold.session.terms import FIRST_WINDOW_BYTES, LEAST_WINDOW_BYTES, Memory
from holdfast.hold.transports.dial import connect
from holdfast.hold.transports.target import Target, is_loopback
from holdfast.policy import Backoff, SocketPolicy

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]  # a coroutine function


@pytest.mark.parametrize(
    "url",
    ["", "http://host:1", "tcp://host", "tcp://:5", "tcp://host:99999", "tcp://host:1/path", "unix://",
     "tcp://user@host:1", "tcp://host:1?x=1", "unix:///" + "x" * 120, "tcp://[::1", "tcp://host:0",
     "tcp://a..b:1", "tls://" + "a" * 64 + ".example:1", "tcp://a\0b:1"],
)  # fmt: skip
def test_what_is_no_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(UsageError):
        holdfast.connect(url) if url else Target.parse(url)


@pytest.mark.parametrize(
    "text", ["tcp://[::1]:5", "tls://host.example:443", "unix:///run/a.sock", "unix://@name"]
)
def test_a_url_reads_back(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("ip", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
     ("10.0.0.1", False), ("::", False), ("0.0.0.0", False), ("fe80::1%eth0", False), ("name", False)],
)  # fmt: skip
def test_what_never_leaves_this_host(ip: str, loopback: bool) -> None:
    assert is_loopback(ip) is loopback


def test_another_host_in_the_open_is_refused() -> None:
    async def dial() -> None:
        await holdfast.connect("tcp://192.0.2.1:7", policy=POLICY)

    async def serve() -> None:
        await holdfast.serve(echo, "tcp://0.0.0.0:0")

    for work in (dial, serve):
        with pytest.raises(UsageError, match="neither encrypted nor authenticated"):
            run(work)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        holdfast.connect("tcp://127.0.0.1:7", psk=path)
    path.chmod(0o600)
    holdfast.connect("tcp://127.0.0.1:7", psk=path)
    with pytest.raises(UsageError, match="at least 32"):
        holdfast.connect("tcp://127.0.0.1:7", psk=b"short")


def test_a_key_in_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with ThreadPoolExecutor(1) as thread:
        connecting = thread.submit(holdfast.connect, "tcp://127.0.0.1:7", psk=path)
        try:
            with pytest.raises(UsageError, match="not a regular file"):
                connecting.result(timeout=2)
        finally:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets go whoever waits for a writer


def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "holdfast.hold.session")

    async def work() -> str:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", psk=KEY, policy=POLICY) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", Target.parse(server.url).port)
            host, port = writer.get_extra_info("sockname")
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 2) == b""
            writer.close()
            return f"{host}:{port}"

    stranger = run(work)
    told = [record for record in caplog.records if stranger in record.getMessage()]
    assert [record.levelname for record in told] == ["DEBUG"]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_a_code_that_cannot_be_told_leaves_the_session_as_it_is(code: int) -> None:
    async def work() -> bytes:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", psk=KEY, policy=POLICY) as server,
            holdfast.connect(server.url, psk=KEY, policy=POLICY) as session,
        ):
            with pytest.raises(UsageError, match="from 0 to 4294967295"):
                await session.abort(code)
            await session.send(b"still here")
            return await session.recv_exactly(10, deadline=soon(3))

    assert run(work) == b"still here"


def test_nobody_there_is_told_with_every_loss() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        await holdfast.connect(f"tcp://127.0.0.1:{port}", policy=POLICY, deadline=soon(0.4))

    with pytest.raises(GaveUp) as caught:
        run(work)
    assert len(caught.value.losses) > 1
    assert all(isinstance(loss, ConnectionRefusedError) for loss in caught.value.losses)


def test_only_the_socket_of_a_server_that_is_gone_is_replaced(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/s.sock"

    async def work() -> None:
        async with holdfast.serve(echo, url, policy=POLICY):
            with pytest.raises(OSError, match="in use"):
                await holdfast.serve(echo, url, policy=POLICY)
        async with holdfast.serve(echo, url, policy=POLICY):
            pass

    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(f"{tmp_path}/s.sock")  # what a server leaves that was killed
    run(work)
    assert not (tmp_path / "s.sock").exists()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        run(lambda: holdfast.serve(echo, f"unix://{file}", policy=POLICY).start())
    assert file.read_text() == "precious"


def test_a_socket_that_is_not_the_servers_own_stays(tmp_path: Path) -> None:
    """Another took the name meanwhile, or whoever started the server had bound it."""
    path = tmp_path / "s.sock"

    async def renamed() -> None:
        async with holdfast.serve(echo, f"unix://{path}", policy=POLICY):
            path.unlink()
            path.write_text("another's")

    async def given() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"{path}.given")
        async with SessionServer(echo, f"unix://{path}.given", policy=POLICY, sock=sock):
            pass

    run(renamed)
    run(given)
    assert path.read_text() == "another's" and Path(f"{path}.given").exists()


def test_a_restarted_server_is_told_at_once() -> None:
    async def work() -> float:
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY)
        session = await holdfast.connect(server.url, policy=POLICY)
        await session.send(b"before")
        assert await session.recv_exactly(6) == b"before"
        url = server.url
        for wire in list(server._wires):
            wire.abort()  # as if its process had been killed: it says nothing any more
        await server.close()
        async with holdfast.serve(echo, url, policy=POLICY):
            begun = time.monotonic()
            with pytest.raises(SessionLost, match="restarted") as caught:
                while await session.recv(deadline=soon()):
                    pass
            assert caught.value.confirmed_bytes == 6
            return time.monotonic() - begun

    assert run(work) < 2


def test_a_drain_moves_a_session_and_refuses_new_ones() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                server.drain(0.05)
                while not session.counters.resumes:
                    await asyncio.sleep(0.01)
                await session.send(b"moved")
                assert await session.recv_exactly(5) == b"moved"
                with pytest.raises(GaveUp, match="refused"):
                    await holdfast.connect(server.url, policy=POLICY, deadline=soon(0.3))
                await session.send_eof()

    run(work)


def test_another_event_loop_is_told_and_not_left_waiting() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                for call in (session.recv, lambda: session.recv_exactly(1)):
                    with pytest.raises(UsageError, match="another event loop"):
                        await asyncio.to_thread(lambda call=call: asyncio.run(call()))
                await session.send(b"here")
                assert await session.recv_exactly(4, deadline=soon()) == b"here"

    run(work)


def test_a_session_expires_at_both_ends() -> None:
    policy = SessionPolicy(rhythm=POLICY.rhythm, backoff=POLICY.backoff, keep_s=0.3, handshake_s=2)

    async def work() -> None:
        told: list[SessionEvent] = []
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", policy=policy, observer=told.append)
        session = await holdfast.connect(server.url, policy=policy)
        assert server._listener is not None
        server._listener.close()  # nobody answers any more, but the sessions are there
        for wire in list(server._wires):
            wire.abort()
        with pytest.raises(SessionLost, match="no transport"):
            await session.recv(deadline=soon())
        while not any(event.what is Happened.ENDED for event in told):
            await asyncio.sleep(0.05)
        assert [event.what for event in told] == [Happened.OPENED, Happened.SUSPENDED, Happened.ENDED]
        assert server.host.memory.promised_bytes == 0
        await server.close()

    run(work)


def test_an_observer_hears_of_a_recovery() -> None:
    async def work() -> list[SessionEvent]:
        told: list[SessionEvent] = []
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY, observer=told.append) as session:
                assert session.wire is not None
                session.wire.abort()
                await session.send(b"x")
                await session.recv_exactly(1)
                await session.send_eof()
        return told

    told = run(work)
    assert [event.what for event in told][:3] == [Happened.OPENED, Happened.SUSPENDED, Happened.RESUMED]
    assert 0 < told[2].recovery_s < 2 and told[2].replayed_bytes == 0


def test_leaving_after_giving_up_is_quiet() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                await session.abort()

    run(work)


def test_a_handler_that_fails_ends_its_session_only() -> None:
    async def fail(session: Session) -> None:
        if await session.recv() == b"fail":
            raise ValueError("a mistake")
        await session.send(b"fine")

    async def work() -> None:
        async with holdfast.serve(fail, "tcp://127.0.0.1:0", policy=POLICY) as server:
            good = await holdfast.connect(server.url, policy=POLICY)
            bad = await holdfast.connect(server.url, policy=POLICY)
            await bad.send(b"fail")
            with pytest.raises(SessionLost):
                await bad.recv(deadline=soon())
            await good.send(b"ok")
            assert await good.recv(deadline=soon()) == b"fine"

    run(work)


def test_noise_on_the_port_disturbs_nobody() -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY) as server:  # noqa: SIM117
            async with holdfast.connect(server.url, policy=POLICY) as session:
                for noise in (b"GET / HTTP/1.1\r\n\r\n", b"", os.urandom(9000), b"\x01" + bytes(11)):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", int(server.url.rsplit(":")[-1])
                    )
                    writer.write(noise)
                    if len(noise) > 12:
                        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                            await asyncio.wait_for(reader.readexactly(1), 5)
                    writer.close()
                await session.send(b"still here")
                assert await session.recv_exactly(10) == b"still here"
                await session.send_eof()

    run(work)


def test_memory_is_promised_only_once() -> None:
    memory = Memory(1 << 20)
    windows = []
    while window := memory.first_window(4 << 20):
        memory.enter(window)
        windows.append(window)
    assert memory.promised_bytes <= memory.cap_bytes and set(windows) == {LEAST_WINDOW_BYTES}
    assert memory.resize(windows[0], 1 << 20, windows[0]) == windows[0]
    for window in windows:
        memory.leave(window)
    assert memory.promised_bytes == 0
    assert Memory(1 << 30).first_window(4 << 20) == FIRST_WINDOW_BYTES


def test_a_window_grows_to_a_fair_share_and_not_beyond() -> None:
    memory = Memory(1 << 20)
    for _ in range(4):
        memory.enter(LEAST_WINDOW_BYTES)
    assert memory.resize(LEAST_WINDOW_BYTES, 1 << 30, LEAST_WINDOW_BYTES) == (1 << 20) // 8


def test_those_who_came_first_leave_room_for_others() -> None:
    """Sessions that have used their windows and are idle now give nothing back."""
    memory, largest = Memory(1 << 30), 4 << 20
    for _ in range(1000):
        window = memory.first_window(largest)
        memory.enter(window)
        while (grown := memory.resize(window, min(2 * window, largest), window)) > window:
            window = grown
    for _ in range(10_000):
        window = memory.first_window(largest)
        assert window >= LEAST_WINDOW_BYTES
        memory.enter(window)
    assert memory.promised_bytes <= memory.cap_bytes


def test_both_ends_sockets_have_the_policys_options() -> None:
    """The server's inherit them from the socket that listens."""
    found: list[SocketPolicy] = []

    async def handle(session: Session) -> None:
        assert session.wire is not None and session.wire.transport is not None
        found.append(effective(session.wire.transport))
        await session.recv()

    async def work() -> None:
        async with (
            holdfast.serve(handle, "tcp://127.0.0.1:0", policy=POLICY) as server,
            holdfast.connect(server.url, policy=POLICY) as session,
        ):
            assert session.wire is not None and session.wire.transport is not None
            found.append(effective(session.wire.transport))

    run(work)
    assert found == [POLICY.socket_policy] * 2


def test_a_dial_that_is_refused_says_so_at_once() -> None:
    async def work() -> None:
        with socket.socket() as dialling, socket.socket() as closed:
            dialling.setblocking(False)
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await connect(dialling, closed.getsockname())

    run(work)


@pytest.mark.slow
def test_a_dial_that_takes_its_time_is_waited_for() -> None:
    """The server's queue is full, so that the kernel does not answer until there is room."""

    async def work() -> None:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as server,
            socket.create_connection(server.getsockname()),
            socket.socket() as dialling,
        ):
            dialling.setblocking(False)
            waiting = asyncio.create_task(connect(dialling, server.getsockname()))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            server.accept()[0].close()
            await asyncio.wait_for(waiting, 5)
            assert dialling.getpeername() == server.getsockname()

    run(work)

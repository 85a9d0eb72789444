# SPDX-License-Identifier: Apache-2.0
"""What must not pile up in a process, nor hang, when peers and programs are careless or hostile."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from conformance.drivers import Certificate

import holdfast
from holdfast import GaveUp, Session, SessionPolicy
from holdfast.hold.drivers.client import Dial
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.policy import Backoff

POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def test_tls_that_fails_leaves_no_handshake_behind(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)

    async def work() -> None:
        async with holdfast.serve(
            echo, "tls://127.0.0.1:0", policy=POLICY, most_half_open=3,
            certificate=certificate.path, key=tmp_path / "key.pem",
        ) as server:  # fmt: skip
            port = int(server.url.rsplit(":")[-1])
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"this is no ClientHello\n")
                assert await asyncio.wait_for(reader.read(), 5) is not None  # an alert, or nothing
                writer.close()
            assert server.host.half_open == 0
            url = f"tls://localhost:{port}"
            async with holdfast.connect(url, policy=POLICY, tls=certificate.client) as session:
                await session.send_eof()

    asyncio.run(work())


def test_sessions_that_never_opened_give_their_memory_back() -> None:
    async def work(memory: Memory) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        for _ in range(3):
            with pytest.raises(GaveUp):
                await Dial(
                    f"tcp://127.0.0.1:{port}", policy=POLICY, memory=memory, deadline=soon(0.02)
                ).open()

    memory = Memory(1 << 20)
    asyncio.run(work(memory))
    assert (memory.promised_bytes, memory.sessions) == (0, 0)


@pytest.mark.parametrize("patience_s", [None, 0.05])
def test_a_session_that_is_left_while_nobody_answers_gives_its_memory_back(patience_s: float | None) -> None:
    """It was given up, or its end was, and the server cannot be told."""

    async def work(memory: Memory) -> None:
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", policy=POLICY)
        dial = Dial(server.url, policy=POLICY, memory=memory)
        with pytest.raises((KeyError, TimeoutError)):
            async with asyncio.timeout(None) as limit, dial as session:
                assert server._server is not None
                server._server.close()
                for wire in list(server._wires):
                    wire.abort()
                while session.state is not State.SUSPENDED:
                    await asyncio.sleep(0.01)
                if patience_s is None:
                    raise KeyError
                limit.reschedule(asyncio.get_running_loop().time() + patience_s)
        await server.close()

    memory = Memory(1 << 20)
    asyncio.run(work(memory))
    assert (memory.promised_bytes, memory.sessions) == (0, 0)

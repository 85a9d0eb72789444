# SPDX-License-Identifier: Apache-2.0
"""Who connects from one address and proves nothing keeps nobody out who comes from another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import GaveUp, Session, SessionPolicy
from holdfast.hold.drivers.server import SessionServer
from holdfast.hold.transports.target import Target
from holdfast.policy import Backoff

POLICY = SessionPolicy(backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), handshake_s=30)
PLACES, STRANGER, KEY = 8, "127.0.0.2", bytes(range(32))


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


@contextlib.asynccontextmanager
async def crowded(server: SessionServer, host: str) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """All places are held from this address, by who says nothing; gives the ends of those transports."""
    port, writers, ends = Target.parse(server.url).port, [], []
    for _ in range(3 * PLACES):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
        writers.append(writer)
        ends.append(asyncio.create_task(reader.read()))
    async with asyncio.timeout(5):
        while len(server.host.half_open) < PLACES or sum(end.done() for end in ends) < 2 * PLACES:
            await asyncio.sleep(0.01)
    yield ends
    for writer in writers:
        writer.close()
    await asyncio.gather(*ends, return_exceptions=True)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_crowd_from_one_address_keeps_out_nobody_from_another(
    tmp_path: Path, scheme: str, runner: Callable[..., None]
) -> None:
    certificate = Certificate(tmp_path)
    tls = {"certificate": certificate.path, "key": tmp_path / "key.pem"} if scheme == "tls" else {}

    async def work() -> None:
        async with holdfast.serve(
            echo, f"{scheme}://127.0.0.1:0", policy=POLICY, psk=KEY, most_half_open=PLACES, **tls
        ) as server:
            url = f"{scheme}://localhost:{Target.parse(server.url).port}"
            context = certificate.client if tls else None
            async with crowded(server, STRANGER) as ends:
                before = sum(end.done() for end in ends)
                async with (
                    asyncio.timeout(5),
                    holdfast.connect(url, policy=POLICY, psk=KEY, tls=context) as session,
                ):
                    await session.send(b"let me in")
                    assert await session.recv_exactly(9) == b"let me in"
                    await session.send_eof()
                assert sum(end.done() for end in ends) == before + 1  # one had to go, and no more
            async with asyncio.timeout(5):
                while server.host.half_open:
                    await asyncio.sleep(0.01)

    runner(work())


def test_a_crowd_from_his_own_address_keeps_a_newcomer_out() -> None:
    """Behind one address nobody can tell who is who."""

    async def work() -> None:
        async with (
            holdfast.serve(
                echo, "tcp://127.0.0.1:0", policy=POLICY, psk=KEY, most_half_open=PLACES
            ) as server,
            crowded(server, "127.0.0.1"),
        ):
            with pytest.raises(GaveUp):
                await holdfast.connect(server.url, policy=POLICY, psk=KEY, deadline=time.monotonic() + 0.3)

    asyncio.run(work())

# SPDX-License-Identifier: Apache-2.0
"""A transport that died is left alone until the loop says that it is gone: asyncio logs each write to it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import Session, SessionPolicy
from holdfast.hold.heartbeat import Rhythm
from holdfast.policy import Backoff

POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)
PIECES = 50


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_writing_in_the_turn_of_a_reset_logs_nothing(
    scheme: str, runner: Callable[..., object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that writes often need not give the loop a turn between two of its writes."""
    certificate = Certificate(tmp_path)
    tls = {"certificate": certificate.path, "key": tmp_path / "key.pem"} if scheme == "tls" else {}
    got = bytearray()

    async def read(session: Session) -> None:
        while data := await session.recv():
            got.extend(data)
        await session.send_eof()

    async def work() -> None:
        async with holdfast.serve(read, f"{scheme}://127.0.0.1:0", policy=POLICY, **tls) as server:
            url = server.url.replace("127.0.0.1", "localhost")
            client_tls = certificate.client if tls else None
            async with holdfast.connect(url, policy=POLICY, tls=client_tls) as session:
                for number in range(5):
                    assert session.wire is not None and session.wire.transport is not None
                    descriptor = session.wire.transport.get_extra_info("socket").fileno()
                    with socket.socket(fileno=os.dup(descriptor)) as same:
                        same.shutdown(socket.SHUT_RDWR)  # the next write says EPIPE, as after a RST
                    for _ in range(PIECES):
                        await session.send(b"%d" % number)
                    await session.flush()
                await session.send_eof()

    runner(asyncio.wait_for(work(), 20))
    assert bytes(got) == b"".join(b"%d" % number * PIECES for number in range(5))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []

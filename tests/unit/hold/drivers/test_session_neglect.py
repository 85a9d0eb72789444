# SPDX-License-Identifier: Apache-2.0
"""What must not pile up in a process, nor hang, when peers and programs are careless or hostile."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from conformance.drivers import Certificate

import holdfast
from holdfast import Session, SessionPolicy
from holdfast.hold.heartbeat import Rhythm
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

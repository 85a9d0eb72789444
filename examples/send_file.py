"""Sends a file, without asyncio: what arrives is the whole file, or an error that says how much of it did.

python send_file.py receive tcp://127.0.0.1:7002 copy.bin
python send_file.py send tcp://127.0.0.1:7002 original.bin
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import holdfast
from holdfast import Session

BLOCK_BYTES = 1 << 16


def send(url: str, path: Path) -> str:
    """Send it; gives the digest that the receiver found, which must be ours."""
    digest = hashlib.sha256()
    with holdfast.connect(url) as session, path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            session.send(block)
        session.send_eof()
        answer = b"".join(iter(lambda: session.recv(64), b"")).decode()
        if answer != digest.hexdigest():
            raise RuntimeError(f"the receiver has {answer}, which is not what was sent")
        print(f"{path}: {session.confirmed_bytes} bytes arrived, {session.counters.resumes} resumes")
        return answer


async def receive(url: str, path: Path) -> None:
    """Take one file, write it, and answer with its digest."""
    done = asyncio.Event()

    async def take(session: Session) -> None:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            while block := await session.recv(BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        await session.send(digest.hexdigest().encode())
        await session.send_eof()
        await session.flush()
        done.set()

    async with holdfast.serve(take, url) as server:
        print(f"waiting at {server.url}", flush=True)
        await done.wait()
        await asyncio.sleep(0.2)  # the sender's last words


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], Path(sys.argv[3]))
    else:
        asyncio.run(receive(sys.argv[2], Path(sys.argv[3])))

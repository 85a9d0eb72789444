"""Sends a file, without asyncio: what arrives is the whole file, or an error that says how much of it did.

python send_file.py receive tcp://127.0.0.1:7002 copy.bin
python send_file.py send tcp://127.0.0.1:7002 original.bin
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import asyncio
import hashlib
import ssl
from pathlib import Path
from typing import Any

import holdfast
from holdfast import HoldfastError, Session

BLOCK_BYTES = 1 << 16
NOT_WRITTEN = 256
"""The receiver gives the session up with this code (applications have those from 256 on)."""


def send(url: str, path: Path, **terms: Any) -> str:
    """Send it; gives the digest that the receiver found, which must be ours."""
    digest = hashlib.sha256()
    with path.open("rb") as file, holdfast.connect(url, **terms) as session:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            session.send(block)
        session.send_eof()
        answer = b"".join(iter(lambda: session.recv(64), b"")).decode()
        if answer != digest.hexdigest():
            raise RuntimeError(f"the receiver has {answer}, which is not what was sent")
        print(f"{path}: {session.confirmed_bytes} bytes arrived, {session.counters.resumes} resumes")
        return answer


async def receive(url: str, path: Path, **terms: Any) -> None:
    """Take one file, write it, and answer with its digest."""
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(session: Session) -> None:
        digest = hashlib.sha256()
        try:
            with path.open("wb") as file:
                while block := await session.recv(BLOCK_BYTES):
                    digest.update(block)
                    file.write(block)
        except OSError as error:  # of the disk, or SessionLost: half a file is none
            await session.abort(NOT_WRITTEN)
            written.set_exception(error)
            return
        await session.send(digest.hexdigest().encode())
        await session.send_eof()
        await session.close()  # once the sender has the answer
        written.set_result(None)

    async with holdfast.serve(take, url, **terms) as server:
        print(f"waiting at {server.url}", flush=True)
        await written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("role", choices=["receive", "send"])
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--psk", metavar="FILE", help="32 random bytes in a file of mode 600, at both ends")
    parser.add_argument("--cert", metavar="FILE", help="tls://: the receiver's certificate, in PEM")
    parser.add_argument("--key", metavar="FILE", help="tls://: the key of the certificate, of mode 600")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="tls://: whom the sender trusts")
    asked = parser.parse_args()
    try:
        if asked.role == "receive":
            terms = {"psk": asked.psk, "certificate": asked.cert, "key": asked.key}
            asyncio.run(receive(asked.url, asked.file, **terms))
        else:
            ca = ssl.create_default_context(cadata=asked.ca.read_text()) if asked.ca else None
            send(asked.url, asked.file, psk=asked.psk, tls=ca)
    except (HoldfastError, OSError) as error:
        parser.exit(1, f"send_file.py: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130)

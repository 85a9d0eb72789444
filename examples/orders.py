"""Order entry as at a trading gateway: each order is reported in sequence, whatever the network does.

    python orders.py serve tcp://127.0.0.1:7001
    python orders.py send tcp://127.0.0.1:7001 1000

Each message has its sequence number. A gap or a repetition would be a serious incident at a real gateway;
in a session there is none, though connections are reset while orders are on their way.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import holdfast
from holdfast import HoldfastError, Session, Truncated

ORDER = struct.Struct("!QcIQ")  # sequence number, side, quantity, price in ticks
REPORT = struct.Struct("!QQ")  # sequence number of the order, number given by the exchange


async def messages(session: Session, shape: struct.Struct) -> AsyncIterator[tuple[int, ...]]:
    """Whole messages, until the peer ends its direction between two of them."""
    while True:
        try:
            data = await session.recv_exactly(shape.size)
        except Truncated as end:
            if end.partial:
                raise
            return
        yield shape.unpack(data)


async def gateway(session: Session) -> None:
    """Accept orders in sequence, and report each."""
    expected = 1
    async for number, _side, _quantity, _price in messages(session, ORDER):
        if number != expected:
            raise RuntimeError(f"order {number} came where {expected} was due")
        await session.send(REPORT.pack(number, 500_000 + number))
        expected += 1


async def serve(url: str, **terms: Any) -> None:
    """Run the gateway."""
    async with holdfast.serve(gateway, url, **terms) as server:
        print(f"gateway at {server.url}", flush=True)
        await asyncio.Event().wait()


async def send(url: str, count: int, pause_s: float = 0.0, **terms: Any) -> int:
    """Send so many orders and check each report; gives how often the session was resumed."""
    async with holdfast.connect(url, **terms) as session:

        async def enter() -> None:
            for number in range(1, count + 1):
                await session.send(ORDER.pack(number, b"BS"[number % 2 :][:1], 100, 10_000 + number))
                await asyncio.sleep(pause_s)
            await session.send_eof()

        async def check() -> None:
            reported = [number async for number, _given in messages(session, REPORT)]
            if reported != list(range(1, count + 1)):
                raise RuntimeError(f"{len(reported)} of {count} orders were reported, or not in sequence")

        await asyncio.gather(enter(), check())
        print(f"{count} orders reported in sequence, {session.counters.resumes} resumes", flush=True)
        return session.counters.resumes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("role", choices=["serve", "send"])
    parser.add_argument("url")
    parser.add_argument("count", type=int, nargs="?", default=1000, help="how many orders are sent: 1000")
    parser.add_argument("--psk", metavar="FILE", help="32 random bytes in a file of mode 600, at both ends")
    parser.add_argument("--cert", metavar="FILE", help="tls://: the server's certificate, in PEM")
    parser.add_argument("--key", metavar="FILE", help="tls://: the key of the certificate, of mode 600")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="tls://: whom the client trusts, if not the system's"
    )
    asked = parser.parse_args()
    try:
        if asked.role == "serve":
            asyncio.run(serve(asked.url, psk=asked.psk, certificate=asked.cert, key=asked.key))
        else:
            ca = ssl.create_default_context(cadata=asked.ca.read_text()) if asked.ca else None
            asyncio.run(send(asked.url, asked.count, 0.001, psk=asked.psk, tls=ca))
    except (HoldfastError, OSError) as error:
        parser.exit(1, f"orders.py: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130)

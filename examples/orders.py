"""Order entry as at a trading gateway: each order is reported in sequence, whatever the network does.

    python orders.py serve tcp://127.0.0.1:7001
    python orders.py send tcp://127.0.0.1:7001 1000

Each message has its sequence number. A gap or a repetition would be a serious incident at a real gateway;
in a session there is none, though connections are reset while orders are on their way.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import AsyncIterator

import holdfast
from holdfast import Session, Truncated

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


async def serve(url: str) -> None:
    """Run the gateway."""
    async with holdfast.serve(gateway, url) as server:
        print(f"gateway at {server.url}", flush=True)
        await asyncio.Event().wait()


async def send(url: str, count: int, pause_s: float = 0.0) -> int:
    """Send so many orders and check each report; gives how often the session was resumed."""
    async with holdfast.connect(url) as session:

        async def enter() -> None:
            for number in range(1, count + 1):
                await session.send(ORDER.pack(number, b"BS"[number % 2 :][:1], 100, 10_000 + number))
                await asyncio.sleep(pause_s)
            await session.send_eof()

        entering = asyncio.create_task(enter())
        expected = 1
        async for number, _given in messages(session, REPORT):
            if number != expected:
                raise RuntimeError(f"report of order {number} came where {expected} was due")
            expected += 1
        await entering
        if expected != count + 1:
            raise RuntimeError(f"{expected - 1} of {count} orders were reported")
        print(f"{count} orders reported in sequence, {session.counters.resumes} resumes", flush=True)
        return session.counters.resumes


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2]))
    else:
        asyncio.run(send(sys.argv[2], int(sys.argv[3]), 0.001))

"""A chat: a room to which everybody's lines go, and a client that stays in it when its connection does not.

python chat.py room unix:///tmp/room.sock
python chat.py join unix:///tmp/room.sock ada
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import holdfast
from holdfast import Session, SessionLost

LONGEST_BYTES = 4096


async def lines(session: Session) -> AsyncIterator[bytes]:
    """Whole lines, until the end."""
    rest = b""
    while data := await session.recv(LONGEST_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST_BYTES:
            raise ValueError("a line is too long")


class Room:
    """Whoever is there hears everybody."""

    def __init__(self) -> None:
        self._there: set[Session] = set()

    async def enter(self, session: Session) -> None:
        """One visitor: the first line is the name."""
        said = lines(session)
        name = await anext(said, b"")
        self._there.add(session)
        try:
            await self.tell(b"* " + name + b" is here")
            async for line in said:
                await self.tell(name + b": " + line)
        finally:
            self._there.discard(session)
            await self.tell(b"* " + name + b" has left")

    async def tell(self, line: bytes) -> None:
        """To everybody; who does not read for long does not hold up the others."""
        for session in list(self._there):
            try:
                await asyncio.wait_for(session.send(line + b"\n"), 5)
            except (SessionLost, TimeoutError):
                self._there.discard(session)


async def room(url: str) -> None:
    """Keep a room open."""
    async with holdfast.serve(Room().enter, url) as server:
        print(f"the room is at {server.url}", flush=True)
        await asyncio.Event().wait()


def join(url: str, name: str) -> None:
    """Lines from the keyboard go there, what comes from there is shown."""
    with holdfast.connect(url) as session:
        session.send(name.encode() + b"\n")

        def show() -> None:
            while data := session.recv(LONGEST_BYTES):
                print(data.decode("utf-8", "replace"), end="", flush=True)

        shown = threading.Thread(target=show, daemon=True)
        shown.start()
        for line in sys.stdin:
            session.send(line.encode())
        session.send_eof()
        shown.join()  # until the room has said the last, too


if __name__ == "__main__":
    if sys.argv[1] == "room":
        asyncio.run(room(sys.argv[2]))
    else:
        join(sys.argv[2], sys.argv[3])

"""A chat: a room to which everybody's lines go, and a client that stays in it when its connection does not.

python chat.py room unix:///tmp/room.sock
python chat.py join unix:///tmp/room.sock ada
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import holdfast
from holdfast import HoldfastError, Session, SessionLost

LONGEST_BYTES = 4096


async def lines(session: Session) -> AsyncIterator[bytes]:
    """Whole lines, until the end."""
    rest = b""
    while data := await session.recv(LONGEST_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST_BYTES:
            await session.abort(256)  # codes from 256 on are the application's; the next recv raises


class Room:
    """Whoever is there hears everybody."""

    def __init__(self) -> None:
        self._there: set[Session] = set()

    async def enter(self, session: Session) -> None:
        """One visitor: the first line is the name."""
        name = await anext(said := lines(session), b"")
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


async def room(url: str, psk: str | None) -> None:
    """Keep a room open."""
    async with holdfast.serve(Room().enter, url, psk=psk) as server:
        print(f"the room is at {server.url}", flush=True)
        await asyncio.Event().wait()


def join(url: str, name: str, psk: str | None = None) -> None:
    """Lines from the keyboard go there, what comes from there is shown, until its last word."""
    with holdfast.connect(url, psk=psk) as session:

        def say() -> None:
            with suppress(HoldfastError):  # whoever receives is told
                session.send(name.encode() + b"\n")
                while said := os.read(0, LONGEST_BYTES):
                    session.send(said)
                session.send_eof()

        threading.Thread(target=say, daemon=True).start()
        while data := session.recv(LONGEST_BYTES):
            os.write(1, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("role", choices=["room", "join"])
    parser.add_argument("url")
    parser.add_argument("name", nargs="?", default="somebody")
    parser.add_argument("--psk", metavar="FILE", help="32 random bytes in a file of mode 600, at both ends")
    asked = parser.parse_args()
    try:
        if asked.role == "room":
            asyncio.run(room(asked.url, asked.psk))
        else:
            join(asked.url, asked.name, asked.psk)
    except (HoldfastError, OSError) as error:
        parser.exit(1, f"chat.py: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130)

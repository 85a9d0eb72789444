"""Two programs that talk in a session, record by record, and notice what is lost, doubled or late.

``python -m bench.session_talker serve URL`` echoes; ``... dial URL`` sends a numbered record every other
millisecond until its input ends, then waits for every echo and prints what happened as JSON. ``... idle URL``
says nothing until then, and prints the time whenever another transport carries its session.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from dataclasses import replace

import holdfast
from holdfast import Session, SessionPolicy
from holdfast.hold.heartbeat import Rhythm
from holdfast.policy import PROFILES, Backoff

RECORD = struct.Struct("!QQ")
EVERY_S = 0.002
GAP_S = 0.005
PSK = bytes(range(32))
POLICY = SessionPolicy(
    profile=PROFILES["lan"], rhythm=Rhythm(0.5, 1.0, 0.2), backoff=Backoff(cap_s=1.0, stable_s=0.5)
)

IDLE_RHYTHM = Rhythm(30, 30)


def check(number: int) -> int:
    """What a record says beside its number."""
    return (number * 0x9E3779B97F4A7C15) & (2**64 - 1)


async def serve(url: str) -> None:
    """Echo, until killed."""

    async def echo(session: Session) -> None:
        while data := await session.recv():
            await session.send(data)

    async with holdfast.serve(echo, url, psk=PSK, policy=POLICY) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


async def dial(url: str) -> None:
    """Talk, and tell."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    told: dict[str, object] = {"sent": 0, "echoed": 0, "wrong": 0, "lost": None, "gaps": []}
    try:
        async with holdfast.connect(url, psk=PSK, policy=POLICY) as session:
            print("ready", flush=True)
            await asyncio.gather(talk(session, ended, told), listen(session, told))
            told["resumes"] = session.counters.resumes
            told["replayed_bytes"] = session.counters.replayed_bytes
    except holdfast.SessionLost as error:
        told["lost"], told["lost_s"] = error.why, time.monotonic()
    print(json.dumps(told), flush=True)


async def idle(url: str) -> None:
    """Be silent until the input ends, then see whether the session still works."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with holdfast.connect(url, psk=PSK, policy=replace(POLICY, rhythm=IDLE_RHYTHM)) as session:
        print("ready", flush=True)
        resumes = 0
        while not ended.is_set():
            await asyncio.sleep(0.002)
            if session.counters.resumes != resumes:
                resumes = session.counters.resumes
                print(time.monotonic(), flush=True)
        record = RECORD.pack(0, check(0))
        await session.send(record)
        await session.send_eof()
        got = b""
        while data := await session.recv():
            got += data
        told = {"sent": 1, "echoed": len(got) // RECORD.size, "wrong": int(got != record), "lost": None}
        print(json.dumps({**told, "resumes": session.counters.resumes}), flush=True)


async def talk(session: Session, ended: asyncio.Event, told: dict[str, object]) -> None:
    """Send until the input ends."""
    number = 0
    while not ended.is_set():
        await session.send(RECORD.pack(number, check(number)))
        number += 1
        told["sent"] = number
        await asyncio.sleep(EVERY_S)
    await session.send_eof()


async def listen(session: Session, told: dict[str, object]) -> None:
    """Check every echo, and note each time without any."""
    number, last_s, rest = 0, time.monotonic(), b""
    gaps: list[tuple[float, float]] = []
    told["gaps"] = gaps
    while data := await session.recv():
        now_s = time.monotonic()
        if now_s - last_s > GAP_S:
            gaps.append((last_s, now_s))
        last_s, rest = now_s, rest + data
        whole = len(rest) // RECORD.size * RECORD.size
        for found in RECORD.iter_unpack(rest[:whole]):
            if found != (number, check(number)):
                told["wrong"] = int(str(told["wrong"])) + 1
            number += 1
        rest = rest[whole:]
        told["echoed"] = number


if __name__ == "__main__":
    asyncio.run({"serve": serve, "dial": dial, "idle": idle}[sys.argv[1]](sys.argv[2]))

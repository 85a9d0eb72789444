"""What sessions cost that say nothing: ``python -m bench.session_idle serve`` and ``... dial URL COUNT``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

import uvloop

import holdfast
from bench.session_arms import _terms
from holdfast import Session, SessionPolicy
from holdfast.hold.heartbeat import Rhythm

POLICY = SessionPolicy(rhythm=Rhythm(can_s=10, want_s=30))
AT_ONCE = 50


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def serve(kind: str) -> None:
    """Sessions that wait; each line of input asks for a report."""

    async def handle(session: Session) -> None:
        while await session.recv():
            pass

    loop = asyncio.get_running_loop()
    scheme = "tls" if kind == "tls" else "tcp"
    url = f"{scheme}://127.0.0.1:0"
    async with holdfast.serve(
        handle, url, policy=POLICY, most_half_open=4096, **_terms(kind, True)
    ) as server:
        print(server.url, flush=True)
        asked = asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), lambda: (sys.stdin.readline(), asked.set()))
        while True:
            await asked.wait()
            asked.clear()
            gc.collect()
            facts = {"cpu_s": time.process_time(), "rss": rss_bytes(), "sessions": len(server.sessions)}
            print(json.dumps(facts), flush=True)


async def dial(kind: str, url: str, count: int) -> None:
    """Open them, a few at a time, and keep them."""
    gate, terms = asyncio.Semaphore(AT_ONCE), _terms(kind, False)
    where = url.replace("127.0.0.1", "localhost") if kind == "tls" else url

    async def one() -> Session:
        async with gate:
            return await holdfast.connect(where, policy=POLICY, **terms)

    kept = await asyncio.gather(*(one() for _ in range(count)))
    print(len(kept), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (50_000, 50_000))
    what, kind, *rest = sys.argv[1:]
    uvloop.run(serve(kind) if what == "serve" else dial(kind, rest[0], int(rest[1])))

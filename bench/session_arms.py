"""The ways to move bytes between two asyncio programs that sessions are compared with, each as two programs.

``python -m bench.session_arms ARM serve`` prints its port; ``... ARM bulk PORT`` and ``... ARM ping PORT``
print what they measured as JSON.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BULK_BYTES = 1 << 30
CHUNK = bytes(1 << 18)
MESSAGE = bytes(64)
PINGS = 3000
PSK = bytes(range(32))
GRPC_CHUNK = bytes(1 << 16)

Send, Recv = Callable[[bytes], Awaitable[Any]], Callable[[], Awaitable[bytes]]


async def bulk(send: Send, recv: Recv, chunk: bytes = CHUNK) -> dict[str, float]:
    """Send everything and wait for the answer."""
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(BULK_BYTES // len(chunk)):
        await send(chunk)
    await recv()
    took_s = time.perf_counter() - begun
    return {"mb_per_s": BULK_BYTES / took_s / 1e6, "cpu_s": time.process_time() - cpu}


async def ping(send: Send, recv: Recv) -> dict[str, float]:
    """One message there and back, again and again."""
    times = []
    for _ in range(PINGS):
        begun = time.perf_counter_ns()
        await send(MESSAGE)
        await recv()
        times.append(time.perf_counter_ns() - begun)
    times.sort()
    return {"p50_us": times[PINGS // 2] / 1e3, "p99_us": times[PINGS * 99 // 100] / 1e3}


@dataclass(frozen=True, slots=True)
class Cuts:
    """How often a transport is cut, and how long after the last answer.

    Attributes:
        pause_s: of silence before each.
        count: how many.
    """

    pause_s: float
    count: int

    def told(self, times_ms: list[float]) -> dict[str, float]:
        """Middle and slowest."""
        ranked = sorted(times_ms)
        return {"p50_ms": ranked[len(ranked) // 2], "p99_ms": ranked[-1 - len(ranked) // 100]}


class Echo:
    """What every server does: echo small messages, count large ones and answer at the end."""

    def __init__(self) -> None:
        self.got = 0

    def answer(self, data: bytes) -> bytes:
        """What to send back, if anything."""
        if self.got == 0 and len(data) <= len(MESSAGE):
            return data
        self.got += len(data)
        return b"k" if self.got >= BULK_BYTES else b""


def announce(port: int) -> None:
    """Tell whoever started us."""
    print(port, flush=True)


class Bare(asyncio.Protocol):
    """A protocol without anything: the floor."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.paused = False
        self.came: asyncio.Future[bytes] | None = None
        self.room: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        """It is there."""
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 18)

    def data_received(self, data: bytes) -> None:
        """At the server: answer; at the client: give it to who waits."""
        if self.came is not None:
            self.came.set_result(data)
            self.came = None
        elif answer := self.echo.answer(data):
            self.transport.write(answer)

    def pause_writing(self) -> None:
        """Full."""
        self.room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Not full any more."""
        assert self.room is not None
        self.room.set_result(None)
        self.room = None

    async def send(self, data: bytes) -> None:
        """Write, and wait while the buffer is full."""
        self.transport.write(data)
        if self.room is not None:
            await self.room

    async def recv(self) -> bytes:
        """What comes next."""
        self.came = asyncio.get_running_loop().create_future()
        return await self.came


async def bare_serve() -> None:
    """The floor's server."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def bare_client(port: int, work: Any) -> Any:
    """The floor's client."""
    if isinstance(work, Cuts):
        return await redial(port, work)
    _, one = await asyncio.get_running_loop().create_connection(Bare, "127.0.0.1", port)
    return await work(one.send, one.recv)


async def redial(port: int, cuts: Cuts) -> dict[str, float]:
    """The floor of a resume: after the same silence a new connection, and one message there and back."""
    times, one = [], None
    for _ in range(cuts.count):
        await asyncio.sleep(cuts.pause_s)
        begun = time.perf_counter_ns()
        if one is not None:
            one.transport.abort()
        _, one = await asyncio.get_running_loop().create_connection(Bare, "127.0.0.1", port)
        await one.send(MESSAGE)
        await one.recv()
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return cuts.told(times)


async def streams_serve() -> None:
    """Asyncio's streams."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echo = Echo()
        while data := await reader.read(1 << 18):
            if answer := echo.answer(data):
                writer.write(answer)
                await writer.drain()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 18)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def streams_client(port: int, work: Any) -> Any:
    """Asyncio's streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return await work(send, lambda: reader.read(1 << 18))


async def websockets_serve() -> None:
    """The websockets library, without compression."""
    from websockets.asyncio.server import serve

    async def handle(connection: Any) -> None:
        echo = Echo()
        async for data in connection:
            if answer := echo.answer(data):
                await connection.send(answer)

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


async def websockets_client(port: int, work: Any) -> Any:
    """The websockets library."""
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as connection:
        return await work(connection.send, connection.recv)


def _same(data: bytes) -> bytes:
    return data


async def grpc_serve() -> None:
    """A gRPC stream of messages both ways."""
    import grpc

    async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        echo = Echo()
        async for data in requests:
            if answer := echo.answer(data):
                yield answer

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 20)])
    method = grpc.stream_stream_rpc_method_handler(handle)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Bytes", {"Move": method})])
    announce(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


async def grpc_client(port: int, work: Any) -> Any:
    """A gRPC stream of messages both ways."""
    import grpc

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/bench.Bytes/Move", _same, _same)()
        options = {"chunk": GRPC_CHUNK} if work is bulk else {}
        return await work(call.write, call.read, **options)


def _terms(kind: str, server: bool) -> dict[str, Any]:
    """What a session of a kind needs beside its URL."""
    if kind == "sealed":
        return {"psk": PSK}
    if kind == "tls":
        folder = Path(os.environ["BENCH_CERTIFICATE"])
        if server:
            return {"certificate": folder / "certificate.pem", "key": folder / "key.pem"}
        import ssl

        return {"tls": ssl.create_default_context(cafile=str(folder / "certificate.pem"))}
    return {}


async def session_serve(kind: str) -> None:
    """Ours."""
    import holdfast
    from holdfast import Session

    async def handle(session: Session) -> None:
        echo = Echo()
        while data := await session.recv():
            if answer := echo.answer(data):
                await session.send(answer)

    scheme = "tls" if kind == "tls" else "tcp"
    async with holdfast.serve(handle, f"{scheme}://127.0.0.1:0", **_terms(kind, True)) as server:
        announce(int(server.url.rsplit(":", 1)[1]))
        await asyncio.Event().wait()


async def session_client(kind: str, port: int, work: Any) -> Any:
    """Ours."""
    import holdfast

    where = f"tls://localhost:{port}" if kind == "tls" else f"tcp://127.0.0.1:{port}"
    # A transport that was cut soon after it was made is otherwise dialled again after a wait.
    policy = holdfast.SessionPolicy(backoff=holdfast.Backoff(stable_s=0))
    async with holdfast.connect(where, policy=policy, **_terms(kind, False)) as session:
        if isinstance(work, Cuts):
            return await resume(session, work)
        found = await work(session.send, session.recv)
        await session.send_eof()
        return found


async def resume(session: Any, cuts: Cuts) -> dict[str, float]:
    """Cut the transport, and see how soon an answer comes: dial, handshake and replay."""
    times = []
    for _ in range(cuts.count):
        await asyncio.sleep(cuts.pause_s)
        begun = time.perf_counter_ns()
        session.wire.abort()
        await session.send(MESSAGE)
        got = 0
        while got < len(MESSAGE):
            got += len(await session.recv())
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return cuts.told(times)


SERVE: dict[str, Callable[[], Any]] = {
    "bare uvloop protocol": bare_serve,
    "bare asyncio protocol": bare_serve,
    "asyncio streams": streams_serve,
    "uvloop streams": streams_serve,
    "websockets": websockets_serve,
    "gRPC stream": grpc_serve,
    "session": lambda: session_serve("plain"),
    "session, sealed": lambda: session_serve("sealed"),
    "session, TLS": lambda: session_serve("tls"),
}
CLIENT: dict[str, Callable[[int, Any], Any]] = {
    "bare uvloop protocol": bare_client,
    "bare asyncio protocol": bare_client,
    "asyncio streams": streams_client,
    "uvloop streams": streams_client,
    "websockets": websockets_client,
    "gRPC stream": grpc_client,
    "session": lambda port, work: session_client("plain", port, work),
    "session, sealed": lambda port, work: session_client("sealed", port, work),
    "session, TLS": lambda port, work: session_client("tls", port, work),
}
WORK = {"bulk": bulk, "ping": ping, "resume": Cuts(0.05, 40), "resume soon": Cuts(0.002, 300)}


def main(arm: str, what: str, *rest: str) -> None:
    """One end of one arm."""
    # gRPC has a loop of its own underneath and does not support uvloop.
    if arm.startswith(("asyncio", "bare asyncio", "gRPC")):
        run: Any = asyncio.run
    else:
        import uvloop

        run = uvloop.run
    if what == "serve":
        run(SERVE[arm]())
    else:
        print(json.dumps(run(CLIENT[arm](int(rest[0]), WORK[what]))))


if __name__ == "__main__":
    main(*sys.argv[1:])

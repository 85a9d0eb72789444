"""The connection of an asyncio program: as :class:`Connection`, with ``await``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import socket
import ssl as tls
import time
from collections.abc import Awaitable, Callable
from typing import Self

from holdfast.errors import ConnectionLost, DeadlineExceeded, Truncated, UsageError
from holdfast.hold.calls import Readable
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.counters import Counters
from holdfast.hold.front import front
from holdfast.hold.stream_protocol import StreamProtocol

CHUNK_BYTES = 1 << 18
"""How much of a send is handed over before the rest waits for the kernel."""


LEAVING_S = 30.0
"""How long leaving ``async with`` waits for a peer that does not read."""


class Stream:
    """A connected stream socket (TCP, TLS, Unix) of an asyncio program, with a memory.

    One task may receive while another sends. Cancelling a task, or a timeout around it, loses nothing:
    what came stays here. Every ``deadline`` is absolute ``time.monotonic()`` seconds, None waits without
    limit. Make one with :func:`wrap` or :func:`serve`.

    """

    def __init__(self, causes: CauseSource | None = None) -> None:
        self.protocol = StreamProtocol(causes)
        self.inbox = self.protocol.inbox  # where the compiled fronts of recv and recv_exactly look
        self._receiving = self._sending = False

    @property
    def local(self) -> str | None:
        """This end: ``addr:port``, ``[v6]:port`` or a path."""
        return self.protocol.local

    @property
    def peer(self) -> str | None:
        """The other end, still known after a reset."""
        return self.protocol.peer

    @property
    def error(self) -> ConnectionLost | Truncated | None:
        """The first error that ended it, None while it lives."""
        return self.protocol.error

    @property
    def transport(self) -> asyncio.Transport:
        """The transport, for its details; writing to it directly is not counted."""
        return self.protocol.transport

    @property
    def counters(self) -> Counters:
        """What went through so far."""
        return self.protocol.counters()

    @front("take")
    async def recv(self, n: int, *, deadline: float | None = None) -> bytes:
        """Up to ``n`` bytes as soon as any are there; ``b""`` at the end of the peer's stream.

        Raises:
            DeadlineExceeded: nothing came; nothing is lost.
            ConnectionLost: the first error, again at every call, after all data was taken.
            Truncated: a TLS stream ended without close_notify.
            UsageError: the stream is closed, or another task is receiving.
        """
        if n and not len(self.inbox):
            await self._more(deadline)
        data = self.inbox.take(n)
        self.protocol.taken()
        return data

    @front("take_exactly")
    async def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """Exactly ``n`` bytes; errors as :meth:`Connection.recv_exactly`."""
        frame = self.inbox.take_exactly(n)
        if frame is None:
            self.protocol.wanted = n
            frame = await self._frame(
                lambda: self.inbox.take_exactly(n), f"the {n} bytes asked for", deadline
            )
        self.protocol.taken()
        return frame

    async def recv_until(self, delimiter: bytes, limit: int, *, deadline: float | None = None) -> bytes:
        """Everything up to and with ``delimiter``; arguments and errors as :meth:`Connection.recv_until`."""
        frame = self.inbox.take_until(delimiter, limit)
        if frame is None:
            self.protocol.wanted = limit
            wanted = f"the delimiter {delimiter!r}"
            frame = await self._frame(lambda: self.inbox.take_until(delimiter, limit), wanted, deadline)
        self.protocol.taken()
        return frame

    def peek(self, n: int) -> bytes:
        """Up to ``n`` bytes that have come already, left for the next call."""
        return self.inbox.peek(n)

    async def sendall(self, data: Readable, *, deadline: float | None = None) -> None:
        """Hand all of ``data`` over, and wait until the kernel has room for more.

        Raises:
            DeadlineExceeded: ``sent_bytes`` of it were taken and will go out; send the rest later.
            ConnectionLost: the first error of the stream, with ``sent_bytes`` of this call.
            UsageError: the stream is closed, or another task is sending.
        """
        if self._sending:
            raise UsageError("another task is sending on this stream; let one task do it")
        self._sending = True
        view, sent = memoryview(data).cast("B"), 0
        try:
            while await self.protocol.check_writable(sent) and sent < len(view):
                chunk = view[sent : sent + CHUNK_BYTES]
                if not self.protocol.full:
                    self.protocol.write(chunk)
                    sent += len(chunk)
                if self.protocol.full and not await self.protocol.wait_for_room(deadline):
                    raise DeadlineExceeded(sent_bytes=sent)
        finally:
            self._sending = False

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more will come (FIN), after what was sent; receiving goes on.

        Raises:
            UsageError: over TLS, which asyncio cannot close in one direction.
        """
        if not self.transport.can_write_eof():
            raise UsageError("asyncio cannot end one direction of a TLS stream; use close()")
        self.protocol.shut()

    async def close(self, *, deadline: float | None = None) -> None:
        """Send what is still to be sent, then close; at the deadline, close without it."""
        await self.protocol.close(deadline)

    def abort(self) -> None:
        """Close at once; what is still to be sent is lost."""
        self.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(deadline=time.monotonic() + LEAVING_S)

    async def _frame(self, take: Callable[[], bytes | None], wanted: str, deadline: float | None) -> bytes:
        try:
            while True:
                if not await self._more(deadline):
                    raise Truncated(b"", wanted)
                if (frame := take()) is not None:
                    return frame
        except (DeadlineExceeded, ConnectionLost, Truncated) as error:
            error.partial = self.inbox.peek(len(self.inbox))
            raise
        finally:
            self.protocol.wanted = 0

    async def _more(self, deadline: float | None) -> bool:
        """Wait until there is more in the inbox; False at the end of the stream."""
        if self._receiving:
            raise UsageError("another task is receiving on this stream; let one task do it")
        self._receiving = True
        try:
            came = await self.protocol.wait_for_data(deadline)
        finally:
            self._receiving = False
        if not came and not self.protocol.ended:
            raise DeadlineExceeded()
        return came


async def wrap(
    sock: socket.socket,
    *,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    causes: CauseSource | None = None,
) -> Stream:
    """The stream of a connected socket, which belongs to it from now on.

    Args:
        sock: a connected TCP or Unix stream socket.
        ssl: speak TLS as the client; the handshake is done on return.
        server_hostname: whose certificate is expected; needed with ``ssl``.
        causes: whom an error's ``explain()`` asks.

    Raises:
        OSError, ssl.SSLError: the handshake failed.
    """
    sock.setblocking(False)
    stream = Stream(causes)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: stream.protocol, sock=sock, ssl=ssl, server_hostname=server_hostname)
    return stream


async def serve(
    handle: Callable[[Stream], Awaitable[None]],
    sock: socket.socket,
    *,
    ssl: tls.SSLContext | None = None,
    causes: CauseSource | None = None,
) -> asyncio.Server:
    """A server that runs ``handle`` in a task for each connection, and closes its stream afterwards.

    A :class:`ConnectionLost` or :class:`Truncated` that ``handle`` lets out ends that task quietly: peers go.

    Args:
        handle: gets the stream.
        sock: bound, for instance by :func:`socket.create_server`.
        ssl: speak TLS as the server.
        causes: whom an error's ``explain()`` asks.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def run(stream: Stream) -> None:
        async with stream:
            try:
                await handle(stream)
            except (ConnectionLost, Truncated):
                return

    def accept() -> StreamProtocol:
        stream = Stream(causes)

        def begin() -> None:
            task = loop.create_task(run(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        stream.protocol.on_made = begin
        return stream.protocol

    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    return await loop.create_server(accept, sock=sock, ssl=ssl)

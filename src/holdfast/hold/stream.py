"""The connection of an asyncio program: as :class:`Connection`, with ``await``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math
import socket
import ssl as tls
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from holdfast.errors import ConnectionLost, DeadlineExceeded, Gathered, Truncated, UsageError
from holdfast.hold.asked import asked_deadline, asked_size, named_delimiter
from holdfast.hold.calls import Readable
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.counters import Counters
from holdfast.hold.ends import ends
from holdfast.hold.first_error import Ended
from holdfast.hold.front import front
from holdfast.hold.sole import Sole
from holdfast.hold.stream_protocol import StreamProtocol
from holdfast.hold.tls import TlsError

CHUNK_BYTES = 1 << 18
"""How much of a send is handed over before the rest waits for the kernel."""

LEAVING_S = 30.0
"""How long leaving ``async with`` in good order waits for a peer that does not read."""


class Stream(Sole):
    """A connected stream socket (TCP, TLS, Unix) of an asyncio program, with a memory.

    One task may receive while another sends. Cancelling a task, or a timeout around it, loses nothing:
    what came stays here. Every ``deadline`` is absolute ``time.monotonic()`` seconds, None waits without
    limit. Make one with :func:`wrap` or :func:`serve`.

    Leaving ``async with`` closes it: in good order all that was sent goes out first, for 30 s at most; by an
    exception, a cancellation among them, at once.
    """

    def __init__(self, causes: CauseSource | None = None) -> None:
        self.protocol = StreamProtocol(causes)
        self.inbox = self.protocol.inbox  # where the compiled fronts of recv and recv_exactly look
        self._sending = False

    @property
    def local(self) -> str | None:
        """This end: ``addr:port``, ``[v6]:port`` or a path."""
        return self.protocol.local

    @property
    def peer(self) -> str | None:
        """The other end, still known after a reset."""
        return self.protocol.peer

    @property
    def error(self) -> Ended | None:
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
            ConnectionLost: the first error, again at every call, after all data was taken; not if the end of
                the peer's stream came before it.
            Truncated: a TLS stream ended without close_notify.
            TlsError: what came is no TLS.
            UsageError: the stream is closed, or another task is receiving; at once: ``n`` is negative, or the
                deadline not a number.
        """
        limit_s = self._asked(deadline)
        if asked_size(n) and not len(self.inbox):
            await self._more(limit_s)
        data = self.inbox.take(n)
        self.protocol.taken()
        return data

    @front("take_exactly")
    async def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """Exactly ``n`` bytes; errors as :meth:`Connection.recv_exactly`."""
        limit_s = self._asked(deadline)
        frame = self.inbox.take_exactly(n)
        if frame is None:
            self.protocol.wanted = n
            frame = await self._frame(
                lambda: self.inbox.take_exactly(n), lambda: f"the {n} bytes asked for", limit_s
            )
        self.protocol.taken()
        return frame

    async def recv_until(self, delimiter: bytes, limit: int, *, deadline: float | None = None) -> bytes:
        """Everything up to and with ``delimiter``; arguments and errors as :meth:`Connection.recv_until`."""
        limit_s = self._asked(deadline)
        frame = self.inbox.take_until(delimiter, limit)
        if frame is None:
            self.protocol.wanted = limit
            frame = await self._frame(
                lambda: self.inbox.take_until(delimiter, limit), lambda: named_delimiter(delimiter), limit_s
            )
        self.protocol.taken()
        return frame

    def peek(self, n: int) -> bytes:
        """Up to ``n`` bytes that have come already, left for the next call."""
        return self.inbox.peek(n)

    async def sendall(self, data: Readable, *, deadline: float | None = None) -> None:
        """Hand all of ``data`` over, and wait until the kernel has room for more.

        On return, by whichever way, ``data`` is the caller's again, to be changed or resized.

        Raises:
            DeadlineExceeded: ``sent_bytes`` of it were taken and will go out; send the rest later.
            ConnectionLost: the first error of the stream, with ``sent_bytes`` of this call.
            Truncated, TlsError: as recv.
            UsageError: the stream is closed, or another task is sending.
        """
        limit_s = asked_deadline(deadline)
        if self._sending:
            raise UsageError("another task is sending on this stream; let one task do it")
        self._sending = True
        sent = 0
        try:
            # Released on return: a caller may resize its bytearray even while it handles the error.
            with memoryview(data) as whole, whole.cast("B") as view:
                while await self.protocol.check_writable(sent) and sent < len(view):
                    if not self.protocol.full:
                        size = min(CHUNK_BYTES, len(view) - sent)
                        self.protocol.write(_lendable(data, view, sent, size))
                        sent += size
                    if self.protocol.full and not await self.protocol.wait_for_room(limit_s):
                        raise DeadlineExceeded(sent_bytes=sent)
        finally:
            self._sending = False

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more will come (FIN), after what was sent; receiving goes on.

        Raises:
            UsageError: the stream is closed; or over TLS, which asyncio cannot close in one direction.
        """
        if not self.transport.can_write_eof():
            raise UsageError("asyncio cannot end one direction of a TLS stream; use close()")
        self.protocol.shut()

    async def close(self, *, deadline: float | None = None) -> None:
        """Send what is still to be sent, then close; at the deadline, or if cancelled, close without it."""
        await self.protocol.close(asked_deadline(deadline))

    def abort(self) -> None:
        """Close at once; what is still to be sent is lost. Waiting tasks and later calls get UsageError."""
        self.protocol.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A timeout around the block must hold: whoever is thrown out of it waits for no peer.
        await self.close(deadline=-math.inf if kind else time.monotonic() + LEAVING_S)

    def _asked(self, deadline: float | None) -> float:
        """When to stop receiving, once it is known that nobody else does."""
        limit_s = asked_deadline(deadline)
        if self.protocol.waited_for:
            raise UsageError("another task is receiving on this stream; let one task do it")
        return limit_s

    async def _frame(
        self, take: Callable[[], bytes | None], wanted: Callable[[], str], limit_s: float
    ) -> bytes:
        try:
            while True:
                if not await self._more(limit_s):
                    raise Truncated(b"", wanted())
                if (frame := take()) is not None:
                    return frame
        except Gathered as error:
            inbox = self.inbox
            error.gathered(lambda: inbox.peek(len(inbox)))
            raise
        finally:
            self.protocol.wanted = 0

    async def _more(self, limit_s: float) -> bool:
        """Wait until there is more in the inbox; False at the end of the stream."""
        came = await self.protocol.wait_for_data(limit_s)
        if not came and not self.protocol.ended:
            raise DeadlineExceeded()
        return came


def _lendable(data: Readable, view: memoryview, begin: int, size: int) -> bytes | memoryview:
    """A piece of ``data`` that nobody changes: the transport may keep it after the send has returned.

    uvloop does so, and asyncio from Python 3.12 on.
    """
    piece = view[begin : begin + size]
    return piece if isinstance(data, bytes) else bytes(piece)


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
        UsageError: the socket carries datagrams, or is not connected; it is still the caller's.
        ssl.SSLError: the handshake failed.
        OSError: so it did, or there was no descriptor left: a stream needs one beside the socket's.
    """
    ends(sock)
    sock.setblocking(False)
    stream = Stream(causes)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: stream.protocol, sock=sock, ssl=ssl, server_hostname=server_hostname)
    if stream.protocol.not_made is not None:
        raise stream.protocol.not_made
    return stream


async def serve(
    handle: Callable[[Stream], Awaitable[None]],
    sock: socket.socket,
    *,
    ssl: tls.SSLContext | None = None,
    causes: CauseSource | None = None,
) -> asyncio.Server:
    """A server that runs ``handle`` in a task for each connection, and closes its stream afterwards.

    A :class:`ConnectionLost`, :class:`Truncated` or :class:`TlsError` that ``handle`` lets out ends that task
    quietly: peers go, and on a public port some never spoke TLS.
    A connection for which no descriptor is left is closed, and the loop's exception handler is told.

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
            except (ConnectionLost, Truncated, TlsError):
                return

    def accept() -> StreamProtocol:
        stream = Stream(causes)

        def begin() -> None:
            if stream.protocol.not_made is not None:
                loop.call_exception_handler(
                    {
                        "message": "a connection was closed: no descriptor is left for its stream",
                        "exception": stream.protocol.not_made,
                    }
                )
                return
            task = loop.create_task(run(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        stream.protocol.on_made = begin
        return stream.protocol

    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    return await loop.create_server(accept, sock=sock, ssl=ssl)

# SPDX-License-Identifier: Apache-2.0
"""A load balancer of TCP connections: each goes to the next server in turn, wherever the last one went."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import cycle
from types import TracebackType
from typing import Self

from holdfast.hold.transports.target import Target


class Balancer:
    """Relays each connection to one server.

    Attributes:
        came: how many connections have come.

    Args:
        urls: of the servers.
    """

    def __init__(self, *urls: str) -> None:
        self.lead_to(*urls)
        self.came = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go()
        await asyncio.gather(*self._tasks)

    def lead_to(self, *urls: str) -> None:
        """From now on, to these in turn."""
        self._ports = cycle([Target.parse(url).port for url in urls])

    def cut(self) -> None:
        """Reset every connection that it relays."""
        for writer in self._writers:
            writer.transport.abort()

    def go(self) -> None:
        """Be gone: nobody listens at its address any more."""
        self._server.close()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        there, back = await asyncio.open_connection("127.0.0.1", next(self._ports))
        self._writers |= {writer, back}
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            self._writers -= {writer, back}
            writer.close()
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
    sink.close()

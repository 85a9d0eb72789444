# SPDX-License-Identifier: Apache-2.0
"""A path between client and server that a test can darken, cut and count."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Path:
    """Passes bytes on, each way, for each transport that comes.

    Attributes:
        came: how many transports have come.
        dark: those that came so far bring nothing any more, and nobody is told.
        flights: how many of the client's pass before a transport is cut; None: it is not. Until it is proven
            a client sends one and waits.
    """

    def __init__(self, port: int) -> None:
        self._port, self.came = port, 0
        self._dark: set[int] = set()
        self.flights: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def darken(self) -> None:
        """A black hole for all transports that are there."""
        self._dark |= set(range(self.came + 1))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where clients dial."""
        host, port = self._server.sockets[0].getsockname()
        return f"tcp://{host}:{port}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        number = self.came
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, from_client: bool) -> None:
            flights = 0
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    if number in self._dark:
                        continue
                    sink.write(data)
                    flights += from_client
                    if from_client and self.flights is not None and flights >= self.flights:
                        back.transport.abort()
                        writer.transport.abort()
                while number in self._dark:
                    await asyncio.sleep(3600)
            sink.close()

        for one in (pump(reader, back, True), pump(there, writer, False)):
            task = asyncio.get_running_loop().create_task(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

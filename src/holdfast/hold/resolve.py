"""Looks names up with a time limit, although the C library's lookup has none."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from holdfast.errors import UsageError
from holdfast.hold.forks import mended_in_child
from holdfast.hold.race import Address

Lookup = Callable[..., Sequence[tuple[int, int, int, str, Any]]]
LONGEST_SHOWN = 80


def name_of_host(host: str) -> str:
    """The name, if it is one that can be looked up.

    Raises:
        UsageError: it is none.
    """
    try:
        host.encode("idna")  # as getaddrinfo does it
    except UnicodeError as problem:
        shown = repr(host) if len(host) <= LONGEST_SHOWN else f"{host[:LONGEST_SHOWN]!r}..."
        raise UsageError(f"{shown} cannot be a host name: {problem}.") from problem
    return host


class Resolver:
    """Looks each name up in a thread of its own, one for each name and port at a time.

    Nothing can interrupt ``getaddrinfo``: at the time limit the caller goes on and the thread stays behind
    until the C library has given up (``timeout`` and ``attempts`` in resolv.conf). Whoever asks for the same
    name meanwhile waits for that same answer, so that a dead name server never costs more than one thread
    for each name. The threads are daemons and keep no program from ending.

    Args:
        lookup: what does the work, with the arguments of :func:`socket.getaddrinfo`.
    """

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self.forget()
        mended_in_child(self, Resolver.forget)

    def forget(self) -> None:
        """Start anew: a forked child has neither the threads nor, perhaps, the lock of its parent."""
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[Address]]] = {}

    def resolve(self, host: str, port: int, timeout_s: float) -> list[Address]:
        """The addresses of ``host`` in the order to prefer (RFC 6724), each once.

        Raises:
            socket.gaierror: the name has no address, or (EAI_AGAIN) no answer came in time, or no
                thread could be started to ask.
        """
        known = self._literal(host, port)
        if known is not None:
            return known
        try:
            return self._start(host, port).result(min(timeout_s, threading.TIMEOUT_MAX))
        except TimeoutError:
            raise _too_late(timeout_s) from None

    async def resolve_async(self, host: str, port: int, timeout_s: float) -> list[Address]:
        """As :meth:`resolve`, while the event loop goes on."""
        known = self._literal(host, port)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(min(timeout_s, threading.TIMEOUT_MAX)):
                return await asyncio.wrap_future(self._start(host, port))
        except TimeoutError:
            raise _too_late(timeout_s) from None

    def _literal(self, host: str, port: int) -> list[Address] | None:
        """The address that ``host`` spells out, which takes no name server; None if it is a name."""
        with contextlib.suppress(OSError, ValueError):  # not this kind: ask
            socket.inet_pton(socket.AF_INET, host)
            return [Address(socket.AF_INET, (host, port))]
        try:
            return _addresses(self._lookup(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                return None
            raise

    def _start(self, host: str, port: int) -> Future[list[Address]]:
        with self._lock:
            running = self._running.get((host, port))
            if running is not None:
                return running
            answer: Future[list[Address]] = Future()
            # From here on nobody who stops waiting can cancel it for the others.
            answer.set_running_or_notify_cancel()
            self._running[host, port] = answer
        thread = threading.Thread(
            target=self._work, args=(host, port, answer), name=f"resolve {host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # a limit on threads; the next lookup of this name tries again
            self._done(host, port, answer)
            answer.set_exception(socket.gaierror(socket.EAI_AGAIN, f"No lookup was possible ({error})"))
        return answer

    def _work(self, host: str, port: int, answer: Future[list[Address]]) -> None:
        try:
            found = _addresses(self._lookup(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001  raised again by result(), in the thread that waits for us
            self._done(host, port, answer)
            answer.set_exception(error)
        else:
            self._done(host, port, answer)
            answer.set_result(found)

    def _done(self, host: str, port: int, answer: Future[list[Address]]) -> None:
        with self._lock:
            if self._running.get((host, port)) is answer:
                del self._running[host, port]


def _addresses(found: Sequence[tuple[int, int, int, str, Any]]) -> list[Address]:
    return list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


def _too_late(timeout_s: float) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"No answer from the name servers within {timeout_s:.3g} s")


RESOLVER = Resolver()
"""What :mod:`holdfast.hold.dial` uses by default."""

"""Connects to a name: its addresses race (RFC 8305), round after round, until one answers or time is up."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno as errnos
import os
import select
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from holdfast.errors import (
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimedOut,
    ConnectionUnreachable,
    GaveUp,
    Loss,
)
from holdfast.events import Endpoint
from holdfast.hold.race import ATTEMPT_DELAY_S, Address, Race, interleave
from holdfast.hold.resolve import RESOLVER, Resolver

Clock = Callable[[], float]
Prepare = Callable[[socket.socket], object]

# What a driver is to do: wait until one of these sockets is writable, at most so many seconds.
Wait = tuple[list[socket.socket], float | None]
Racing = Generator[Wait, list[int], socket.socket | None]

# Rule: what an errno means while connecting; any other is raised as it is.
_VERDICTS: dict[int, tuple[type[ConnectionLost], str]] = {
    errnos.ECONNREFUSED: (ConnectionRefused, "connection_refused"),
    errnos.ETIMEDOUT: (ConnectionTimedOut, "connect_timeout"),
    **dict.fromkeys(
        (errnos.EHOSTUNREACH, errnos.ENETUNREACH, errnos.ENETDOWN, errnos.EHOSTDOWN),
        (ConnectionUnreachable, "icmp_error"),
    ),
}


@dataclass(frozen=True, slots=True)
class _Dialled:
    """A socket whose handshake is under way."""

    sock: socket.socket
    address: Address
    local: str | None


def connect(
    address: tuple[str, int],
    *,
    deadline: float | None = None,
    prepare: Prepare | None = None,
    attempt_delay_s: float = ATTEMPT_DELAY_S,
    resolver: Resolver = RESOLVER,
    clock: Clock = time.monotonic,
) -> socket.socket:
    """A connected TCP socket, in blocking mode."""
    found = resolver.resolve(*address, _left_s(deadline, clock))
    race = Race(interleave(found), attempt_delay_s)
    sock = _wait_polling(_racing(race, deadline, prepare, clock))
    if sock is None:
        raise GaveUp(race.losses, "no address could be reached")
    sock.setblocking(True)
    return sock


async def connect_async(
    address: tuple[str, int],
    *,
    deadline: float | None = None,
    prepare: Prepare | None = None,
    attempt_delay_s: float = ATTEMPT_DELAY_S,
    resolver: Resolver = RESOLVER,
    clock: Clock = time.monotonic,
) -> socket.socket:
    """As :func:`connect`, for asyncio: a connected socket in non-blocking mode."""
    found = await resolver.resolve_async(*address, _left_s(deadline, clock))
    race = Race(interleave(found), attempt_delay_s)
    sock = await _wait_in_loop(_racing(race, deadline, prepare, clock))
    if sock is None:
        raise GaveUp(race.losses, "no address could be reached")
    return sock


def _racing(race: Race, deadline: float | None, prepare: Prepare | None, clock: Clock) -> Racing:
    """One round, whoever waits: yields what to wait for, is sent the descriptors that are ready.

    Returns the socket that connected first, None if none did. Whatever happens, every other one is closed.
    """
    running: dict[int, _Dialled] = {}
    try:
        while True:
            left_s = _left_s(deadline, clock)
            if left_s == 0:
                _time_out(race, running)
                return None
            _start_due(race, running, prepare, clock)
            if race.over:
                return None
            waits_s = [wait_s for wait_s in (race.wait_s(clock()), left_s) if wait_s is not None]
            ready = yield [one.sock for one in running.values()], min(waits_s, default=None)
            for descriptor in ready:
                dialled = running.pop(descriptor)
                lost = _outcome(dialled)
                if lost is None:
                    return dialled.sock
                dialled.sock.close()
                race.lost(lost)
    finally:
        for dialled in running.values():
            dialled.sock.close()


def _start_due(race: Race, running: dict[int, _Dialled], prepare: Prepare | None, clock: Clock) -> None:
    while (address := race.take(clock())) is not None:
        dialled = _start(address, prepare)
        if isinstance(dialled, OSError):
            race.lost(dialled)
        else:
            running[dialled.sock.fileno()] = dialled


def _start(address: Address, prepare: Prepare | None) -> _Dialled | OSError:
    """Begin one handshake. An address that cannot even be tried must not end the race for the others."""
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:  # no IPv6 in this kernel, or no descriptor left
        return _failure(error.errno or 0, address)
    try:
        if prepare is not None:
            prepare(sock)
        number = sock.connect_ex(address.sockaddr)
        local = str(Endpoint(*sock.getsockname()[:2]))
    except BaseException:
        sock.close()
        raise
    if number not in (0, errnos.EINPROGRESS):
        sock.close()
        return _failure(number, address)
    return _Dialled(sock, address, local)


def _outcome(dialled: _Dialled) -> OSError | None:
    """How a handshake ended; None: connected."""
    # SO_ERROR consumes the error that it tells; here that is the one place where it is wanted.
    number = dialled.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number == 0 and _met_itself(dialled.sock):
        number = errnos.ECONNREFUSED
    return _failure(number, dialled.address, dialled.local) if number else None


def _met_itself(sock: socket.socket) -> bool:
    """Nothing listened, and the kernel chose the very port that was dialled as ours.

    A simultaneous open (RFC 9293 section 3.5) then connects the socket to itself: it would echo the request
    and hold the port that the server needs. It takes a port from net.ipv4.ip_local_port_range and retries.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # reset meanwhile; its user will see that
        return False


def _time_out(race: Race, running: dict[int, _Dialled]) -> None:
    for dialled in running.values():
        race.lost(_failure(errnos.ETIMEDOUT, dialled.address, dialled.local))


def _failure(number: int, address: Address, local: str | None = None) -> OSError:
    """The typed error for one address."""
    peer = str(Endpoint(*address.sockaddr[:2]))
    if number not in _VERDICTS:
        return OSError(number, f"{os.strerror(number)}: {peer}")
    kind, cause = _VERDICTS[number]
    return kind(Loss(number, cause, local=local, peer=peer))


def _wait_polling(racing: Racing) -> socket.socket | None:
    """Drive a round with poll()."""
    ready: list[int] | None = None
    try:
        while True:
            socks, timeout_s = next(racing) if ready is None else racing.send(ready)
            poll = select.poll()
            for sock in socks:
                poll.register(sock, select.POLLOUT)
            ready = [fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any
    finally:
        racing.close()


async def _wait_in_loop(racing: Racing) -> socket.socket | None:
    """Drive a round with the running event loop."""
    ready: list[int] | None = None
    try:
        while True:
            socks, timeout_s = next(racing) if ready is None else racing.send(ready)
            ready = await _writable(socks, timeout_s)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed: StopIteration.value is Any
    finally:
        racing.close()


async def _writable(socks: list[socket.socket], timeout_s: float | None) -> list[int]:
    """The descriptors of those that can be written to, once one can or time is up."""
    loop = asyncio.get_running_loop()
    ready: list[int] = []
    some = asyncio.Event()

    def note(descriptor: int) -> None:
        loop.remove_writer(descriptor)
        ready.append(descriptor)
        some.set()

    descriptors = [sock.fileno() for sock in socks]
    try:
        for descriptor in descriptors:
            loop.add_writer(descriptor, note, descriptor)
        async with asyncio.timeout(timeout_s):
            await some.wait()
    except TimeoutError:
        pass
    finally:
        for descriptor in descriptors:
            loop.remove_writer(descriptor)
    return ready


def _left_s(deadline: float | None, clock: Clock) -> float | None:
    return None if deadline is None else max(0.0, deadline - clock())

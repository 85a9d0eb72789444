"""Connects to a name: its addresses race (RFC 8305), round after round, until one answers or time is up."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno as errnos
import os
import random
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from holdfast.errors import GaveUp, HoldfastError, Loss, UsageError
from holdfast.events import Endpoint
from holdfast.hold.classify import Phase, classify
from holdfast.hold.race import ATTEMPT_DELAY_S, Address, Race, interleave
from holdfast.hold.resolve import RESOLVER, Resolver, name_of_host
from holdfast.hold.retry import Budget, Retried, Retrying, current_attempt
from holdfast.policy import Failure, RetryPolicy

Clock = Callable[[], float]
Prepare = Callable[[socket.socket], object]

# What a driver is to do: wait until one of these sockets is writable, at most so many seconds.
Wait = tuple[list[socket.socket], float]
Racing = Generator[Wait, list[int], socket.socket | None]


@dataclass(frozen=True, slots=True)
class _Dialled:
    """A socket whose handshake is under way."""

    sock: socket.socket
    address: Address
    local: str | None


def connect(
    address: tuple[str, int],
    *,
    policy: RetryPolicy | None = None,
    deadline: float | None = None,
    budget: Budget | None = None,
    on_retry: Callable[[Retried], object] | None = None,
    prepare: Prepare | None = None,
    attempt_delay_s: float = ATTEMPT_DELAY_S,
    resolver: Resolver = RESOLVER,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> socket.socket:
    """A TCP socket, connected and in blocking mode, to whichever address of a name answers first.

    Its addresses race: IPv6 and IPv4 in turns, each ``attempt_delay_s`` after the one before, or at once
    when one fails. If all fail, the name is looked up again and they race again, as the policy allows.

    Args:
        address: host name or address, and port.
        policy: how many rounds, and for how long in all. None: the defaults of RetryPolicy, but a single
            round inside an :class:`~holdfast.hold.retry.Attempt`, which repeats the whole anyway.
        deadline: on ``clock``; replaces the policy's ``deadline_s``. Infinity: without limit.
        budget: retries that all who dial this destination share.
        on_retry: told before each wait; the ``loss`` is a :class:`RoundLost`.
        prepare: called with each socket before it connects: options, ``bind``. What it raises goes up.
        attempt_delay_s: from 0.01 to 2 seconds.
        resolver, clock, sleep, chance: where names, time and chance come from.

    Raises:
        UsageError: a host, a port, a deadline or a delay that cannot be.
        GaveUp: with the loss of each address in each round: ConnectionRefused, ConnectionTimedOut (no
            answer until the kernel gave up, or in the time there was), ConnectionUnreachable, gaierror for
            the name, or another OSError where an address cannot be dialled from here.

    Source: RFC 8305; the order within a family is RFC 6724's, as getaddrinfo gives it.
    """
    host, port = host_and_port(address)
    terms = _terms(policy, deadline, budget, on_retry, clock, chance)
    with _every_loss():
        for attempt in replace(terms, sleep=sleep):
            with attempt:
                with _name_lost(host):
                    found = resolver.resolve(host, port, max(0.0, attempt.deadline - clock()))
                race = Race(interleave(found), attempt_delay_s)
                sock = _connected(_wait_polling(_racing(race, attempt.deadline, prepare, clock)), race)
                sock.setblocking(True)
                return sock
    raise AssertionError("a loop of attempts ends by return or by error")


async def connect_async(
    address: tuple[str, int],
    *,
    policy: RetryPolicy | None = None,
    deadline: float | None = None,
    budget: Budget | None = None,
    on_retry: Callable[[Retried], object] | None = None,
    prepare: Prepare | None = None,
    attempt_delay_s: float = ATTEMPT_DELAY_S,
    resolver: Resolver = RESOLVER,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> socket.socket:
    """As :func:`connect`, for asyncio: the socket is in non-blocking mode, as its loop wants it."""
    host, port = host_and_port(address)
    terms = _terms(policy, deadline, budget, on_retry, clock, chance)
    with _every_loss():
        async for attempt in replace(terms, sleep_async=sleep):
            with attempt:
                with _name_lost(host):
                    found = await resolver.resolve_async(host, port, max(0.0, attempt.deadline - clock()))
                race = Race(interleave(found), attempt_delay_s)
                return _connected(await _wait_in_loop(_racing(race, attempt.deadline, prepare, clock)), race)
    raise AssertionError("a loop of attempts ends by return or by error")


def host_and_port(address: tuple[str, int]) -> tuple[str, int]:
    """Both parts of an address that can be looked up.

    Raises:
        UsageError: it cannot.
    """
    try:
        host, port = address[:2]  # getsockname() of IPv6 gives four
    except (TypeError, ValueError):
        raise UsageError(f"The address must be (host, port), not {address!r}.") from None
    if type(port) is not int or not 0 < port < 65536:  # getaddrinfo would take it modulo 65536
        raise UsageError(f"The port must be a number from 1 to 65535, not {port!r}.")
    if not isinstance(host, str) or not host or "\0" in host:  # None would be this host
        raise UsageError(f"The host must be a name or an address, not {host!r}.")
    return name_of_host(host), port


def _terms(
    policy: RetryPolicy | None,
    deadline: float | None,
    budget: Budget | None,
    on_retry: Callable[[Retried], object] | None,
    clock: Clock,
    chance: Callable[[], float],
) -> Retrying:
    if policy is None:
        policy = RetryPolicy() if current_attempt() is None else RetryPolicy(retries=0)
    return Retrying(
        policy,
        deadline=deadline,
        budget=budget,
        on_retry=on_retry,
        failure_of=lambda error: Failure.CONNECT_FAILURE if isinstance(error, RoundLost) else None,
        clock=clock,
        chance=chance,
    )


class RoundLost(HoldfastError):
    """Every address of one round failed: the ``loss`` that ``on_retry`` is told; never raised to the caller.

    Attributes:
        losses: what ended each attempt, in order.
    """

    def __init__(self, losses: Sequence[OSError]) -> None:
        super().__init__(losses)
        self.losses = tuple(losses)

    def __str__(self) -> str:
        return " ".join(str(loss) for loss in self.losses)


@contextmanager
def _name_lost(host: str) -> Iterator[None]:
    """Counts a name without addresses as a lost round: it may have some a moment later."""
    try:
        yield
    except socket.gaierror as error:
        raise RoundLost([socket.gaierror(error.errno, f"{error.strerror}: {host}")]) from error


def _connected(sock: socket.socket | None, race: Race) -> socket.socket:
    if sock is None:
        raise RoundLost(race.losses)
    return sock


@contextmanager
def _every_loss() -> Iterator[None]:
    """Lists the losses of all rounds where the driver of the retries knows one for each round."""
    try:
        yield
    except RoundLost as error:
        losses, why = error.losses, "the policy does not retry failures to connect"
    except GaveUp as error:
        rounds = [loss for loss in error.losses if isinstance(loss, RoundLost)]
        losses, why = tuple(loss for lost in rounds for loss in lost.losses), error.why
    else:
        return
    raise GaveUp(losses, why) from (losses[-1] if losses else None)


def _racing(race: Race, deadline: float, prepare: Prepare | None, clock: Clock) -> Racing:
    """One round, whoever waits: yields what to wait for, is sent the descriptors that are ready.

    Returns the socket that connected first, None if none did. Whatever happens, every other one is closed.
    """
    running: dict[int, _Dialled] = {}
    try:
        while True:
            left_s = deadline - clock()
            if left_s <= 0:
                _time_out(race, running)
                return None
            _start_due(race, running, prepare, clock)
            if race.over:
                return None
            wait_s = race.wait_s(clock())
            left_s = left_s if wait_s is None else min(wait_s, left_s)
            ready = yield [one.sock for one in running.values()], left_s
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
        return failure(error.errno or 0, address)
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
        return failure(number, address)
    return _Dialled(sock, address, local)


def _outcome(dialled: _Dialled) -> OSError | None:
    """How a handshake ended; None: connected."""
    # SO_ERROR consumes the error that it tells; here that is the one place where it is wanted.
    number = dialled.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number == 0 and _met_itself(dialled.sock):
        # No TIME_WAIT, which would go on holding the port.
        dialled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        number = errnos.ECONNREFUSED
    return failure(number, dialled.address, dialled.local) if number else None


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
        race.lost(failure(errnos.ETIMEDOUT, dialled.address, dialled.local))


def failure(number: int, address: Address, local: str | None = None) -> OSError:
    """The typed error for one address that could not be connected."""
    peer = str(Endpoint(*address.sockaddr[:2]))
    verdict = classify(number, Phase.CONNECTING)
    if verdict is None:
        return OSError(number, f"{os.strerror(number)}: {peer}")
    return verdict.error(Loss(number, verdict.cause, local=local, peer=peer))


_LONGEST_POLL_S = 3600.0  # poll() takes an int of milliseconds; a round just waits again


def _wait_polling(racing: Racing) -> socket.socket | None:
    """Drive a round with poll()."""
    ready: list[int] | None = None
    try:
        while True:
            socks, timeout_s = next(racing) if ready is None else racing.send(ready)
            poll = select.poll()
            for sock in socks:
                poll.register(sock, select.POLLOUT)
            ready = [fd for fd, _ in poll.poll(min(timeout_s, _LONGEST_POLL_S) * 1000)]
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


async def _writable(socks: list[socket.socket], timeout_s: float) -> list[int]:
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
        async with asyncio.timeout(min(timeout_s, _LONGEST_POLL_S)):
            await some.wait()
    except TimeoutError:
        pass
    finally:
        for descriptor in descriptors:
            loop.remove_writer(descriptor)
    return ready

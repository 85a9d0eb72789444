"""TCP Fast Open for a first message that may arrive twice, and a memory of the paths that lose it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from holdfast.errors import (
    ConnectionLost,
    DeadlineExceeded,
    GaveUp,
    HoldfastError,
    KernelUnavailable,
    UsageError,
)
from holdfast.hold.asked import asked_deadline
from holdfast.hold.classify import Phase
from holdfast.hold.dial import connect, failure, host_and_port
from holdfast.hold.forks import freed, mended_in_child
from holdfast.hold.loss import lost
from holdfast.hold.options import apply
from holdfast.hold.race import Address
from holdfast.hold.receive import sendall
from holdfast.hold.resolve import RESOLVER, Resolver
from holdfast.linux import states, tcp_info
from holdfast.policy import RetryPolicy, SocketPolicy

SYN_SENT = states.NUMBERS["SYN_SENT"]
TCPI_OPT_SYN_DATA = 32
"""include/uapi/linux/tcp.h: the data in our SYN was acknowledged."""

PATIENCE_S = 3.0
"""How long Fast Open may take before the usual way is tried: Linux repeats the SYN without it after 1 s."""

FORGET_AFTER_S = 3600.0
"""How long a path is avoided the first time. Source: what tcp_fastopen_blackhole_timeout_sec was when Linux
got it (4.12); today it is 0, so the kernel remembers nothing by itself (measured on 6.18)."""
DOUBLINGS = 6
"""How often that doubles for a path that loses again, as in the kernel: up to 64 hours."""


class Outcome(StrEnum):
    """What became of Fast Open on one connection; the first message was handed over in every case."""

    USED = "used"
    """The message travelled in the SYN, and the peer acknowledged it there: one round trip saved."""

    NO_COOKIE = "no-cookie"
    """A usual handshake that asked for a cookie: the first contact, or a server without Fast Open."""

    LOST = "lost"
    """The SYN had to be repeated without, or its data was not taken: the path is avoided from now on."""

    AVOIDED = "avoided"
    """Not tried: this path has lost such a SYN not long ago."""

    NOT_IDEMPOTENT = "not-idempotent"
    """Not tried: the caller did not say that the message may arrive twice."""

    UNAVAILABLE = "unavailable"
    """Not tried: net.ipv4.tcp_fastopen forbids it to clients, or the kernel is older than 4.11."""


class Opened(NamedTuple):
    """A connection whose first message was sent, and how."""

    sock: socket.socket
    outcome: Outcome


class PathMemory:
    """Which peers' paths lose a SYN with data or with the Fast Open option; threads may share one.

    Args:
        forget_after_s: how long a path is avoided after it lost one; doubles with each further loss.
        most: how many peers are remembered; beyond, the one longest untouched is forgotten.
    """

    def __init__(self, forget_after_s: float = FORGET_AFTER_S, most: int = 1024) -> None:
        self._forget_after_s = forget_after_s
        self._most = most
        self._lost: OrderedDict[str, tuple[int, float]] = OrderedDict()  # ip: (times lost, avoided until)
        self._lock = threading.RLock()
        mended_in_child(self, PathMemory._become_the_childs)

    def avoids(self, ip: str, now_s: float) -> bool:
        """Whether the path to this address is to be spared Fast Open."""
        with self._lock:
            _, until_s = self._lost.get(ip, (0, now_s))
            return now_s < until_s

    def lost(self, ip: str, now_s: float) -> None:
        """The path has lost a SYN."""
        with self._lock:
            times, _ = self._lost.pop(ip, (0, 0.0))
            self._lost[ip] = times + 1, now_s + self._forget_after_s * 2.0 ** min(times, DOUBLINGS)
            while len(self._lost) > self._most:
                self._lost.popitem(last=False)

    def passed(self, ip: str) -> None:
        """The path has let one through: whatever was in the way is gone."""
        with self._lock:
            self._lost.pop(ip, None)

    def _become_the_childs(self) -> None:
        self._lock = freed(self._lock)


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


class FastOpen:
    """Opens connections with the first message in the SYN where that is allowed, known and harmless.

    Threads may share one. It is worth one round trip per connection, no more.

    Args:
        memory: shared between several, if you like.
        clock: seconds that never go back, for the memory.
    """

    def __init__(self, memory: PathMemory | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.memory = memory or PathMemory()
        self._clock = clock

    def connect(
        self,
        address: tuple[str, int],
        first: bytes,
        *,
        deadline: float | None = None,
        idempotent: bool = False,
        policy: SocketPolicy = SocketPolicy(),  # noqa: B008 - a frozen value
        resolver: Resolver = RESOLVER,
    ) -> Opened:
        """A blocking socket that is connected and has been given the whole first message.

        Args:
            address: host name or address, and port. Fast Open is tried with the first address of a name;
                otherwise, and if it fails, all of them race as in :func:`~holdfast.hold.dial.connect`.
            first: what this end says first; not empty, since nothing leaves before it.
            deadline: absolute ``time.monotonic()`` seconds, for all of it. None: 15 s to connect, as there,
                and no limit for the message.
            idempotent: the message may be delivered twice without harm. Only then is Fast Open tried: a
                server cannot tell a repeated SYN from a new one (RFC 7413 §6.1).
            policy: the socket's other options; its ``fastopen_connect`` is decided here.
            resolver: where addresses come from.

        Raises:
            UsageError: there is no first message, or an address or deadline cannot be.
            GaveUp: no address could be connected; ``losses`` has what ended each attempt.
            ConnectionLost: the connection ended while the message was handed over, ``sent_bytes`` of it.
            DeadlineExceeded: time was up meanwhile, after ``sent_bytes``.
        """
        host, port = host_and_port(address)
        limit = asked_deadline(deadline)
        if not first:
            raise UsageError("There is no first message: connect without Fast Open.")
        found = _addresses(host, port, limit, resolver)
        outcome = self._why_not(found[0], idempotent)
        fast = None if outcome else self._fast(found[0], first, limit, policy)
        if isinstance(fast, _Begun):
            sock, sent, outcome = fast
        else:
            outcome = outcome or fast or Outcome.NO_COOKIE
            sock, sent = _slow((host, port), found, deadline, policy), 0
            if outcome is Outcome.LOST:
                self.memory.lost(_ip(found[0]), self._clock())
        with _closed_on_error(sock):
            # Not part of dialling: what happens from here on says nothing about Fast Open.
            sock.settimeout(None)
            try:
                sendall(sock, memoryview(first)[sent:], deadline=deadline)
            except (ConnectionLost, DeadlineExceeded) as error:
                error.sent_bytes += sent
                raise
        return Opened(sock, outcome)

    def _why_not(self, address: Address, idempotent: bool) -> Outcome | None:
        if not idempotent:
            return Outcome.NOT_IDEMPOTENT
        return Outcome.AVOIDED if self.memory.avoids(_ip(address), self._clock()) else None

    def _fast(
        self, address: Address, first: bytes, limit: float, policy: SocketPolicy
    ) -> _Begun | Outcome | None:
        """A connection begun with Fast Open; else what became of that, None for a failure of another kind."""
        try:
            return self._with_data(address, first, min(limit, time.monotonic() + PATIENCE_S), policy)
        except KernelUnavailable:
            return Outcome.UNAVAILABLE
        except (ConnectionRefusedError, TimeoutError):
            # A closed port, or a middlebox that answers such a SYN with a reset: the usual way will tell.
            # A reset after the handshake is ECONNRESET, and the caller's to know.
            return Outcome.LOST
        except HoldfastError:
            raise
        except OSError:  # no route to this address, or no such family: another one may do
            return None

    def _with_data(self, address: Address, first: bytes, end_s: float, policy: SocketPolicy) -> _Begun:
        """Dial with Fast Open; with a cookie, connect() only notes the address and send() dials."""
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        with _closed_on_error(sock):
            apply(replace(policy, fastopen_connect=True), sock)
            sock.settimeout(_left_s(end_s))
            sock.connect(address.sockaddr)
            sent = 0
            try:
                if tcp_info.of_socket(sock).state == SYN_SENT:
                    sent = sock.send(first)
                    _await_handshake(sock, end_s)
            except ConnectionResetError as error:
                found = lost(sock, error, Phase.OPEN, sent_bytes=sent)
                assert found is not None  # ECONNRESET is in the table for every phase
                raise found from error
            return _Begun(sock, sent, self._judge(tcp_info.of_socket(sock), _ip(address)))

    def _judge(self, info: tcp_info.TcpInfo, ip: str) -> Outcome:
        if (info.options or 0) & TCPI_OPT_SYN_DATA:
            self.memory.passed(ip)
            return Outcome.USED
        # The SYN was repeated, or its data was. A SYN lost by chance looks the same, and costs one round trip
        # per connection for a while; tcpi_fastopen_client_fail knows no better and is younger (Linux 5.5).
        if info.total_retrans:
            self.memory.lost(ip, self._clock())
            return Outcome.LOST
        return Outcome.NO_COOKIE


class _Begun(NamedTuple):
    """A connected socket, how much of the message was sent with it, and what became of Fast Open."""

    sock: socket.socket
    sent: int
    outcome: Outcome


def _addresses(host: str, port: int, limit: float, resolver: Resolver) -> list[Address]:
    try:
        found = resolver.resolve(host, port, max(0.0, limit - time.monotonic()))
    except socket.gaierror as error:
        raise GaveUp([error], f"no address was found for {host}") from error
    if not found:
        raise GaveUp([], f"no address was found for {host}")
    return found


def _slow(
    address: tuple[str, int], found: list[Address], deadline: float | None, policy: SocketPolicy
) -> socket.socket:
    """A socket that was connected the usual way to whichever of these addresses answered first."""
    known = [(family, socket.SOCK_STREAM, 0, "", sockaddr) for family, sockaddr in found]
    plain = replace(policy, fastopen_connect=False)
    if deadline is not None and time.monotonic() >= deadline:
        raise GaveUp([failure(errno.ETIMEDOUT, found[0])], "the deadline has passed")
    return connect(
        address,
        policy=RetryPolicy(retries=0),
        deadline=deadline,
        prepare=lambda sock: apply(plain, sock),
        resolver=Resolver(lambda *_, **__: known),
    )


def _await_handshake(sock: socket.socket, end_s: float) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(_left_s(end_s) * 1000):
        raise TimeoutError("timed out")
    # Reading the error clears it; it is raised at once and the socket closed, so it is not lost.
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, f"connect: {os.strerror(number)}")


def _ip(address: Address) -> str:
    return str(address.sockaddr[0])


def _left_s(end_s: float) -> float:
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s

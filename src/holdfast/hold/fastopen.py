"""TCP Fast Open for a first message that may arrive twice, and a memory of the paths that lose it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.events import Endpoint
from holdfast.hold.options import apply
from holdfast.linux import states, tcp_info
from holdfast.policy import SocketPolicy

SYN_SENT = states.NUMBERS["SYN_SENT"]
TCPI_OPT_SYN_DATA = 32
"""include/uapi/linux/tcp.h: the data in our SYN was acknowledged."""

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
        self._lock = threading.Lock()

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
        clock: seconds that never go back.
    """

    def __init__(self, memory: PathMemory | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.memory = memory or PathMemory()
        self._clock = clock

    def connect(
        self,
        peer: Endpoint,
        first: bytes,
        *,
        timeout_s: float,
        idempotent: bool = False,
        policy: SocketPolicy = SocketPolicy(),  # noqa: B008 - a frozen value
    ) -> Opened:
        """A blocking socket that is connected and has been given the whole first message.

        Args:
            peer: a resolved address.
            first: what this end says first; not empty, since nothing leaves before it.
            timeout_s: for all of it, a second attempt without Fast Open included.
            idempotent: the message may be delivered twice without harm. Only then is Fast Open tried: a
                server cannot tell a repeated SYN from a new one (RFC 7413 §6.1).
            policy: the socket's other options; its ``fastopen_connect`` is decided here.

        Raises:
            UsageError: there is no first message.
            OSError: as ``socket.create_connection``; ``TimeoutError`` when the time is up.
        """
        if not first:
            raise UsageError("There is no first message: connect without Fast Open.")
        end_s = self._clock() + timeout_s
        sock, outcome, sent = self._dialled(peer, first, end_s, policy, idempotent)
        with _closed_on_error(sock):
            # Not part of dialling: what happens from here on says nothing about Fast Open.
            sock.settimeout(self._left_s(end_s))
            sock.sendall(first[sent:])
            sock.settimeout(None)
        return Opened(sock, outcome)

    def _dialled(
        self, peer: Endpoint, first: bytes, end_s: float, policy: SocketPolicy, idempotent: bool
    ) -> tuple[socket.socket, Outcome, int]:
        """A connected socket, what became of Fast Open, and how much of the message was sent with it."""
        outcome = self._why_not(peer.ip, idempotent)
        if outcome is None:
            try:
                return self._with_data(peer, first, end_s, policy)
            except KernelUnavailable:
                outcome = Outcome.UNAVAILABLE
            except ConnectionRefusedError:
                # A closed port, or a middlebox that answers such a SYN with a reset: the usual way will tell.
                # A reset after the handshake is ECONNRESET, and the caller's to know.
                outcome = Outcome.LOST
        sock = self._socket(peer, end_s, replace(policy, fastopen_connect=False))
        with _closed_on_error(sock):
            sock.connect((peer.ip, peer.port))
        if outcome is Outcome.LOST:
            self.memory.lost(peer.ip, self._clock())
        return sock, outcome, 0

    def _why_not(self, ip: str, idempotent: bool) -> Outcome | None:
        if not idempotent:
            return Outcome.NOT_IDEMPOTENT
        return Outcome.AVOIDED if self.memory.avoids(ip, self._clock()) else None

    def _with_data(
        self, peer: Endpoint, first: bytes, end_s: float, policy: SocketPolicy
    ) -> tuple[socket.socket, Outcome, int]:
        """Dial with Fast Open; with a cookie, connect() only notes the address and send() dials."""
        sock = self._socket(peer, end_s, replace(policy, fastopen_connect=True))
        with _closed_on_error(sock):
            sock.connect((peer.ip, peer.port))
            sent = 0
            if tcp_info.of_socket(sock).state == SYN_SENT:
                sent = sock.send(first)
                self._await_handshake(sock, end_s)
            return sock, self._judge(tcp_info.of_socket(sock), peer.ip), sent

    def _socket(self, peer: Endpoint, end_s: float, policy: SocketPolicy) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in peer.ip else socket.AF_INET, socket.SOCK_STREAM)
        with _closed_on_error(sock):
            sock.settimeout(self._left_s(end_s))
            apply(policy, sock)
        return sock

    def _await_handshake(self, sock: socket.socket, end_s: float) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if not poll.poll(self._left_s(end_s) * 1000):
            raise TimeoutError("timed out")
        # Reading the error clears it; it is raised at once and the socket closed, so it is not lost.
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, f"connect: {os.strerror(number)}")

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

    def _left_s(self, end_s: float) -> float:
        left_s = end_s - self._clock()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s

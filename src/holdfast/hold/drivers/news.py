"""Tells the sessions of an event loop that addresses or routes of this machine have changed."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from holdfast.linux.rtnetlink import Changes, RouteChanges

LOGGER = logging.getLogger("holdfast.hold.session")

SETTLE_S = 0.05
"""How long changes are gathered: they come in flocks, and what takes an address away may give another."""

SHARE = 0.1
"""The largest part of a processor that is spent on changes, however many there are."""

AT_ONCE = 64
"""How many sessions are told in one turn of the loop: to ask a peer takes 60 us."""

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What the next session may find again."""

SockAddr = tuple[Any, ...]


class Fate(Enum):
    """What became of the way from one address to another."""

    SAME = "same"
    CHANGED = "changed"
    GONE = "gone"


class News:
    """What has changed, and for whom. Each question is put to the kernel once, however many sessions ask.

    Args:
        changes: as the kernel told them.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._concerned: dict[str, bool] = {}
        self._fates: dict[tuple[str, str], Fate] = {}

    def concerns(self, host: str) -> bool:
        """Whether what is sent to this address may take another way now."""
        if host not in self._concerned:
            address = _address(host)
            networks = self._changes.networks
            self._concerned[host] = address is not None and any(address in one for one in networks)
        return self._concerned[host]

    def fate(self, local: SockAddr, peer: SockAddr) -> Fate:
        """What became of a transport's way, from the address it has to that of its peer."""
        key = local[0], peer[0]
        if key not in self._fates:
            self._fates[key] = self._found(local, peer)
        return self._fates[key]

    def _found(self, local: SockAddr, peer: SockAddr) -> Fate:
        if self._changes.less:
            if not is_here(local):
                return Fate.GONE
            if source(peer) != _address(local[0]):
                return Fate.CHANGED
        return Fate.CHANGED if self.concerns(peer[0]) else Fate.SAME


class Reader(Protocol):
    """Who wants to know."""

    def read(self, news: News) -> None:
        """Addresses or routes have changed."""


class RouteWatch:
    """Listens for the sessions of one event loop, from the first to the last of them.

    Where the kernel or a sandbox refuses to tell, nobody is told: the heartbeat notices later.
    """

    def __init__(self) -> None:
        self._readers: WeakSet[Reader] = WeakSet()
        self._changes: RouteChanges | None = None
        self._not_before_s = 0.0
        self._refused = False

    def enter(self, reader: Reader) -> None:
        """Tell this one, too, until it leaves or is forgotten."""
        self._readers.add(reader)
        if self._changes is not None or self._refused:
            return
        try:
            self._changes = RouteChanges()
        except OSError as error:
            self._refuse(error)
            return
        asyncio.get_running_loop().add_reader(self._changes.sock, self._came)

    def leave(self, reader: Reader) -> None:
        """Tell this one no more."""
        self._readers.discard(reader)
        if not self._readers:
            self._close()

    def _close(self) -> None:
        if self._changes is not None:
            asyncio.get_running_loop().remove_reader(self._changes.sock)
            self._changes.close()
            self._changes = None

    def _refuse(self, error: OSError) -> None:
        self._refused = error.errno not in SCARCE
        LOGGER.debug("changes of addresses and routes are not told here: %s", error)

    def _came(self) -> None:
        """Something changed. Until the rest is read with it, more of it wakes nobody."""
        assert self._changes is not None  # the reader is removed with it
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._changes.sock)
        wait_s = max(SETTLE_S, self._not_before_s - time.monotonic())
        loop.call_later(wait_s, self._tell, self._changes)

    def _tell(self, listening: RouteChanges) -> None:
        if listening is not self._changes:
            return  # the last session has left meanwhile
        begun_s = time.thread_time()
        try:
            changes = listening.read()
        except OSError as error:
            self._close()
            self._refuse(error)
            return
        self._charge(begun_s)
        self._spread(listening, News(changes), list(self._readers) if changes else [])

    def _spread(self, listening: RouteChanges, news: News, waiting: list[Reader]) -> None:
        begun_s = time.thread_time()
        some, rest = waiting[:AT_ONCE], waiting[AT_ONCE:]
        for reader in some:
            reader.read(news)
        self._charge(begun_s)
        if listening is not self._changes:
            return
        loop = asyncio.get_running_loop()
        if rest:
            loop.call_soon(self._spread, listening, news, rest)
        elif self._readers:
            loop.add_reader(listening.sock, self._came)
        else:
            self._close()

    def _charge(self, begun_s: float) -> None:
        """What was just done must be a small part of the time up to the next changes."""
        spent_s = time.thread_time() - begun_s
        self._not_before_s = max(self._not_before_s, time.monotonic()) + spent_s / SHARE


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, RouteWatch] = WeakKeyDictionary()


def route_watch() -> RouteWatch:
    """The one of the running loop."""
    return _watches.setdefault(asyncio.get_running_loop(), RouteWatch())


def is_here(local: SockAddr) -> bool:
    """Whether this machine still has an address."""
    host, _port, *rest = local
    try:
        with _probe(host) as sock:
            sock.bind((host.partition("%")[0], 0, *rest))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV)
    return True


def source(peer: SockAddr) -> IPv4Address | IPv6Address | None:
    """The address from which this machine would send to another now; None without a way. Sends nothing."""
    host, port, *rest = peer
    try:
        with _probe(host) as sock:
            sock.connect((host.partition("%")[0], port, *rest))
            return _address(sock.getsockname()[0])
    except OSError:
        return None


def _probe(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found

"""Look after look at the sockets of a network namespace, and what they and it did in between."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from holdfast.events import Process
from holdfast.linux import counters, states
from holdfast.linux.findings import Mark, mark, moved
from holdfast.linux.inspection import Inspection, inspection
from holdfast.linux.namespaces import netns_of
from holdfast.linux.processes import describe, socket_owners, sockets_of
from holdfast.linux.sock_diag import Socket, iter_sockets

REMEMBERED = 100_000
"""Of so many sockets it is remembered what they had done until the last look."""

LIVING = tuple(name for name in states.NUMBERS if name != "TIME_WAIT")
"""Every state but TIME_WAIT: a remnant has nothing to tell, and a busy host has many."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which sockets to look at: those that meet every condition.

    Attributes:
        matches: what a socket must be; None for any.
        ports: one of these at either end; empty for any.
        pid: held by this process, in its network namespace; None for any, in our own.
        state_names: in one of these states; empty for any.
    """

    matches: Callable[[Socket], bool] | None = None
    ports: Collection[int] = ()
    pid: int | None = None
    state_names: Collection[str] = LIVING


class Looks:
    """Looks at the sockets of a scope; from the second time on it tells what they did.

    Attributes:
        netns: inode number of the network namespace.
        interval_s: time between the last two looks, None before the second.
    """

    def __init__(self, scope: Scope) -> None:
        self.netns = netns_of(scope.pid or "self")
        self.interval_s: float | None = None
        self._scope = scope
        self._marks: dict[int, Mark] = {}
        self._looked_s: float | None = None
        self._counts: dict[str, int] = {}

    def sockets(self, now_s: float, time: str) -> Iterator[Inspection]:
        """One look, socket by socket and without owners (:func:`owned`), so that memory stays small.

        Args:
            now_s: monotonic seconds.
            time: the same moment for people, RFC 3339.

        Raises:
            KernelUnavailable: no ``sock_diag``, or the process is gone or not ours to look at.
        """
        scope = self._scope
        inodes = sockets_of(scope.pid) if scope.pid is not None else None
        # Our own namespace needs no rights to enter.
        elsewhere = scope.pid if self.netns != netns_of() else None
        self.interval_s = None if self._looked_s is None else now_s - self._looked_s
        marks: dict[int, Mark] = {}
        for sock in iter_sockets(
            elsewhere, scope.state_names, ports=scope.ports, inodes=inodes, details=True
        ):
            if scope.matches and not scope.matches(sock):
                continue
            before, after = self._marks.get(sock.cookie), mark(sock)
            if len(marks) < REMEMBERED:
                marks[sock.cookie] = after
            since = moved(before, after, self.interval_s) if before and self.interval_s else None
            yield inspection(time, sock, since)
        self._marks, self._looked_s = marks, now_s

    def refused(self) -> dict[str, int | None]:
        """What the namespace refused since the last call, at the first since it was made.

        Raises:
            KernelUnavailable: the process is gone.
        """
        before, self._counts = self._counts, counters.read(self._scope.pid or "self")
        rose = counters.delta(before, self._counts)
        return counters.refused({name: rose.get(name, 0) for name in self._counts})


def owned(looks: Iterable[Inspection]) -> list[Inspection]:
    """The same with their owners, by one search through ``/proc`` for all of them."""
    found = list(looks)
    holders = socket_owners([look.sock.inode for look in found])
    pids = set(itertools.chain.from_iterable(holders.values()))
    known: dict[int, Process | None] = {pid: describe(pid) for pid in pids}
    return [replace(look, owners=_of(holders.get(look.sock.inode, ()), known)) for look in found]


def _of(pids: tuple[int, ...], known: dict[int, Process | None]) -> tuple[Process, ...]:
    return tuple(process for pid in pids if (process := known[pid]))

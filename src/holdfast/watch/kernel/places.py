"""What /proc and sock_diag add to RSTs whose socket no hook saw: whose port it was, and whose address."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import ipaddress
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from holdfast.errors import KernelUnavailable
from holdfast.events import Event, Kind, Process
from holdfast.linux.namespaces import PROC, network_namespaces
from holdfast.linux.processes import describe, socket_owners
from holdfast.linux.sock_diag import Socket, list_sockets

NAMESPACES_PER_CALL = 4
"""Each costs a look through /proc and a list of its sockets: a flood of forged RSTs must not make us busy."""

ALLOWANCE_S, ALLOWANCE_SHARE = 0.25, 0.05
"""Processor time to spend on looking at once, and the share of all time over the long run: strangers cause
the RSTs that are looked after, and must not be able to buy a core for a few segments a second."""

_FOREIGN = (Kind.RST_LEFT, Kind.REJECTED)
_STATES = ("ESTABLISHED", "CLOSE_WAIT", "LISTEN")


def _incomplete(event: Event) -> bool:
    """Whether no socket was at hand: a RST left without TCP, or one that arrived was seen only as dropped."""
    return event.kind in _FOREIGN or (event.kind is Kind.RST_ARRIVED and not event.cookie)


class Places:
    """Completes the events of RSTs whose socket no hook saw, in one thread.

    Args:
        clock_s, spent_s: seconds that have passed, and processor seconds of the thread that asks: on a busy
            machine a look takes long and costs no more.
    """

    def __init__(
        self,
        describe_process: Callable[[Process], Process],
        proc: Path = PROC,
        clock_s: Callable[[], float] = time.monotonic,
        spent_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._describe = describe_process
        self._proc = proc
        self._clock_s, self._spent_s = clock_s, spent_s
        self._allowance_s, self._counted_s = ALLOWANCE_S, clock_s()

    def complete(self, events: Iterable[Event]) -> list[Event]:
        """The same events; those RSTs have ``opener``, ``state`` and ``spoofed`` where found."""
        told = list(events)
        namespaces = {event.netns for event in told if _incomplete(event) and event.netns}
        if not namespaces or not self._allowed():
            return told
        began_s = self._spent_s()
        living = network_namespaces(self._proc)
        for netns in list(namespaces)[:NAMESPACES_PER_CALL]:
            if netns in living:
                told = self._complete(told, netns, living[netns])
        self._allowance_s -= self._spent_s() - began_s
        return told

    def _allowed(self) -> bool:
        now_s = self._clock_s()
        earned_s = (now_s - self._counted_s) * ALLOWANCE_SHARE
        self._allowance_s = min(ALLOWANCE_S, self._allowance_s + earned_s)
        self._counted_s = now_s
        return self._allowance_s > 0

    def _complete(self, events: list[Event], netns: int, pid: int) -> list[Event]:
        here = local_addresses(pid, self._proc)
        sockets = _sockets(pid)
        found = {
            id(event): one
            for event in events
            if event.netns == netns and _incomplete(event) and (one := _socket_of(event, sockets))
        }
        holders = socket_owners({one.inode for one in found.values()}, self._proc)

        def completed(event: Event) -> Event:
            if event.netns != netns or not _incomplete(event):
                return event
            one = found.get(id(event))
            owner = event.opener or self._owner(holders.get(one.inode, ()) if one else ())
            if event.kind in _FOREIGN:
                return dataclasses.replace(event, opener=owner, spoofed=_spoofed(event.local.ip, here))
            return dataclasses.replace(event, opener=owner, state=one.state if one else None)

        return [completed(event) for event in events]

    def _owner(self, pids: Sequence[int]) -> Process | None:
        found = describe(pids[0], proc=self._proc) if pids else None
        return self._describe(found) if found is not None else None


def _spoofed(ip: str, here: frozenset[str]) -> bool | None:
    # Nothing was read, so nothing is known: the process whose files those are has ended.
    if not here:
        return None
    return ip not in here and not ipaddress.ip_address(ip).is_loopback


def _sockets(pid: int) -> list[Socket]:
    try:
        return list(list_sockets(pid, _STATES))
    except KernelUnavailable:
        return []


def _socket_of(event: Event, sockets: Iterable[Socket]) -> Socket | None:
    """The connection's socket if it is there, else the listener on its port."""
    listener = None
    for one in sockets:
        if one.local_port != event.local.port:
            continue
        if (one.peer_port, one.peer_ip) == (event.peer.port, event.peer.ip):
            return one
        if one.state == "LISTEN":
            listener = one
    return listener


def local_addresses(pid: int, proc: Path = PROC) -> frozenset[str]:
    """Addresses of the network namespace that ``pid`` lives in; empty if the process is gone."""
    net = proc / str(pid) / "net"
    return frozenset(_ipv4(_read(net / "fib_trie"))) | frozenset(_ipv6(_read(net / "if_inet6")))


def _ipv4(fib_trie: str) -> Iterable[str]:
    address = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[:2] == ["/32", "host"] and "LOCAL" in words:
            yield address


def _ipv6(if_inet6: str) -> Iterable[str]:
    for line in if_inet6.splitlines():
        digits = line.split(" ", 1)[0]
        if len(digits) == 32:
            yield str(ipaddress.IPv6Address(int(digits, 16)))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""

"""One socket as ``holdfast inspect`` sees it: its figures, its owners, what it did since the last look."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.events import Endpoint, Process
from holdfast.linux.findings import Finding, Moved, findings, unread_bytes, unsent_bytes
from holdfast.linux.sock_diag import Socket
from holdfast.linux.socket_queues import SocketMemory
from holdfast.linux.tcp_cc_info import CcInfo

SCHEMA = 1
"""Version of the keys below: keys may be added to it, none is renamed or removed."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """One look at one socket.

    Attributes:
        time: when, RFC 3339.
        sock: what the kernel said of it.
        owners: the processes that hold it and are ours to look at, None if nobody looked.
        since: what it did since the last look, None at the first.
        findings: what is worth saying, the worst first.
    """

    time: str
    sock: Socket
    owners: tuple[Process, ...] | None
    since: Moved | None
    findings: tuple[Finding, ...]

    @property
    def local(self) -> Endpoint:
        """Our end."""
        return Endpoint(self.sock.local_ip, self.sock.local_port)

    @property
    def peer(self) -> Endpoint:
        """The other end; port 0 for a listener."""
        return Endpoint(self.sock.peer_ip, self.sock.peer_port)

    @property
    def listens(self) -> bool:
        """Whether it is a listener: its queues then hold connections and not bytes."""
        return self.sock.state == "LISTEN"

    def as_json(self) -> dict[str, Any]:
        """The record of ``holdfast inspect --json``; its keys are stable (docs/reference/inspect.md)."""
        sock, listens = self.sock, self.listens
        # Of a listener the kernel fills in hardly anything but the queue that is told here.
        info = None if listens else sock.info
        memory, since = sock.memory, self.since
        return {
            "schema": SCHEMA,
            "kind": "listener" if listens else "connection",
            "time": self.time,
            "local": str(self.local),
            "peer": None if listens else str(self.peer),
            "state": sock.state,
            "owners": None if self.owners is None else [_owner(one) for one in self.owners],
            "uid": sock.uid,
            "netns": sock.netns,
            "cookie": sock.cookie,
            "findings": [finding._asdict() for finding in self.findings],
            "unread_bytes": unread_bytes(sock),
            "unsent_bytes": unsent_bytes(sock),
            "unconfirmed_bytes": None if listens else sock.send_queue,
            "accept_queue": sock.receive_queue if listens else None,
            "accept_queue_limit": sock.send_queue if listens else None,
            "timer": sock.timer,
            "timer_ms": sock.timer_ms,
            "timer_tries": sock.timer_tries,
            "memory": _figures(memory) if memory else None,
            "congestion": sock.congestion,
            "congestion_info": _figures(sock.cc_info) if sock.cc_info else None,
            "options": [one.name.lower() for one in info.negotiated or () if one.name] if info else None,
            "tcp_info": info.known() if info else None,
            "since": since._asdict() if since else None,
        }


def inspection(time: str, sock: Socket, since: Moved | None = None) -> Inspection:
    """One look, with what it finds and without owners."""
    return Inspection(time, sock, None, since, tuple(findings(sock, since)))


def _figures(of: SocketMemory | CcInfo) -> dict[str, Any]:
    # dataclasses.asdict copies deeply: it took a third of the time of a long list.
    return {name: getattr(of, name) for name in of.__slots__}


def _owner(process: Process) -> dict[str, Any]:
    return {"pid": process.pid, "comm": process.comm, "uid": process.uid}

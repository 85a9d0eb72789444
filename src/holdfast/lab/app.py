"""A program on a host of the lab: it owns sockets, and its verbs act on all its connections at once."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.events import Endpoint
from holdfast.lab.label import Pair, ScenarioFailed
from holdfast.lab.remote import Remote

if TYPE_CHECKING:
    from holdfast.lab.network import Host

Options = Sequence[tuple[int, int, int]]
WAIT_S = 5.0

BACKLOG = 4096
"""Connections that may wait to be accepted: more than anybody asks the lab for."""

# Kernel numbers of TCP states, as TCP_INFO gives them (include/net/tcp_states.h).
ESTABLISHED, SYN_SENT, SYN_RECEIVED, FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT = 1, 2, 3, 4, 5, 6
CLOSED, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 7, 8, 9, 10, 11


@dataclass(frozen=True, slots=True)
class Numbers:
    """Sequence numbers of one connection: the next to send and the next expected."""

    pair: Pair
    snd_nxt: int
    rcv_nxt: int


class App(Remote):
    """A program; ``pairs`` are the (local, peer) addresses of its connections, oldest first."""

    def __init__(self, host: Host, control: socket.socket, pid: int) -> None:
        super().__init__(control, pid)
        self.host = host
        self.pairs: tuple[Pair, ...] = ()
        self.listening: Endpoint | None = None

    def listen(
        self, *, on: str = "", backlog: int = BACKLOG, options: Options = (), protocol: int = 0
    ) -> Endpoint:
        """Listen on the host's address, or on another such as ``::``; gives the host's with the port."""
        got = self.ask("listen", ip=on or self.host.ip, backlog=backlog, options=options, protocol=protocol)
        self.listening = Endpoint(self.host.ip, got)
        return self.listening

    def dial(
        self, to: Endpoint, count: int, *, options: Options = (), protocol: int = 0, source_port: int = 0
    ) -> None:
        """Begin ``count`` connections at once without waiting for any answer."""
        ports = self.ask(
            "connect", ip=to.ip, port=to.port, count=count, options=options, protocol=protocol,
            source_port=source_port,
        )  # fmt: skip
        self._remember(to, ports)

    def dial_with_data(self, to: Endpoint, text: str, count: int, options: Options = ()) -> None:
        """Begin ``count`` connections whose SYN carries data (TCP Fast Open)."""
        ports = self.ask("send_to", text=text, ip=to.ip, port=to.port, count=count, options=options)
        self._remember(to, ports)

    def accept(self, count: int) -> None:
        """Accept ``count`` connections."""
        peers = self.ask("accept", count=count, wait_s=WAIT_S)
        assert self.listening is not None, "listen first"
        local = self.listening
        self.pairs += tuple((local, Endpoint(self.host.peer_ip, port)) for port in peers)

    def _remember(self, to: Endpoint, ports: list[int]) -> None:
        self.pairs += tuple((Endpoint(self.host.ip, port), to) for port in ports)

    def send(self, text: str) -> None:
        """Send the same on every connection."""
        self.ask("send", text=text)

    def fill(self) -> None:
        """Send until the kernel takes no more."""
        self.ask("fill")

    def receive(self, size: int) -> None:
        """Read exactly ``size`` bytes from every connection; 0 reads the end of the stream."""
        self.ask("receive", size=size, wait_s=WAIT_S)

    def shutdown(self, how: int) -> None:
        """Shut one or both directions of every connection."""
        self.ask("shutdown", how=how)

    def close(self) -> None:
        """Close every connection."""
        self.ask("close")

    def close_listener(self) -> None:
        """Close the listening socket."""
        self.ask("close_listeners")

    def option(self, level: int, option: int, value: int | list[int]) -> None:
        """Set a socket option on every connection."""
        self.ask("option", level=level, option=option, value=value)

    def linger_zero(self) -> None:
        """Make close() abort."""
        self.option(socket.SOL_SOCKET, socket.SO_LINGER, [1, 0])

    def user_timeout(self, milliseconds: int) -> None:
        """Set TCP_USER_TIMEOUT."""
        self.option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def disconnect(self) -> None:
        """connect(AF_UNSPEC) on every connection."""
        self.ask("disconnect")

    def vanish(self) -> None:
        """Forget every connection without a segment on the wire, as a host that lost its power."""
        self.ask("vanish")

    def await_unread(self, size: int) -> None:
        """Wait until every connection has ``size`` bytes to read."""
        self.ask("await_unread", size=size, wait_s=WAIT_S)

    def await_state(self, *states: int) -> None:
        """Wait until every connection is in one of the states."""
        self.ask("await_state", states=states, wait_s=WAIT_S)

    def await_connected(self) -> None:
        """Wait until every handshake is finished."""
        self.await_state(ESTABLISHED, CLOSE_WAIT)

    def await_pending(self, count: int) -> None:
        """Wait until so many connections wait in the accept queue."""
        self.ask("await_pending", count=count, wait_s=WAIT_S)

    def await_end(self, *expect: int, wait_s: float = WAIT_S) -> list[int]:
        """Wait until every connection failed or closed; each errno must be one of ``expect`` if given."""
        errors: list[int] = self.ask("await_end", wait_s=wait_s)
        if expect and not set(errors) <= set(expect):
            raise ScenarioFailed(f"connections ended with {errors}, expected {expect}")
        return errors

    def numbers(self) -> list[Numbers]:
        """Where every connection stands, from the kernel itself (TCP_REPAIR)."""
        rows: list[list[int]] = self.ask("numbers")
        return [Numbers(pair, *row) for pair, row in zip(self.pairs, rows, strict=True)]

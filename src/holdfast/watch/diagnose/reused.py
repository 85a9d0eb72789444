"""A refused SYN that came for a connection between the same addresses and ports, which was still there."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.events import Endpoint
from holdfast.watch.diagnose.judge import Judged
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.words import duration

REMEMBERED_NS = 60_000_000_000
"""So long Linux keeps a connection that waits for the peer's FIN (tcp_fin_timeout), or a handshake."""

Ends = tuple[Endpoint, Endpoint]
"""Client and server."""


@dataclass(frozen=True, slots=True)
class Displaced:
    """A connection without a RST, after which a SYN came from the same client for the same server.

    Attributes:
        last_ns: its last segment. next_seq: the number that its client would have used next.
        window_bytes: what its server was ready to receive from there on.
        half_open: the server had answered the SYN, and the client that answer not yet.
        left_by_server: the server had sent FIN, and the client had not.
    """

    client: Endpoint
    server: Endpoint
    last_ns: int
    next_seq: int
    window_bytes: int
    half_open: bool
    left_by_server: bool


def by_ends(displaced: Iterable[Displaced]) -> dict[Ends, list[Displaced]]:
    """The same, found by their ends."""
    found: dict[Ends, list[Displaced]] = {}
    for one in displaced:
        found.setdefault((one.client, one.server), []).append(one)
    return found


def why_reused(one: Judged, displaced: Mapping[Ends, list[Displaced]]) -> tuple[str, str] | None:
    """The cause of a refusal and its evidence, if the connection before it explains it.

    A server that knows a connection resets a SYN for it only if its number lies in the window, and
    acknowledges any other (Linux: tcp_check_req, tcp_timewait_state_process; RFC 9293 3.10.7.4).
    """
    explained = one.explained
    past = [
        old for old in displaced.get((explained.client, explained.server), ()) if old.last_ns <= one.first_ns
    ]
    isn = one.isns[0]
    if not past or isn is None:
        return None
    before = max(past, key=lambda old: old.last_ns)
    since_ns = one.first_ns - before.last_ns
    if since_ns > REMEMBERED_NS or not 0 <= ahead(isn, before.next_seq) < before.window_bytes:
        return None
    earlier = f"from that port, last used {duration(since_ns)} before,"
    if before.half_open:
        return "duplicate_syn", f"a handshake {earlier} was not complete"
    if before.left_by_server:
        return "syn_after_close", f"a connection {earlier} was closed by the server, and not by the client"
    return None

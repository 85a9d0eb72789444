"""Connections that ended without a RST and without FINs, since nothing came back any more: only counted.

A kernel that gives up after retries sends no RST, so a capture shows no end, only the silence before it.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from typing import Any

from holdfast.events import Endpoint
from holdfast.watch.capture import wire
from holdfast.watch.capture.columns import Seen
from holdfast.watch.capture.flow import ClientBy, EndedBy

RETRANSMITS, SILENCE_NS = 2, 300_000_000
"""Data that was sent again so often, and no answer in so long a time: more than a segment that was lost."""

_SERVERS = 10_000
"""So many servers are told apart; when there are more, the rare half is forgotten."""


class Silences:
    """How many connections and attempts to connect ended in silence, and with which server the most."""

    def __init__(self) -> None:
        self._connections = _Counted()
        self._attempts = _Counted()

    def take(self, rows: Any) -> None:
        """Count those among connections (:data:`holdfast.watch.capture.columns.CONNECTION`)."""
        open_ended = (
            (rows["client_rsts"] == 0) & (rows["server_rsts"] == 0) & (rows["ended_by"] != EndedBy.EVICTED)
        )
        silent = _went_silent(rows, "client", "server") | _went_silent(rows, "server", "client")
        self._connections.add(rows[open_ended & silent])
        unanswered = (
            (rows["client_by"] == ClientBy.SYN)
            & (rows["server_packets"] == 0)
            & (rows["client_syns"] > 1)
            & (rows["client_syns"] == rows["client_packets"])
            & (rows["last_ns"] - rows["first_ns"] >= SILENCE_NS)
        )
        self._attempts.add(rows[open_ended & unanswered])

    def sentences(self) -> tuple[str, ...]:
        """What was counted, in words; nothing where that is nothing."""
        found = []
        if self._connections.total:
            many = self._connections.words("connection", "connections", "with")
            found.append(f"{many} went silent: data was sent again, and nothing came back any more.")
        if self._attempts.total:
            many = self._attempts.words("attempt to connect", "attempts to connect", "to")
            found.append(f"{many} got no answer, although repeated.")
        return tuple(found)


def _went_silent(rows: Any, own: str, other: str) -> Any:
    """Whether this end repeated what the other one has not acknowledged, and heard nothing more."""
    known = (rows[f"{own}_seen"] & Seen.NEXT > 0) & (rows[f"{other}_seen"] & Seen.ACK > 0)
    unacked = (rows[f"{own}_next_seq"] - rows[f"{other}_highest_ack"]).astype("i4") > 0
    since_ns = rows[f"{own}_last_ns"] - rows[f"{other}_last_ns"]
    return known & unacked & (rows[f"{own}_retransmits"] >= RETRANSMITS) & (since_ns >= SILENCE_NS)


class _Counted:
    def __init__(self) -> None:
        self.total = 0
        self._servers: Counter[tuple[bytes, int]] = Counter()

    def add(self, rows: Any) -> None:
        self.total += len(rows)
        self._servers.update(zip(rows["server"].tolist(), rows["server_port"].tolist(), strict=True))
        if len(self._servers) > _SERVERS:
            self._servers = Counter(dict(self._servers.most_common(_SERVERS // 2)))

    def words(self, one: str, several: str, place: str) -> str:
        """How many, and where: ``3 connections (2 of them with 192.0.2.7:443)``."""
        (((raw, port), most),) = self._servers.most_common(1)
        share = "" if most == self.total else f"{most:,} of them "
        where = f"{share}{place} {Endpoint(wire.address(bytes(raw)), port)}"
        return f"{self.total:,} {one if self.total == 1 else several} ({where})"

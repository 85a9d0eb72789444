"""Every connection of a capture, reset or not, as far as the rules about several of them ask for it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from holdfast.events import Endpoint
from holdfast.watch.capture import wire
from holdfast.watch.capture.flow import EndedBy
from holdfast.watch.diagnose.across import Opened, Ttls
from holdfast.watch.diagnose.reused import Displaced, Ends
from holdfast.watch.diagnose.silent import Silences
from holdfast.watch.diagnose.vantages import Key, Sighting, key_of

CONNECTIONS = 500_000
"""So many connections of a capture are remembered to hold others against them, the latest ones."""

_FIELDS = ["client", "server", "client_port", "server_port", "syn_ns", "syn_ack_ns", "client_syn_flags",
           "client_syn_options", "client_isn", "server_isn", "client_ttl_min", "client_ttl_max",
           "server_ttl_min", "server_ttl_max", "ended_by", "last_ns", "client_packets", "client_syns",
           "client_fins", "server_fins", "client_rsts", "server_rsts", "client_next_seq",
           "server_window_bytes"]  # fmt: skip


class Connections:
    """What is remembered of them, and how many of all of them ended in silence."""

    def __init__(self) -> None:
        self._batches: list[Any] = []
        self._count = 0
        self.silences = Silences()

    def take(self, rows: Any) -> None:
        """Remember a batch; the oldest gives way."""
        self.silences.take(rows)
        # copy() would leave the room of all other fields between these: seven times the memory.
        self._batches.append(rows[_FIELDS].astype([(name, rows.dtype[name]) for name in _FIELDS]))
        self._count += len(rows)
        while len(self._batches) > 1 and self._count - len(self._batches[0]) >= CONNECTIONS:
            self._count -= len(self._batches.pop(0))

    @property
    def size_bytes(self) -> int:
        """How much memory all of it takes."""
        return sum(batch.nbytes for batch in self._batches)

    def ttls(self, wanted: Collection[str]) -> Ttls:
        """Lowest and highest TTL of what each of these addresses sent."""
        found: Ttls = {}
        for batch in self._batches:
            for side in ("client", "server"):
                columns = (
                    batch[side].tolist(),
                    batch[f"{side}_ttl_min"].tolist(),
                    batch[f"{side}_ttl_max"].tolist(),
                )
                for raw, low, high in zip(*columns, strict=True):
                    if low and (ip := wire.address(bytes(raw))) in wanted:
                        known = found.get(ip, (low, high))
                        found[ip] = min(known[0], low), max(known[1], high)
        return found

    def opened(self, wanted: Collection[Endpoint]) -> Iterator[Opened]:
        """Connections to these servers whose SYN was accepted."""
        ports = {end.port for end in wanted}
        for batch in self._batches:
            for row in batch[(batch["syn_ns"] > 0) & (batch["syn_ack_ns"] > 0)]:
                if int(row["server_port"]) not in ports:
                    continue
                server = Endpoint(wire.address(bytes(row["server"])), int(row["server_port"]))
                if server in wanted:
                    client = wire.address(bytes(row["client"]))
                    yield Opened(client, server, int(row["syn_ns"]), int(row["client_syn_flags"]),
                                 int(row["client_syn_options"]))  # fmt: skip

    def displaced(self, wanted: Collection[Ends]) -> Iterator[Displaced]:
        """Connections between these ends that a SYN from the same port ended, and no RST."""
        ports = {client.port for client, _ in wanted}
        for batch in self._batches:
            plain = (batch["client_rsts"] == 0) & (batch["server_rsts"] == 0)
            for row in batch[(batch["ended_by"] == EndedBy.REUSED) & (batch["syn_ack_ns"] > 0) & plain]:
                if int(row["client_port"]) not in ports or (ends := _ends(row)) not in wanted:
                    continue
                yield Displaced(
                    *ends, int(row["last_ns"]), int(row["client_next_seq"]), int(row["server_window_bytes"]),
                    half_open=bool(row["client_packets"] == row["client_syns"]),
                    left_by_server=bool(row["server_fins"] > 0 and row["client_fins"] == 0),
                )  # fmt: skip

    def sightings(self) -> dict[Key, Sighting]:
        """All of them, by what is the same at another vantage."""
        found: dict[Key, Sighting] = {}
        for batch in self._batches:
            for row in batch:
                isns = (int(row["client_isn"]), int(row["server_isn"]))
                seen = Sighting(_span(row, "client"), _span(row, "server"))
                if row["syn_ns"] and row["syn_ack_ns"]:
                    found[isns] = seen
                found[key_of((None, None), *_ends(row))] = seen
        return found


def _ends(row: Any) -> Ends:
    client, server = wire.address(bytes(row["client"])), wire.address(bytes(row["server"]))
    return Endpoint(client, int(row["client_port"])), Endpoint(server, int(row["server_port"]))


def _span(row: Any, side: str) -> tuple[int, int] | None:
    low, high = int(row[f"{side}_ttl_min"]), int(row[f"{side}_ttl_max"])
    return (low, high) if low else None

"""The record of one reset connection in a capture: what every face of ``holdfast explain`` shows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2s
from typing import Literal, NamedTuple

from holdfast.causes import CAUSES, Basis, Ending, Family, Severity, Trigger
from holdfast.events import Endpoint, Evidence
from holdfast.watch.capture.flow import ACK, RST, Packet
from holdfast.watch.diagnose.record import wall_time
from holdfast.watch.diagnose.serial import ahead

Side = Literal["client", "server"]
"""Which end of a captured connection: who dialled, and who was dialled."""


def other(side: Side) -> Side:
    """The opposite end."""
    return "server" if side == "client" else "client"


@dataclass(frozen=True, slots=True)
class Step:
    """One captured segment near a reset, for the sequence diagram.

    Attributes:
        time_ns: wall clock of the capture.
        source: the end whose address it bears, which need not be who sent it.
        seq, ack: relative to the first number seen of each side; ``ack`` is None without the ACK flag.
        window: as on the wire, not scaled.
        note: why it matters, if it does.
        deciding: whether the verdict rests on it.
    """

    time_ns: int
    source: Side
    flags: int
    seq: int
    ack: int | None
    payload_bytes: int
    window: int
    ttl: int
    ip_id: int | None
    options_bytes: int
    note: str = ""
    deciding: bool = False


class Window(NamedTuple):
    """The segments around a RST, as captured.

    Attributes:
        packets: in the order of the capture. bases: the numbers that count as 0, of server and client.
        notes: by :attr:`Packet.place`: why a segment matters. rst_place: of the RST that decided.
    """

    packets: tuple[Packet, ...]
    bases: tuple[int, int]
    notes: Mapping[int, str]
    rst_place: int

    def steps(self) -> tuple[Step, ...]:
        """The same for the eye, with numbers that begin at 0."""
        return tuple(self._step(one) for one in self.packets)

    def _step(self, one: Packet) -> Step:
        answers_syn = one.flags & RST and one.seq == 0
        decided = one.place == self.rst_place
        return Step(
            one.time_ns,
            "client" if one.from_client else "server",
            one.flags,
            0 if answers_syn else ahead(one.seq, self.bases[one.from_client]),
            ahead(one.ack, self.bases[not one.from_client]) if one.flags & ACK else None,
            one.payload_bytes,
            one.window,
            one.ttl,
            one.ip_id,
            one.options_bytes,
            self.notes.get(one.place, "this RST decided" if decided else ""),
            decided or one.place in self.notes,
        )


class Explained(NamedTuple):
    """One captured connection that met a RST; None is unknown. :meth:`as_json` gives the documented keys.

    What is only words is made when it is asked for: a capture may hold very many, and show few.

    Attributes:
        file: the capture, by the name it was given. number: of the packet that decided.
        time_ns: of that packet.
        client, server: who dialled whom; ``ends_known`` says whether that was seen or guessed from the ports.
        claimed: the end whose address the RST bears. sender: who sent it, as far as this capture can tell:
            ``client``, ``server``, ``path`` or ``unknown``.
        lost: what was lost, in words; None if nothing can be said.
        score: sum of the weights for a sender other than the claimed one.
        obeyed: whether the receiver accepted the RST: ``yes``, ``no`` or ``unknown``.
        bytes_sent, bytes_received: payload of the client, payload of the server.
        idle_s: silence before the RST. resets: how many RSTs were seen.
        stated: what the RST itself says of its reason.
        settle: which other capture would settle what is open.
        zeek_state, zeek_history: Zeek's ``conn_state`` and ``history``.
        signature_client, signature_server: the stage signature (SIGCOMM 2023) of what each end sent, as the
            other end saw it.
        window: the last segments.
    """

    file: str
    number: int
    time_ns: int
    client: Endpoint
    server: Endpoint
    ends_known: bool
    claimed: Side
    sender: str
    cause: str
    basis: Basis
    severity: Severity
    noise: bool
    obeyed: str
    lost: str | None = None
    ending: Ending = Ending.RESET
    story: str | None = None
    trigger: Trigger | None = None
    state: str | None = None
    lifetime_s: float | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    rtt_us: int | None = None
    idle_s: float | None = None
    unacked_bytes: int | None = None
    evidence: tuple[Evidence, ...] = ()
    score: int = 0
    stated: str | None = None
    settle: tuple[str, ...] = ()
    zeek_state: str | None = None
    zeek_history: str | None = None
    signature_client: str | None = None
    signature_server: str | None = None
    resets: int = 1
    window: Window | None = None

    @property
    def id(self) -> str:
        """A short identifier, the same whenever the same capture is read."""
        facts = f"{self.file}{self.client}{self.server}{self.time_ns}{self.number}"
        return blake2s(facts.encode(errors="backslashreplace"), digest_size=8).hexdigest()

    @property
    def time(self) -> str:
        """When (RFC 3339, UTC, nanoseconds)."""
        return wall_time(self.time_ns)

    @property
    def remedy(self) -> tuple[str, ...]:
        """What to do, in imperative sentences."""
        return tuple(map(self._beside, CAUSES[self.cause].remedy))

    @property
    def why(self) -> str:
        """What usually leads to it; empty if nothing does."""
        return self._beside(CAUSES[self.cause].why)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The last segments, for the eye."""
        return self.window.steps() if self.window is not None else ()

    @property
    def sentence(self) -> str:
        """The cause as one plain sentence about this connection."""
        teller = self._teller
        names = {"client": f"client {self.client}", "server": f"server {self.server}"}
        said = CAUSES[self.cause].describe(
            names[teller], names[other(teller)], str(self.end(teller)), self.lost
        )
        host = f"host of {names[teller]}"
        said = said.replace("This host's own firewall", f"A firewall on the {host}")
        said = said.replace("This host", f"The {host}").replace("this host", f"the {host}")
        said = self._beside(said)
        if self.sender == "unknown" and self.cause not in _ACCUSE_NOBODY:
            said += " Or so that RST claims: who sent it cannot be told from here."
        return said[0].upper() + said[1:]

    @property
    def _teller(self) -> Side:
        """The end from whose host the table of causes speaks: of a RST that was sent its sender."""
        return self.claimed if CAUSES[self.cause].family is Family.SENT else other(self.claimed)

    def _beside(self, words: str) -> str:
        """Words of that table, which has a peer, as they read beside a capture, which has two ends."""
        words = _THE_PEER.sub(rf"\1 {other(self._teller)}", words)
        return words.replace("this side", f"the {self._teller}")

    def end(self, side: Side) -> Endpoint:
        """The address of one end."""
        return self.client if side == "client" else self.server

    def as_json(self) -> dict[str, object]:
        """The record with the stable keys of schema 1, ready for ``json.dumps``."""
        return {
            "schema": 1,
            # What only a live watch can see has its key here too, so that one program reads both.
            "host": None,
            "direction": None,
            "owner": None,
            "call_path": [],
            "kernel_reason": None,
            **{key: getattr(self, key) for key in _PLAIN_KEYS},
            "client": str(self.client),
            "server": str(self.server),
            "harm": {"unread_bytes": None, "unsent_bytes": None, "unacked_bytes": self.unacked_bytes},
            "evidence": [{"fact": one.fact, "weight": one.weight} for one in self.evidence],
            "remedy": list(self.remedy),
            "settle": list(self.settle),
        }


_THE_PEER = re.compile(r"\b([Tt]he) peer\b")

_ACCUSE_NOBODY = ("connection_refused", "ignored_in_window", "ignored_out_of_window", "unrecognised_sender")
"""Their sentences leave open who sent the RST."""

_PLAIN_KEYS = (
    "id",
    "file",
    "time",
    "story",
    "ending",
    "trigger",
    "claimed",
    "sender",
    "score",
    "cause",
    "sentence",
    "basis",
    "severity",
    "noise",
    "obeyed",
    "state",
    "lifetime_s",
    "bytes_sent",
    "bytes_received",
    "rtt_us",
    "idle_s",
    "stated",
    "resets",
    "ends_known",
    "zeek_state",
    "zeek_history",
    "signature_client",
    "signature_server",
)

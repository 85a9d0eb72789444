"""The record of one reset connection in a capture: what every face of ``holdfast explain`` shows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from holdfast.causes import Basis, Ending, Severity, Trigger
from holdfast.events import Endpoint, Evidence, Harm

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


@dataclass(frozen=True, slots=True)
class Explained:
    """One captured connection that met a RST; None is unknown. :meth:`as_json` gives the documented keys.

    Attributes:
        id: the same for the same reset in the same capture.
        file: the capture, by the name it was given.
        time: of the RST that decided (RFC 3339, UTC, nanoseconds); ``time_ns`` the same as a number.
        client, server: who dialled whom; ``ends_known`` says whether that was seen or guessed from the ports.
        claimed: the end whose address the RST bears. sender: who sent it, as far as this capture can tell:
            ``client``, ``server``, ``path`` or ``unknown``.
        score: sum of the weights for a sender other than the claimed one.
        obeyed: whether the receiver accepted the RST: ``yes``, ``no`` or ``unknown``.
        bytes_sent, bytes_received: payload of the client, payload of the server.
        idle_s: silence before the RST. resets: how many RSTs were seen.
        stated: what the RST itself says of its reason.
        settle: which other capture would settle what is open.
        zeek_state, zeek_history: Zeek's ``conn_state`` and ``history``.
        signature_client, signature_server: the stage signature (SIGCOMM 2023) of what each end sent, as the
            other end saw it.
        steps: the last segments.
    """

    id: str
    file: str
    time: str
    time_ns: int
    client: Endpoint
    server: Endpoint
    ends_known: bool
    claimed: Side
    sender: str
    cause: str
    sentence: str
    basis: Basis
    severity: Severity
    noise: bool
    obeyed: str
    ending: Ending = Ending.RESET
    story: str | None = None
    trigger: Trigger | None = None
    state: str | None = None
    lifetime_s: float | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    rtt_us: int | None = None
    idle_s: float | None = None
    harm: Harm = field(default_factory=Harm)
    evidence: tuple[Evidence, ...] = ()
    score: int = 0
    remedy: tuple[str, ...] = ()
    stated: str | None = None
    settle: tuple[str, ...] = ()
    zeek_state: str | None = None
    zeek_history: str | None = None
    signature_client: str | None = None
    signature_server: str | None = None
    resets: int = 1
    steps: tuple[Step, ...] = ()

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
            "harm": {key: getattr(self.harm, key) for key in self.harm.__slots__},
            "evidence": [{"fact": one.fact, "weight": one.weight} for one in self.evidence],
            "remedy": list(self.remedy),
            "settle": list(self.settle),
        }


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

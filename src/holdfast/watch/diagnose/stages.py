"""At which stage of a connection one end's RSTs came, in the nineteen signatures of SIGCOMM 2023.

"Global, Passive Detection of Connection Tampering", table 1. The signatures are one-sided; here they are
labels for each direction, beside the evidence of the other one, and accuse nobody by themselves.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

from holdfast.watch.capture.flow import ACK, Flow, Rst
from holdfast.watch.diagnose.case import Case

SILENCE_NS = 3_000_000_000
"""So long a silence is a signature of its own."""

SIGNATURES = (
    "SYN → ∅",
    "SYN → RST",
    "SYN → RST+ACK",
    "SYN → RST; RST+ACK",
    "SYN; ACK → ∅",
    "SYN; ACK → RST",
    "SYN; ACK → RST; RST",
    "SYN; ACK → RST+ACK",
    "SYN; ACK → RST+ACK; RST+ACK",
    "PSH+ACK → ∅",
    "PSH+ACK → RST",
    "PSH+ACK → RST+ACK",
    "PSH+ACK → RST; RST+ACK",
    "PSH+ACK → RST+ACK; RST+ACK",
    "PSH+ACK → RST = RST",
    "PSH+ACK → RST ≠ RST",
    "PSH+ACK → RST; RST₀",
    "PSH+ACK; Data → RST",
    "PSH+ACK; Data → RST+ACK",
)
"""In the order of the paper's table."""


def signature(flow: Flow, cases: Sequence[Case], client: bool) -> str | None:
    """The signature of what one end sent, or None if it has none (no RST, and no silence)."""
    rsts = [one.rst for one in cases if one.from_client == client]
    side = flow.sent_by(client)
    syns = 1 if side.isn is not None else 0
    if not rsts:
        quiet = side.last_ns is not None and flow.last_ns - side.last_ns > SILENCE_NS
        return _silence(side.packets, side.data_packets, syns) if quiet and not side.fins else None
    before = rsts[0].sender
    plain = [one for one in rsts if not one.packet.flags & ACK]
    acking = len(rsts) - len(plain)
    if before.data_packets == 1:
        return _after_first_data(plain, acking)
    if before.data_packets > 1:
        return SIGNATURES[17 if not rsts[0].packet.flags & ACK else 18]
    if not syns:
        return None
    if before.packets == 1:
        return SIGNATURES[3 if plain and acking else 1 if plain else 2]
    if before.packets == 2 and not (plain and acking):
        return SIGNATURES[5 + (len(plain) > 1) if plain else 7 + (acking > 1)]
    return None


def _silence(packets: int, data_packets: int, syns: int) -> str | None:
    if data_packets == 1:
        return SIGNATURES[9]
    if syns and not data_packets and packets in (1, 2):
        return SIGNATURES[0 if packets == 1 else 4]
    return None


def _after_first_data(plain: Sequence[Rst], acking: int) -> str:
    if plain and acking:
        return SIGNATURES[12]
    if acking:
        return SIGNATURES[11 if acking == 1 else 13]
    if len(plain) == 1:
        return SIGNATURES[10]
    acks = [one.packet.ack for one in plain]
    if 0 in acks and any(acks):
        return SIGNATURES[16]
    return SIGNATURES[14 if len(set(acks)) == 1 else 15]

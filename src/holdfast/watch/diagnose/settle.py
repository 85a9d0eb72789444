"""Which other capture would settle what this one leaves open."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.causes import Trigger
from holdfast.watch.diagnose.case import Case
from holdfast.watch.diagnose.explained import other
from holdfast.watch.diagnose.finding import Finding
from holdfast.watch.diagnose.validity import Place, Validity

WHO_SENT = "as well and give both files"
"""Stands in what would settle who sent the RST."""


def settling(finding: Finding, case: Case, valid: Validity) -> tuple[str, ...]:
    """Sentences that say what to capture, most telling first; empty where nothing is open."""
    if finding.noise is not None:
        return ()
    wanted = []
    if finding.sender in ("unknown", "path"):
        wanted.append(f"Capture at the {case.claimed} {WHO_SENT}: a RST that it never sent is missing there.")
    elif finding.trigger is Trigger.ACTIVE:
        wanted.append(
            f"Run holdfast watch on the {case.claimed}: its kernel knows which program reset, and why."
        )
    elif finding.cause == "peer_had_no_connection":
        wanted.append(
            f"Capture at the {case.claimed} {WHO_SENT}: "
            "it may itself have been reset before, by somebody else."
        )
    if valid.obeyed == "unknown":
        wanted.append(
            f"Capture longer, at the {other(case.claimed)}: what it does next shows whether it obeyed."
        )
    # What answers a SYN has said nothing before it.
    mute = not case.sender.packets and not case.in_handshake
    if valid.place is Place.UNKNOWN or mute or not case.receiver.packets:
        wanted.append("Capture both directions: one of them is missing around the RST.")
    if not case.flow.sent_by_client.isn and not case.flow.sent_by_server.isn:
        wanted.append(
            "Begin the capture before the connection does: the handshake shows distances and options."
        )
    if case.lossy:
        wanted.append("Capture with a larger buffer (tcpdump -B 65536, -s 128): this one missed segments.")
    return tuple(wanted)

"""RSTs that reached a socket and were not obeyed: nothing ended, but someone tried."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.causes import Basis
from holdfast.events import Event, Evidence
from holdfast.watch.diagnose.sent import Verdict

_HALF_OPEN = ("LISTEN", "NEW_SYN_RECV", "SYN_RECEIVED")


def ignored_cause(event: Event) -> Verdict | None:
    """Why a RST (kind RST_ARRIVED) that no reset followed had no effect; None if there was nothing to end."""
    if event.state in _HALF_OPEN:
        return _inferred("handshake_abandoned", "a RST came for a handshake that was not complete")
    if event.state in ("CLOSED", "TIME_WAIT") or (event.state is None and not event.in_window):
        return None
    if event.in_window:
        return _inferred(
            "ignored_in_window",
            "the RST lies in the receive window but not at the next expected byte",
            "the connection goes on: the kernel sent a challenge ACK (RFC 5961)",
        )
    return _inferred(
        "ignored_out_of_window", "the RST lies outside the receive window", "the connection goes on"
    )


def _inferred(cause: str, *facts: str) -> Verdict:
    return Verdict(cause, Basis.INFERRED, tuple(Evidence(fact, 3) for fact in facts))

"""Usual, harmless traffic: recognised so that it can be folded, never dropped."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from collections import OrderedDict

from holdfast.causes import CAUSES, Direction
from holdfast.watch.diagnose.conclude import Conclusion
from holdfast.watch.diagnose.sent import RESET_ERRORS

SCAN_PORTS = 10
"""A peer that tried this many closed ports within :data:`SCAN_NS` is scanning."""

SCAN_NS = 10_000_000_000
_PEERS = 1024

_CLASS_OF = {
    "unexpected_syn_ack": "backscatter",
    "stale_handshake_answer": "recovered_handshake",
    "handshake_abandoned": "port_scan",
}
_LAST_STATES = ("CLOSING", "LAST_ACK", "TIME_WAIT")


class NoiseFilter:
    """Says of each conclusion which noise class it belongs to; remembers who scans, in bounded memory."""

    def __init__(self) -> None:
        self._tried: OrderedDict[str, OrderedDict[int, int]] = OrderedDict()

    def noise_class(self, one: Conclusion) -> str | None:
        """Identifier in ``causes.NOISE``, or None for what deserves a line of its own."""
        # Both ends of one reset are judged as the sending end, or half of it would be folded.
        one = one.sent_by if one.sent_by is not None else one
        cause = one.verdict.cause
        if CAUSES[cause].noise:
            return _CLASS_OF.get(cause, "after_both_fins")
        if cause == "closed_port" and one.direction is Direction.SENT and self._scans(one):
            return "port_scan"
        # A program that is killed checks nobody's health.
        if cause == "linger_zero" and _carried_nothing(one) and not one.event.exiting:
            return "health_check"
        if cause == "late_segment" and (late := _after_what_was_told(one)):
            return late
        if _after_both_fins(one):
            return "after_both_fins"
        return None

    def _scans(self, one: Conclusion) -> bool:
        peer, port, now_ns = one.event.peer.ip, one.event.local.port, one.event.mono_ns
        ports = self._tried.setdefault(peer, OrderedDict())
        self._tried.move_to_end(peer)
        if len(self._tried) > _PEERS:
            self._tried.popitem(last=False)
        ports[port] = now_ns
        ports.move_to_end(port)
        while ports and (len(ports) > SCAN_PORTS or now_ns - next(iter(ports.values())) > SCAN_NS):
            ports.popitem(last=False)
        return len(ports) >= SCAN_PORTS


def _after_what_was_told(one: Conclusion) -> str | None:
    error = one.event.earlier.error if one.event.earlier else 0
    if one.after_reset or error in RESET_ERRORS:
        return "segment_after_reset"
    return "answer_to_late_probe" if error == errno.ETIMEDOUT else None


def _carried_nothing(one: Conclusion) -> bool:
    event = one.sent_by.event if one.sent_by is not None else one.event
    return event.bytes_sent == 0 and event.bytes_received == 0


def _after_both_fins(one: Conclusion) -> bool:
    event = one.event
    state = event.state_before if event.state == "CLOSED" else event.state
    harmed = event.harm.unread_bytes or event.harm.unsent_bytes or (event.harm.unacked_bytes or 0) > 1
    return (
        one.direction is Direction.RECEIVED and one.obeyed == "yes" and state in _LAST_STATES and not harmed
    )

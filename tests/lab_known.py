# SPDX-License-Identifier: Apache-2.0
"""What one capture of each scenario of the lab can know of it, at each place: the table of the documentation.

Not what we happen to say, but what the wire holds. The sender is right or unverifiable, never wrong: a
test holds it against the label. A cause of the kernel's that leaves the same segments as another is told
as what they have in common (``linger_zero`` as ``peer_aborted``).
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.watch.diagnose.explained import Explained

Verdict = tuple[str, str] | None
"""Cause and sender; None if nothing may be told of it there."""

NOTHING = None

ALIKE = ({"data_after_close", "closed_while_receiving"},)
"""Who acknowledges a FIN first, a segment of its own or the next data, is a matter of microseconds."""


class Known(NamedTuple):
    """What the client's capture can know, and the router's; what the server's can, if that differs."""

    client: Verdict
    server: Verdict | str = "the same"

    def at(self, place: str) -> Verdict:
        """What the capture at this place can know."""
        if place != "server" or self.server == "the same":
            return self.client
        assert not isinstance(self.server, str)
        return self.server


def agrees(known: Verdict, found: list[Explained]) -> bool:
    """Whether that is just what was found."""
    if known is None or len(found) != 1:
        return known is None and not found
    cause, sender = known
    same = any({cause, found[0].cause} <= group for group in ALIKE) or cause == found[0].cause
    return same and sender == found[0].sender


KNOWN = {
    "closed_with_unread_data": Known(("closed_with_unread_data", "server")),
    "dual_stack_closed_with_unread_data": Known(("closed_with_unread_data", "server")),
    "killed_with_unread_data": Known(("closed_with_unread_data", "server")),
    "exited_with_unread_data": Known(("closed_with_unread_data", "server")),
    "linger_zero": Known(("peer_aborted", "server")),
    "connect_af_unspec": Known(("peer_aborted", "client")),
    "listener_closed": Known(("peer_aborted", "server")),
    "socket_destroyed": Known(("peer_aborted", "server")),
    "data_after_close": Known(("data_after_close", "server")),
    "keepalive_race": Known(("keepalive_race", "server")),
    "data_after_shutdown": Known(("data_after_close", "server")),
    "linger2_negative": Known(("linger2_negative", "server")),
    "linger2_on_ack": Known(("linger2_on_ack", "server")),
    "data_after_shutdown_read": Known(("data_after_close", "server")),
    "closed_while_receiving": Known(("data_after_close", "server")),
    "syn_after_close": Known(("syn_after_close", "server")),
    "aborted_while_closing": Known(("aborted_while_closing", "client")),
    "orderly_end": Known(NOTHING),
    "taken_away": Known(NOTHING),
    "local_firewall_reject": Known(("peer_had_no_connection", "server")),
    "local_firewall_reject_syn": Known(("connection_refused", "unknown")),
    "path_firewall_reject": Known(("path_firewall_reject", "path"), NOTHING),
    "path_firewall_reject_syn": Known(("connection_refused", "unknown"), None),
    "firewall_lost_state": Known(("path_firewall_reject", "path"), NOTHING),
    "icmp_refused": Known(("icmp_refused", "path"), NOTHING),
    "icmp_error": Known(("icmp_error", "path"), NOTHING),
    "fastopen_closed_with_unread_data": Known(("closed_with_unread_data", "server")),
    "fastopen_timeout": Known(NOTHING),
    "closed_port": Known(("connection_refused", "unknown")),
    "accept_queue_overflow": Known(("peer_had_no_connection", "server"), ("accept_queue_overflow", "server")),
    "segment_to_listener": Known(("peer_had_no_connection", "unknown")),
    "duplicate_syn": Known(NOTHING, ("duplicate_syn", "server")),
    "stale_handshake_answer": Known(("stale_handshake_answer", "client"), NOTHING),
    "port_reused_after_crash": Known(("stale_handshake_answer", "client")),
    "handshake_timestamp_mismatch": Known(("handshake_timestamp_mismatch", "client"), NOTHING),
    "bad_handshake_ack": Known(("bad_handshake_ack", "client"), NOTHING),
    "unexpected_syn_ack": Known(("unexpected_syn_ack", "unknown")),
    "client_gave_up": Known(("handshake_abandoned", "client")),
    "unknown_connection": Known(("peer_had_no_connection", "unknown")),
    "rebooted_peer": Known(("peer_had_no_connection", "server"), None),
    "late_segment": Known(("late_segment", "client")),
    "late_after_timeout": Known(("late_segment", "client"), ("peer_had_no_connection", "client")),
    "injected": Known(("injected", "path"), ("peer_had_no_connection", "client")),
    "injected_ladder": Known(("injected", "path"), ("peer_had_no_connection", "client")),
    "injected_ladder_down": Known(("injected", "path"), NOTHING),
    "ignored_in_window": Known(("ignored_in_window", "path"), NOTHING),
    "ignored_out_of_window": Known(("ignored_out_of_window", "path"), NOTHING),
    "unrecognised_sender": Known(("unrecognised_sender", "unknown"), NOTHING),
    "not_sent_by_tcp": Known(("peer_had_no_connection", "server")),
    "handshake_abandoned": Known(("handshake_abandoned", "client")),
    "mptcp_fastclose": Known(("mptcp_fastclose", "server")),
    "mptcp_protocol_error": Known(("mptcp_protocol_error", "server")),
    "mptcp_prohibited": Known(("mptcp_prohibited", "server")),
    "mptcp_middlebox": Known(("mptcp_middlebox", "server")),
    "peer_aborted": Known(("closed_with_unread_data", "server")),
    "peer_had_no_connection": Known(("peer_had_no_connection", "server"), None),
    "peer_closed_then_reset": Known(("data_after_close", "server")),
    "connection_refused": Known(("connection_refused", "unknown")),
    "keepalive_timeout": Known(("keepalive_timeout", "client"), NOTHING),
    "user_timeout": Known(NOTHING),
    "retransmission_timeout": Known(NOTHING),
    "unreachable_after_retries": Known(NOTHING),
    "connect_timeout": Known(NOTHING),
    "zero_window_timeout": Known(NOTHING),
    "fin_wait2_timeout": Known(NOTHING, ("fin_wait2_timeout", "server")),
}

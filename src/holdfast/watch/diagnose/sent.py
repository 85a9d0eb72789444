"""Why this host's TCP sent a RST: the kernel's reason, and what tells its lumps apart."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from typing import NamedTuple

from holdfast.causes import Basis, Trigger
from holdfast.events import Earlier, Event, Evidence, Segment

RESET_ERRORS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
"""Errors of a socket that was reset: by the peer, by the peer after its FIN, from this host (tcp_abort)."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


class Verdict(NamedTuple):
    """A cause, how it is known, and what speaks for it."""

    cause: str
    basis: Basis
    evidence: tuple[Evidence, ...] = ()
    trigger: Trigger | None = None


# Reasons that mean one cause each.
_ONE_TO_ONE = {
    "TCP_ABORT_ON_LINGER": "linger2_negative",
    "TCP_ABORT_ON_MEMORY": "orphan_memory",
    "TCP_DISCONNECT_WITH_DATA": "aborted_while_closing",
    "TCP_KEEPALIVE_TIMEOUT": "keepalive_timeout",
    "TCP_INVALID_ACK_SEQUENCE": "stale_handshake_answer",
    "TCP_RFC7323_PAWS": "handshake_timestamp_mismatch",
    "TCP_OLD_ACK": "bad_handshake_ack",
    "TCP_TOO_OLD_ACK": "bad_handshake_ack",
    "TCP_ACK_UNSENT_DATA": "bad_handshake_ack",
    "MPTCP_RST_EUNSPEC": "mptcp_unspecified",
    "MPTCP_RST_EMPTCP": "mptcp_protocol_error",
    "MPTCP_RST_ERESOURCE": "mptcp_no_resources",
    "MPTCP_RST_EPROHIBIT": "mptcp_prohibited",
    "MPTCP_RST_EWQ2BIG": "mptcp_too_much_data",
    "MPTCP_RST_EBADPERF": "mptcp_bad_performance",
    "MPTCP_RST_EMIDDLEBOX": "mptcp_middlebox",
    "ERROR": "mptcp_unknown_code",
}


def sent_cause(event: Event) -> Verdict:
    """The cause of a RST that local TCP sent (kind RESET_SENT).

    With a reason it uses only facts that a count carries as well as a detailed event
    (``event_of_key``), so totals by cause follow the same rules; without one the call path decides
    too, which only a detailed event has. Order of the rules: the kernel's reason first, then what
    separates the causes that share it.
    """
    trigger = Trigger.PASSIVE if event.segment is not None or _answers(event) else Trigger.ACTIVE
    reason = event.reason
    if reason is None or (reason == "NOT_SPECIFIED" and not event.mptcp):
        return _without_reason(event)._replace(trigger=trigger)
    if reason in _ONE_TO_ONE:
        verdict = _said(_ONE_TO_ONE[reason], f"the kernel gives the reason {reason}")
    elif reason in _RESOLVERS:
        verdict = _RESOLVERS[reason](event)
    elif reason == "NOT_SPECIFIED":
        verdict = _said("unspecified", "the kernel gives no reason")
    else:
        verdict = Verdict("unknown", Basis.NONE, (Evidence(f"the kernel gives the reason {reason}", 1),))
    return verdict._replace(trigger=trigger)


def _answers(event: Event) -> bool:
    """Whether the call path says that a segment was answered, where the segment itself is not seen."""
    return bool(event.kernel_stack) and event.kernel_stack[0] in ("tcp_v4_send_reset", "tcp_v6_send_reset")


def _said(cause: str, *facts: str) -> Verdict:
    return Verdict(cause, Basis.OBSERVED, tuple(Evidence(fact, 5) for fact in facts))


def _inferred(cause: str, *facts: str) -> Verdict:
    return Verdict(cause, Basis.INFERRED, tuple(Evidence(fact, 3) for fact in facts))


def _no_socket(event: Event) -> Verdict:
    if event.segment is None and event.earlier is None:
        unseen = Evidence(
            "no socket; the segment was not seen, so it may have been a SYN to a closed port", 0
        )
        return Verdict("unknown_connection", Basis.NONE, (unseen,))
    flags = event.segment.flags if event.segment else 0
    if flags & SYN and flags & ACK:
        return _said("unexpected_syn_ack", "a SYN-ACK came for a connection that nobody here is opening")
    if flags & SYN:
        return _said("closed_port", "a SYN came and no socket listens on that address and port")
    if event.earlier is not None:
        return _inferred("late_segment", _ended_before(event.earlier))
    return _inferred(
        "unknown_connection", "no socket, and no connection on these addresses was closed here lately"
    )


def _ended_before(earlier: Earlier) -> str:
    if earlier.error in RESET_ERRORS:
        return "a connection of this host on the same addresses and ports was reset before"
    if earlier.error == errno.ETIMEDOUT:
        return "a connection of this host on the same addresses and ports timed out before"
    return "this host closed a connection on the same addresses and ports before"


def _time_wait(event: Event) -> Verdict:
    flags = event.segment.flags if event.segment else 0
    said = "the connection was closed here in order and is kept only as a FIN_WAIT_2 remnant"
    if flags & SYN:
        return _said("syn_after_close", said, "a SYN came for it")
    if event.earlier is not None and event.earlier.served and event.earlier.was_idle:
        return _inferred(
            "keepalive_race",
            said,
            "it had carried bytes both ways and was silent when it was closed",
            "the peer then sent more: it had not yet seen the close",
        )
    return _said("data_after_close", said, "the peer sent data that nobody will read")


def _abort_on_data(event: Event) -> Verdict:
    data = event.segment is not None and event.segment.payload_bytes > 0
    if event.orphaned and event.linger2_negative and not data:
        return _said("linger2_on_ack", "TCP_LINGER2 is negative", "the peer acknowledged our FIN")
    if event.orphaned:
        closed = "the process had ended" if event.exiting else "the process had closed the socket"
        return _said("closed_while_receiving", closed, "the peer was still sending")
    return _said("data_after_shutdown", "the process had shut down reading", "the peer sent data afterwards")


def _abort_on_close(event: Event) -> Verdict:
    if event.mptcp:
        return _said("mptcp_fastclose", "the socket is a Multipath TCP subflow that was closed at once")
    if event.exiting:
        return _said("exited_with_unread_data", "the process was exiting", "received bytes had not been read")
    return _said("closed_with_unread_data", "close() was called", "received bytes had not been read")


def _tcp_state(event: Event) -> Verdict:
    # Six causes share this reason. What the socket was at that moment separates them.
    if event.state == "FIN_WAIT_2" and event.orphaned:
        return _said(
            "fin_wait2_timeout", "a closed connection waited in FIN_WAIT_2 for longer than tcp_fin_timeout"
        )
    if event.state != "CLOSED":
        return _said("socket_destroyed", "the socket was reset while it was in use (tcp_abort)")
    if event.unaccepted:
        return _said("listener_closed", "the connection was never accepted and its listener was closed")
    if event.linger_zero and event.closing:
        return _linger_zero(event)
    return _said("connect_af_unspec", "the socket was disconnected without being closed")


def _linger_zero(event: Event) -> Verdict:
    said = "SO_LINGER was on with zero seconds when the socket was closed"
    if event.exiting:
        return _said("linger_zero", said, "the process was exiting: its end closed the socket")
    return _said("linger_zero", said)


def _invalid_syn(event: Event) -> Verdict:
    flags = event.segment.flags if event.segment else 0
    if flags & SYN:
        return _said(
            "duplicate_syn", "a second SYN with another sequence number came for a handshake in progress"
        )
    return _said(
        "accept_queue_overflow",
        "the listener's accept queue was full when the handshake's last ACK came",
        "net.ipv4.tcp_abort_on_overflow is 1",
    )


def _tcp_flags(event: Event) -> Verdict:
    if event.earlier is not None:
        return _inferred(
            "late_segment",
            _ended_before(event.earlier),
            "only the listener is left, and it cannot take the segment",
        )
    return _said("segment_to_listener", "a listener got a segment that opens no connection")


_RESOLVERS = {
    "TCP_FLAGS": _tcp_flags,
    "NO_SOCKET": _no_socket,
    "TCP_TIMEWAIT_SOCKET": _time_wait,
    "TCP_ABORT_ON_DATA": _abort_on_data,
    "TCP_ABORT_ON_CLOSE": _abort_on_close,
    "TCP_STATE": _tcp_state,
    "INVALID_SYN": _invalid_syn,
}


def _without_reason(event: Event) -> Verdict:
    """The same causes on kernels that give no reason (before 6.10; active resets before 6.12)."""
    verdict = (
        _passive_without_reason(event, event.segment) if event.segment else _active_without_reason(event)
    )
    if verdict.basis is Basis.NONE:
        return verdict
    return verdict._replace(basis=Basis.INFERRED)


def _passive_without_reason(event: Event, segment: Segment) -> Verdict:
    state = event.state
    if state is None:
        return _no_socket(event)
    if state == "TIME_WAIT":
        return _time_wait(event)
    if state == "LISTEN" and segment.flags & SYN and event.mptcp:
        refused = Evidence("a Multipath TCP listener refused a SYN; this kernel does not say why", 0)
        return Verdict("mptcp_unspecified", Basis.NONE, (refused,))
    if state == "LISTEN":
        overflow = event.queue_full and segment.flags & ACK
        return _invalid_syn(event) if segment.flags & SYN or overflow else _tcp_flags(event)
    if state == "SYN_SENT":
        if event.acks_us:
            return _said("handshake_timestamp_mismatch", "the answer fits our SYN, but not its timestamp")
        return _said("stale_handshake_answer", "the answer to our SYN acknowledges another SYN")
    if state in ("SYN_RECEIVED", "NEW_SYN_RECV"):
        return _said("bad_handshake_ack", "the handshake's last ACK does not fit")
    return _abort_on_data(event)


def _active_without_reason(event: Event) -> Verdict:
    path = event.kernel_stack
    if event.mptcp:
        fast = any("fastclose" in frame for frame in path)
        if fast:
            return _said("mptcp_fastclose", "a Multipath TCP connection was closed at once")
        return Verdict("mptcp_unspecified", Basis.NONE)
    if not path and event.linger_zero and event.closing:
        # A count has no call path: without one this is the likelier of the two.
        return _linger_zero(event)
    if "tcp_keepalive_timer" in path and event.state != "FIN_WAIT_2":
        return _said("keepalive_timeout", "the keep-alive timer gave up")
    if "tcp_out_of_resources" in path or "tcp_check_oom" in path:
        return _said("orphan_memory", "the kernel ran out of memory for orphaned connections")
    if event.state_before in ("LAST_ACK", "CLOSING") and "tcp_disconnect" in path:
        return _said("aborted_while_closing", "the connection was disconnected in its last states")
    if "tcp_disconnect" in path or "tcp_abort" in path or event.state == "FIN_WAIT_2" or event.unaccepted:
        return _tcp_state(event)
    if event.orphaned and event.state_before == "FIN_WAIT_2":
        return _said("linger2_negative", "TCP_LINGER2 is negative")
    if event.orphaned:
        # __tcp_close() resets for unread data before it orphans the socket, and for memory after.
        return _said("orphan_memory", "the kernel would not keep one more orphaned connection")
    if event.closing or event.exiting:
        return _abort_on_close(event)
    return Verdict("unspecified", Basis.NONE)

"""Endings without a RST: what the error in a socket means (the kernel sends no segment for these)."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

from holdfast.causes import Basis, Ending
from holdfast.events import Event, Evidence
from holdfast.watch.diagnose.sent import Verdict

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENONET})
_HANDSHAKE = ("SYN_SENT", "SYN_RECEIVED", "NEW_SYN_RECV")


def error_cause(event: Event) -> tuple[Ending, Verdict] | None:
    """What ended a connection, from the error it was left with (kind ERROR).

    None if the error ended nothing, or if it only repeats a reset (ECONNRESET, EPIPE): the reset has a
    record of its own.
    """
    if event.state not in (None, "CLOSED", "SYN_SENT"):
        return None  # a soft error told to the application; the connection lives on
    if event.error == errno.ETIMEDOUT:
        return Ending.TIMED_OUT, _timed_out(event)
    if event.error == errno.ECONNREFUSED:
        return Ending.REFUSED_BY_ICMP, _said(
            "icmp_refused", "an ICMP message refused the connection; no RST came"
        )
    if event.error == errno.ECONNABORTED and event.local.port and not event.peer.port:
        # tcp_disconnect() has wiped the peer's port, tcp_abort() would not have: the process took its
        # connection away in silence (TCP_REPAIR, as checkpointing tools do). Nothing was reset.
        return None
    if event.error == errno.ECONNABORTED:
        return Ending.ABORTED, _said(
            "socket_destroyed", "the socket was destroyed on this host; no RST was due"
        )
    if event.error in _UNREACHABLE and _was(event) not in _HANDSHAKE:
        said = "retransmissions were exhausted, and an ICMP message had come meanwhile"
        return Ending.UNREACHABLE, _said("unreachable_after_retries", said)
    if event.error in _UNREACHABLE or event.error in (
        errno.EPROTO,
        errno.EACCES,
        errno.EOPNOTSUPP,
        errno.EPERM,
    ):
        return Ending.UNREACHABLE, _said("icmp_error", "an ICMP message ended the connection attempt")
    if event.error == errno.EBADMSG:
        return Ending.ABORTED, _said("tls_record_error", "the kernel's TLS could not authenticate a record")
    return None


def _was(event: Event) -> str | None:
    return event.state if event.state == "SYN_SENT" else event.state_before


def _said(cause: str, *facts: str) -> Verdict:
    return Verdict(cause, Basis.OBSERVED, tuple(Evidence(fact, 5) for fact in facts))


def _timed_out(event: Event) -> Verdict:
    if _was(event) == "SYN_SENT":
        return _said("connect_timeout", "no answer came to any SYN")
    if _was(event) in _HANDSHAKE:
        return _said("fastopen_timeout", "the handshake was never completed after data in the SYN")
    window_closed = not event.unacked and bool(event.harm.unsent_bytes)
    if window_closed:
        return Verdict(
            "zero_window_timeout",
            Basis.INFERRED,
            (
                Evidence(
                    "all that was sent is acknowledged, more waits, and window probes went unanswered", 3
                ),
            ),
        )
    if event.user_timeout:
        return _said("user_timeout", "TCP_USER_TIMEOUT is set and data stayed unacknowledged for longer")
    return _said("retransmission_timeout", "retransmissions were exhausted (tcp_retries2)")

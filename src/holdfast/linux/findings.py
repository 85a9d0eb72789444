"""What one look at a TCP socket, or two in a row, says about it: judged by a table of rules."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import NamedTuple

from holdfast.causes import Severity
from holdfast.linux.quantities import counted, size, time_ms, time_s
from holdfast.linux.sock_diag import Socket
from holdfast.linux.tcp_info import CA_STATES

# Rule: a sentence here follows from the figures alone. What would need a guess about the application
# or the path is not said, so that a reader may act on what is.

UNREAD_MS = 1000
"""From here on bytes that wait are called unread: a program that reads needs milliseconds."""

MANY_TIMEOUTS = 3
"""So many timeouts in a row mean that the path is dead for now, not that it lost a segment."""

_WITH_DATA = frozenset({"ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK"})
_FIN_ARRIVED = frozenset({"CLOSE_WAIT", "CLOSING", "LAST_ACK"})
_MAY_SEND = _WITH_DATA - {"FIN_WAIT_2"}
_LIMITED_US = 100_000
_RESENT_BYTES, _RESENT_SHARE, _LOSSY_SHARE = 4096, 0.01, 0.05


class Finding(NamedTuple):
    """One judgement: a stable identifier, how bad it is, and a sentence."""

    code: str
    severity: Severity
    sentence: str


class Mark(NamedTuple):
    """What is remembered of a socket for the next look; None where the kernel does not tell."""

    received_bytes: int | None
    waiting_bytes: int
    acked_bytes: int | None
    drops: int | None


class Moved(NamedTuple):
    """What a connection did between two looks; None where the kernel does not tell."""

    elapsed_s: float
    received_bytes: int | None
    read_bytes: int | None
    acked_bytes: int | None
    drops: int | None


def mark(sock: Socket) -> Mark:
    """What to remember of a socket."""
    info, memory = sock.info, sock.memory
    return Mark(
        info.bytes_received if info else None,
        sock.receive_queue,
        info.bytes_acked if info else None,
        memory.drops if memory else None,
    )


def moved(before: Mark, after: Mark, elapsed_s: float) -> Moved:
    """What happened between two looks at the same socket (its cookie tells that it is the same)."""
    received = _rise(before.received_bytes, after.received_bytes)
    # What arrived and does not wait was read; a FIN counts in both figures until it is read.
    read = None if received is None else max(0, received - (after.waiting_bytes - before.waiting_bytes))
    return Moved(
        elapsed_s,
        received,
        read,
        _rise(before.acked_bytes, after.acked_bytes),
        _rise(before.drops, after.drops, 1 << 32),
    )


def _rise(before: int | None, after: int | None, wraps_at: int = 1 << 64) -> int | None:
    return None if before is None or after is None else (after - before) % wraps_at


def fin_arrived(sock: Socket) -> bool:
    """Whether the peer's FIN is here; the kernel counts it as a byte received, unread until it is read."""
    return sock.state in _FIN_ARRIVED


def unread_bytes(sock: Socket) -> int | None:
    """Bytes that arrived in order and were not read; None where a socket has no such queue."""
    if sock.state not in _WITH_DATA:
        return None
    return max(0, sock.receive_queue - fin_arrived(sock))


def unsent_bytes(sock: Socket) -> int | None:
    """Bytes written and never sent; None where the kernel does not tell."""
    return sock.info.notsent_bytes if sock.info and sock.state in _WITH_DATA else None


def findings(sock: Socket, since: Moved | None = None) -> list[Finding]:
    """What is worth saying about a socket, the worst first; empty if it is well.

    Args:
        sock: with its details (see :func:`holdfast.linux.sock_diag.iter_sockets`), else less is found.
        since: what it did since the last look, if there was one.
    """
    found = [finding for rule in _RULES if (finding := rule(sock, since))]
    order = list(Severity)
    return sorted(found, key=lambda finding: -order.index(finding.severity))


def _not_reading(sock: Socket, since: Moved | None) -> Finding | None:
    unread = unread_bytes(sock)
    if not unread or sock.info is None or not sock.inode:
        return None
    waits = f"{size(unread)} {'waits' if unread == 1 else 'wait'}"
    if sock.info.rcv_wnd_bytes == 0:
        sentence = f"The application is not reading: {waits} and the window is closed."
        return Finding("not_reading", Severity.ERROR, sentence)
    idle_ms = sock.info.last_data_recv_ms or 0
    if idle_ms >= UNREAD_MS:
        sentence = f"The application is not reading: {waits}, the newest for {time_ms(idle_ms)}."
        return Finding("not_reading", Severity.WARNING, sentence)
    if since and since.read_bytes == 0 and since.elapsed_s * 1000 >= UNREAD_MS:
        sentence = f"The application has read nothing for {time_s(since.elapsed_s)}: {waits}."
        return Finding("not_reading", Severity.WARNING, sentence)
    return None


def _receive_buffer_full(sock: Socket, since: Moved | None) -> Finding | None:
    memory = sock.memory
    if memory is None or memory.receive_bytes is None or not memory.receive_limit_bytes:
        return None
    if sock.state not in _WITH_DATA or memory.receive_bytes < memory.receive_limit_bytes:
        return None
    taken = f"{size(memory.receive_bytes)} of {size(memory.receive_limit_bytes)}"
    sentence = f"The receive buffer is full ({taken}): what arrives is merged, pruned or dropped."
    return Finding("receive_buffer_full", Severity.WARNING, sentence)


def _dropping(sock: Socket, since: Moved | None) -> Finding | None:
    if since is None or not since.drops:
        return None
    what = "connection attempt" if sock.state == "LISTEN" else "segment"
    words = (
        f"The kernel threw away {counted(since.drops, what)} for this socket in {time_s(since.elapsed_s)}."
    )
    return Finding("dropping", Severity.WARNING, words)


def _peer_window_closed(sock: Socket, since: Moved | None) -> Finding | None:
    info, probing = sock.info, sock.timer == "window_probe"
    if info is None or sock.state not in _MAY_SEND:
        return None
    if not probing and (info.snd_wnd_bytes != 0 or info.retransmits):
        return None
    if not sock.send_queue:
        return Finding(
            "peer_window_closed", Severity.INFO, "The peer's window is closed; nothing waits for it."
        )
    sentence = f"The peer's window is closed: {size(sock.send_queue)} wait."
    tries = (sock.timer_tries or 0) if probing else 0
    if tries < MANY_TIMEOUTS:
        # One or two say nothing: Linux answers such a probe at most every 500 ms (tcp_invalid_ratelimit).
        return Finding("peer_window_closed", Severity.WARNING, sentence)
    sentence = f"{sentence[:-1]}, and {counted(tries, 'probe')} in a row had no answer."
    return Finding("peer_window_closed", Severity.ERROR, sentence)


def _retransmitting(sock: Socket, since: Moved | None) -> Finding | None:
    info = sock.info
    if info is None or not info.retransmits or sock.state not in _WITH_DATA:
        return None
    sentence = f"Retransmitting: {counted(info.retransmits, 'timeout')} in a row"
    if info.last_ack_recv_ms:
        sentence += f", the last ACK {time_ms(info.last_ack_recv_ms)} ago"
    if sock.timer == "retransmit" and sock.timer_ms:
        sentence += f", the next try in {time_ms(sock.timer_ms)}"
    severity = Severity.ERROR if info.retransmits >= MANY_TIMEOUTS else Severity.WARNING
    return Finding("retransmitting", severity, f"{sentence}.")


def _no_handshake(sock: Socket, since: Moved | None) -> Finding | None:
    if not sock.timer_tries or sock.timer != "retransmit":
        return None
    times = counted(sock.timer_tries, "time")
    if sock.state == "SYN_SENT":
        sentence = f"The peer does not answer: the SYN was repeated {times}."
    elif sock.state in ("SYN_RECEIVED", "NEW_SYN_RECV"):
        sentence = f"The peer does not finish the handshake: the SYN-ACK was repeated {times}."
    else:
        return None
    return Finding("no_handshake", Severity.WARNING, sentence)


def _repairing(sock: Socket, since: Moved | None) -> Finding | None:
    info = sock.info
    if info is None or info.retransmits or sock.state not in _WITH_DATA:
        return None
    if info.ca_state not in (CA_STATES.index("recovery"), CA_STATES.index("loss")):
        return None
    after = " after a timeout" if info.ca_state == CA_STATES.index("loss") else ""
    lost, again = info.lost or 0, info.retrans or 0
    sentence = f"Repairing loss{after}: {counted(lost, 'segment')} thought lost, {again:,} sent again."
    return Finding("repairing", Severity.WARNING, sentence)


def _no_keep_alive_answer(sock: Socket, since: Moved | None) -> Finding | None:
    if sock.timer != "keep_alive" or not sock.timer_tries or sock.state not in _WITH_DATA:
        return None
    sentence = f"The peer did not answer {counted(sock.timer_tries, 'keep-alive probe')}"
    sentence += f"; the next is due in {time_ms(sock.timer_ms)}." if sock.timer_ms else "."
    return Finding("no_keep_alive", Severity.WARNING, sentence)


def _accept_queue(sock: Socket, since: Moved | None) -> Finding | None:
    if sock.state != "LISTEN" or not sock.receive_queue:
        return None
    queue, limit = sock.receive_queue, sock.send_queue
    # The kernel takes one connection more than the limit says (sk_acceptq_is_full).
    if queue > limit:
        sentence = f"The accept queue is full: {queue:,} wait, the limit is {limit:,}; new ones are dropped."
        return Finding("accept_queue_full", Severity.ERROR, sentence)
    sentence = f"The accept queue holds {queue:,} of {limit:,}."
    return Finding("accept_queue", Severity.WARNING if queue * 2 >= limit else Severity.INFO, sentence)


def _not_closed(sock: Socket, since: Moved | None) -> Finding | None:
    if sock.state != "CLOSE_WAIT" or sock.info is None or not sock.inode or unread_bytes(sock):
        return None
    idle_ms = sock.info.last_data_recv_ms or 0
    if idle_ms < UNREAD_MS:
        return None
    sentence = f"The peer has closed and this side has not, with nothing received for {time_ms(idle_ms)}."
    return Finding("not_closed", Severity.WARNING, sentence)


def _no_owner(sock: Socket, since: Moved | None) -> Finding | None:
    if sock.inode or sock.state not in _WITH_DATA:
        return None
    if sock.state in ("ESTABLISHED", "CLOSE_WAIT"):
        unread = unread_bytes(sock)
        waits = f", with {size(unread)} to read" if unread else ""
        return Finding("not_accepted", Severity.INFO, f"No process has accepted it yet{waits}.")
    if sock.state == "FIN_WAIT_2":
        left = f" for another {time_ms(sock.timer_ms)}" if sock.timer_ms else ""
        return Finding("no_owner", Severity.INFO, f"Closed here; the kernel awaits the peer's FIN{left}.")
    waits = f" and still delivers {size(sock.send_queue)}" if sock.send_queue > 1 else ""
    return Finding("no_owner", Severity.INFO, f"No process holds it: the kernel ends it{waits}.")


def _send_limited(sock: Socket, since: Moved | None) -> Finding | None:
    info = sock.info
    if info is None or not info.busy_us or info.busy_us < _LIMITED_US:
        return None
    for limited_us, code, what in (
        (info.rwnd_limited_us, "window_limited", "The peer's window"),
        (info.sndbuf_limited_us, "send_buffer_limited", "The send buffer"),
    ):
        share = (limited_us or 0) / info.busy_us
        if share >= 0.5:
            sentence = f"{what} limited sending for {min(share, 1):.0%} of the time there was data to send."
            return Finding(code, Severity.INFO, sentence)
    return None


def _lossy(sock: Socket, since: Moved | None) -> Finding | None:
    info = sock.info
    if info is None or not info.bytes_sent or not info.bytes_retrans or info.bytes_retrans < _RESENT_BYTES:
        return None
    share = info.bytes_retrans / info.bytes_sent
    if share < _RESENT_SHARE:
        return None
    severity = Severity.WARNING if share >= _LOSSY_SHARE else Severity.INFO
    return Finding("lossy", severity, f"{share:.1%} of the bytes sent were sent again.")


_RULES = (
    _not_reading,
    _retransmitting,
    _peer_window_closed,
    _accept_queue,
    _no_handshake,
    _no_keep_alive_answer,
    _repairing,
    _receive_buffer_full,
    _dropping,
    _not_closed,
    _lossy,
    _send_limited,
    _no_owner,
)

CODES = (
    "not_reading",
    "retransmitting",
    "peer_window_closed",
    "accept_queue_full",
    "accept_queue",
    "no_handshake",
    "no_keep_alive",
    "repairing",
    "receive_buffer_full",
    "dropping",
    "not_closed",
    "lossy",
    "window_limited",
    "send_buffer_limited",
    "not_accepted",
    "no_owner",
)
"""Every code that a finding may have; stable."""

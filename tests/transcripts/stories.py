"""What a watch is fed and when, and the records that come out: time-stamped scenes as data."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import errno

from unit.watch.samples import (
    ACK,
    CLIENT,
    LOCAL,
    NOW_NS,
    PEER,
    SERVER,
    SYN,
    active_rst,
    event,
    mirrored,
    passive_rst,
    received,
    segment,
    sent,
)

from holdfast.events import Endpoint, Event, Kind

ABORT = sent(
    "TCP_ABORT_ON_CLOSE", closing=True, snd_nxt=1000, snd_una=1000, closer=SERVER, state_before="ESTABLISHED"
)
# On one host the receiver is logged first, and yet the sender is told first.
SUFFERED = received(active_rst(seq=1000), mono_ns=NOW_NS - 5_000, opener=CLIENT, **mirrored(ABORT))
ERROR = event(Kind.ERROR, error=errno.ECONNRESET, state="CLOSED", mono_ns=NOW_NS - 4_000, **mirrored(ABORT))
LINGER = sent("TCP_STATE", linger_zero=True, closing=True, cookie=60)
PORTLESS = event(Kind.ERROR, error=errno.ECONNABORTED, state="CLOSED", cookie=60, peer=Endpoint(PEER.ip, 0))
REFUSED = sent("NO_SOCKET", state=None, cookie=0, segment=segment(SYN), local=Endpoint("10.1.0.1", 81))
TIMEOUT = event(
    Kind.ERROR, error=errno.ETIMEDOUT, state="CLOSED", state_before="ESTABLISHED", unacked=True, cookie=90,
    local=Endpoint("10.1.0.1", 5000), peer=Endpoint("10.3.0.3", 80), mono_ns=NOW_NS + 7,
)  # fmt: skip
SELF = event(Kind.SELF_RESET, state="FIN_WAIT_2", mono_ns=NOW_NS - 1)
AFTER_SHUTDOWN = sent("TCP_ABORT_ON_DATA", segment=segment(ACK, data=3))
FORGED = received(passive_rst(ttl=128, window=9), mono_ns=NOW_NS - 10)
TALKS_ON = sent("NO_SOCKET", state=None, cookie=0, segment=segment(ACK, data=3), mono_ns=NOW_NS)

BOTH_ENDS = [("sent", "closed_with_unread_data"), ("received", "closed_with_unread_data")]
REFUSAL = [("sent", "closed_port")]


def at_port(one: Event, port: int) -> Event:
    """The same, of the peer's next connection."""
    cookie = one.cookie and one.cookie + 100 * port
    if one.local == LOCAL:
        return dataclasses.replace(one, cookie=cookie, peer=Endpoint(PEER.ip, port))
    return dataclasses.replace(one, cookie=cookie, local=Endpoint(PEER.ip, port))


Step = tuple[int, str, list[Event], list[tuple[str, str]]]

#  ms   what       events              records (direction, cause), the sender of a story first
TRANSCRIPTS: dict[str, list[Step]] = {
    "nothing happens": [
        (0, "feed", [], []),
        (900, "settle", [], []),
        (901, "flush", [], []),
    ],
    "a lone reset waits for its other end, and no longer than it must": [
        (0, "feed", [REFUSED], []),
        (249, "settle", [], []),
        (250, "settle", [], REFUSAL),
        (500, "settle", [], []),
    ],
    "both ends in one drain are two records of one story": [
        (0, "feed", [SUFFERED, ERROR, ABORT], []),
        (250, "settle", [], BOTH_ENDS),
    ],
    "the other end comes a drain later and starts the wait anew": [
        (0, "feed", [SUFFERED], []),
        (200, "feed", [ABORT], []),
        (300, "settle", [], []),
        (450, "settle", [], BOTH_ENDS),
    ],
    "the other end comes too late and is judged alone": [
        (0, "feed", [ABORT], []),
        (250, "settle", [], [("sent", "closed_with_unread_data")]),
        (260, "feed", [SUFFERED], []),
        (510, "settle", [], [("received", "peer_aborted")]),
    ],
    "who never falls silent is judged after two seconds": [
        *((100 * n, "feed", [at_port(REFUSED, 1)], []) for n in range(20)),
        (1999, "settle", [], []),
        (2000, "settle", [], REFUSAL * 20),
    ],
    "the end of the watch tells what still waits": [
        (0, "feed", [TIMEOUT, REFUSED], []),
        (1, "flush", [], [("received", "retransmission_timeout"), *REFUSAL]),
        (2, "flush", [], []),
        (900, "settle", [], []),
    ],
    "each pair settles by itself": [
        (0, "feed", [REFUSED], []),
        (100, "feed", [TIMEOUT], []),
        (250, "settle", [], REFUSAL),
        (350, "settle", [], [("received", "retransmission_timeout")]),
    ],
    "an error that lost its peer's port is still the error of its reset": [
        (0, "feed", [LINGER], []),
        (1, "feed", [PORTLESS], []),
        (300, "settle", [], [("sent", "linger_zero")]),
    ],
    "a reset of itself is told by its sending only": [
        (0, "feed", [SELF], []),
        (1, "feed", [AFTER_SHUTDOWN], []),
        (251, "settle", [], [("sent", "data_after_shutdown")]),
    ],
    "what follows a forged reset convicts it": [
        (0, "feed", [FORGED], []),
        (100, "feed", [TALKS_ON], []),
        (350, "settle", [], [("sent", "unknown_connection"), ("received", "injected")]),
    ],
    "two connections between the same hosts stay apart": [
        (0, "feed", [SUFFERED, at_port(SUFFERED, 1), at_port(ABORT, 1), ABORT], []),
        (250, "settle", [], BOTH_ENDS * 2),
    ],
}

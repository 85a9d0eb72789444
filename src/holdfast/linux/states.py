"""TCP states: the kernel's numbers as RFC 9293 spells them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

# include/net/tcp_states.h. The numbers are user-space ABI; 12 and 13 are states only Linux has:
# a request socket that still waits for the handshake's last ACK, and a bound socket without a peer.
STATES: dict[int, str] = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECEIVED",
    4: "FIN_WAIT_1",
    5: "FIN_WAIT_2",
    6: "TIME_WAIT",
    7: "CLOSED",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "NEW_SYN_RECV",
    13: "BOUND_INACTIVE",
}

NUMBERS: dict[str, int] = {name: number for number, name in STATES.items()}


def name(number: int) -> str | None:
    """A state's name in RFC 9293 spelling, or None for 0 (no socket) and unknown numbers."""
    return STATES.get(number)

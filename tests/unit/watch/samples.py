"""Events to be judged: an ordinary connection between two hosts, and what differs from it by name."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from holdfast.events import Earlier, Endpoint, Event, Kind, Process, Segment

LOCAL, PEER = Endpoint("10.1.0.1", 443), Endpoint("10.2.0.2", 51000)
SERVER, CLIENT = Process(812, "nginx", 33, 4711), Process(977, "curl", 1000, 4712)
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
NOW_NS = 5_000_000_000


def segment(flags: int = ACK, **differs: Any) -> Segment:
    """A segment without payload; ``data=7`` gives it one of seven bytes."""
    fields: dict[str, Any] = {
        "seq": 1000,
        "ack": 2000,
        "window": 500,
        "ttl": 63,
        "ip_id": 0,
        "options_bytes": 0,
        "has_timestamp": False,
        "payload_bytes": differs.pop("data", 0),
    }
    return Segment(flags, **fields | differs)


def active_rst(**differs: Any) -> Segment:
    """What Linux sends when it resets by its own decision, timestamps negotiated."""
    return segment(
        RST | ACK, **{"window": 64, "ip_id": 4242, "options_bytes": 12, "has_timestamp": True} | differs
    )


def passive_rst(**differs: Any) -> Segment:
    """What Linux, or netfilter's REJECT, answers to a segment of an unknown connection."""
    return segment(RST, **{"ack": 0, "window": 0} | differs)


def event(kind: Kind, **differs: Any) -> Event:
    """An event at the server's end, with nothing known but its ends, time and socket cookie."""
    fields: dict[str, Any] = {"mono_ns": NOW_NS, "local": LOCAL, "peer": PEER, "cookie": 7, "netns": 40}
    return Event(kind, **fields | differs)


def sent(reason: str | None = None, **differs: Any) -> Event:
    """A RST that local TCP sent; a closed socket unless told otherwise."""
    return event(Kind.RESET_SENT, **{"reason": reason, "state": "CLOSED"} | differs)


def received(rst: Segment | None, **differs: Any) -> Event:
    """A RST that a local socket obeyed, ESTABLISHED until then, with a peer 63 hops of TTL away."""
    return event(
        Kind.RESET_RECEIVED, **{"segment": rst, "state": "ESTABLISHED", "baseline_ttl": 63} | differs
    )


def arrived(rst: Segment, **differs: Any) -> Event:
    """A RST that reached a local socket."""
    return event(Kind.RST_ARRIVED, **{"segment": rst, "state": "ESTABLISHED", "baseline_ttl": 63} | differs)


def mirrored(one: Event) -> dict[str, Any]:
    """The facts by which the other end of the same connection differs."""
    return {"local": one.peer, "peer": one.local, "cookie": one.cookie + 1}


EARLIER = Earlier(closed_ns_ago=1_500_000_000, owner=SERVER, state_before="LAST_ACK")

# enum sk_rst_reason, 0 to 24, as Linux 6.12 to 6.19 have it.
ENUM_6_18 = """
NOT_SPECIFIED NO_SOCKET TCP_INVALID_ACK_SEQUENCE TCP_RFC7323_PAWS TCP_TOO_OLD_ACK TCP_ACK_UNSENT_DATA
TCP_FLAGS TCP_OLD_ACK TCP_ABORT_ON_DATA TCP_TIMEWAIT_SOCKET INVALID_SYN TCP_ABORT_ON_CLOSE
TCP_ABORT_ON_LINGER TCP_ABORT_ON_MEMORY TCP_STATE TCP_KEEPALIVE_TIMEOUT TCP_DISCONNECT_WITH_DATA
MPTCP_RST_EUNSPEC MPTCP_RST_EMPTCP MPTCP_RST_ERESOURCE MPTCP_RST_EPROHIBIT MPTCP_RST_EWQ2BIG
MPTCP_RST_EBADPERF MPTCP_RST_EMIDDLEBOX ERROR
""".split()  # noqa: SIM905 - word after word, as the header has them

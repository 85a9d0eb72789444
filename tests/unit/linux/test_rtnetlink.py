# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of addresses, routes and links is taken for what it means, nonsense for nothing."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.linux.netlink import Message
from holdfast.linux.rtnetlink import (
    ANYTHING,
    EVERYWHERE,
    MOST_NETWORKS,
    NOTHING,
    Changes,
    Network,
    change,
)

NEW_LINK, DEL_LINK, NEW_ADDRESS, DEL_ADDRESS, NEW_ROUTE, DEL_ROUTE, NEW_RULE, NEW_NEIGHBOUR = (
    16, 17, 20, 21, 24, 25, 32, 28,
)  # fmt: skip
UNICAST, LOCAL, BLACKHOLE = 1, 2, 6
UP, LOWER_UP, CLONED = 0x1, 0x10000, 0x200


def route(family: int, bits: int, where: bytes | None, kind: int = UNICAST, flags: int = 0) -> bytes:
    head = struct.pack("=8BI", family, bits, 0, 0, 254, 3, 0, kind, flags)
    return head if where is None else head + struct.pack("=HH", 4 + len(where), 1) + where


def link(flags: int, family: int = socket.AF_UNSPEC) -> bytes:
    return struct.pack("=BxHiII", family, 1, 7, flags, 0)


TEN = bytes([10, 1, 2, 0])
DOC = IPv6Network("2001:db8::/32")
TOLD: dict[str, tuple[int, bytes, Changes]] = {
    "route to a network": (
        NEW_ROUTE,
        route(socket.AF_INET, 24, TEN),
        Changes(frozenset({IPv4Network("10.1.2.0/24")})),
    ),
    "default route gone": (
        DEL_ROUTE,
        route(socket.AF_INET, 0, None),
        Changes(frozenset({IPv4Network("0.0.0.0/0")})),
    ),
    "IPv6 route": (
        NEW_ROUTE,
        route(socket.AF_INET6, 32, DOC.network_address.packed),
        Changes(frozenset({DOC})),
    ),
    "black hole": (
        NEW_ROUTE,
        route(socket.AF_INET, 24, TEN, BLACKHOLE),
        Changes(frozenset({IPv4Network("10.1.2.0/24")})),
    ),
    "local table": (NEW_ROUTE, route(socket.AF_INET, 32, TEN, LOCAL), NOTHING),
    "cached copy": (NEW_ROUTE, route(socket.AF_INET, 32, TEN, flags=CLONED), NOTHING),
    "multicast routing": (NEW_ROUTE, route(128, 0, None), NOTHING),
    "more bits than there are": (NEW_ROUTE, route(socket.AF_INET, 33, TEN), NOTHING),
    "destination of another family": (NEW_ROUTE, route(socket.AF_INET6, 24, TEN), NOTHING),
    "route cut short": (NEW_ROUTE, route(socket.AF_INET, 24, TEN)[:11], NOTHING),
    "rule": (NEW_RULE, b"", Changes(EVERYWHERE)),
    "address gone": (DEL_ADDRESS, b"", Changes(less=True)),
    "address new": (NEW_ADDRESS, bytes(8), NOTHING),
    "link gone": (DEL_LINK, b"", Changes(less=True)),
    "link down": (NEW_LINK, link(0), Changes(less=True)),
    "cable pulled": (NEW_LINK, link(UP), Changes(less=True)),
    "link up": (NEW_LINK, link(UP | LOWER_UP), NOTHING),
    "port of a bridge": (NEW_LINK, link(0, family=7), NOTHING),
    "link cut short": (NEW_LINK, link(0)[:15], NOTHING),
    "neighbour": (NEW_NEIGHBOUR, bytes(32), NOTHING),
}


@pytest.mark.parametrize(("kind", "payload", "expected"), TOLD.values(), ids=TOLD)
def test_what_a_message_means(kind: int, payload: bytes, expected: Changes) -> None:
    assert change(Message(kind, 0, payload)) == expected
    assert bool(expected) is (expected != NOTHING)


@given(st.integers(0, 40), st.binary(max_size=80))
def test_any_message_is_survived(kind: int, payload: bytes) -> None:
    found = change(Message(kind, 0, payload))
    assert found.networks <= EVERYWHERE or kind in (NEW_ROUTE, DEL_ROUTE)


def test_so_many_networks_that_they_are_all() -> None:
    """Memory stays small, whatever a routing daemon does."""
    found = NOTHING
    for number in range(MOST_NETWORKS):
        found |= Changes(frozenset[Network]({IPv4Network((0x0A000000 + number, 32))}))
    assert len(found.networks) == MOST_NETWORKS
    assert found | Changes(frozenset[Network]({DOC}), less=True) == ANYTHING

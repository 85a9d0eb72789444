"""The framing of netlink: messages in a datagram, attributes in a message."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""

_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_TYPE = 0x3FFF  # the two upper bits are flags (nested, network byte order)


class Message(NamedTuple):
    """One netlink message: its type, its flags, its payload."""

    type: int
    flags: int
    payload: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The netlink messages in one datagram; stops at the first that is malformed or cut short."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, _sequence, _port = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            return
        yield Message(kind, flags, data[at + HEADER.size : at + length])
        at += length + 3 & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes after a message's fixed part, by type, the first of each; stops at a malformed one."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found.setdefault(kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length])
        at += length + 3 & ~3
    return found

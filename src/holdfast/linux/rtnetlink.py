"""Netlink ``route``: that addresses, routes or links of a network namespace have changed; needs no rights."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import socket
import struct
import weakref
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from holdfast.linux.netlink import Message, attributes, messages

Network = IPv4Network | IPv6Network

EVERYWHERE: frozenset[Network] = frozenset({IPv4Network("0.0.0.0/0"), IPv6Network("::/0")})
MOST_NETWORKS = 256
"""Where more changed than this at once, everything counts as changed."""

_RECEIVE_BYTES, _MOST_DATAGRAMS = 1 << 15, 1024

# linux/rtnetlink.h: groups by number, then types of message.
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE = 1, 5, 7, 8, 9, 11, 19
_GROUPS = sum(
    1 << (group - 1)
    for group in (_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE)
)
_NEW_LINK, _DEL_LINK, _DEL_ADDRESS, _NEW_ROUTE, _DEL_ROUTE, _NEW_RULE, _DEL_RULE = 16, 17, 21, 24, 25, 32, 33

_ROUTE = struct.Struct("=8BI")  # struct rtmsg
_DESTINATION = 1
_UNICAST, _BLACKHOLE = 1, 6  # from 2 to 5: local, broadcast, anycast and multicast
_CLONED = 0x200
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg
_LOWER_UP = 0x10000


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed.

    Attributes:
        networks: whatever is sent to these may take another way now.
        less: an address or a link is gone, or a link does not carry. Linux drops the IPv4 routes of a link
            that goes down without a word of its own on each.
    """

    networks: frozenset[Network] = frozenset()
    less: bool = False

    def __bool__(self) -> bool:
        return self.less or bool(self.networks)

    def __or__(self, other: Changes) -> Changes:
        networks = self.networks | other.networks
        if len(networks) > MOST_NETWORKS:
            networks = EVERYWHERE
        return Changes(networks, self.less or other.less)


ANYTHING = Changes(EVERYWHERE, less=True)
"""Nobody knows what."""

NOTHING = Changes()


def change(message: Message) -> Changes:
    """What one message tells; nothing if it is none of those that matter.

    A new address or link takes nothing away, and the routes that come with it are told by themselves.
    """
    kind, payload = message.type, message.payload
    if kind in (_NEW_RULE, _DEL_RULE):
        return Changes(EVERYWHERE)
    if kind in (_DEL_ADDRESS, _DEL_LINK):
        return Changes(less=True)
    if kind == _NEW_LINK and len(payload) >= _IFINFO.size:
        family, _kind, _index, flags, _changed = _IFINFO.unpack_from(payload)
        return Changes(less=family == socket.AF_UNSPEC and not flags & _LOWER_UP)
    if kind in (_NEW_ROUTE, _DEL_ROUTE) and len(payload) >= _ROUTE.size:
        return _route(payload)
    return NOTHING


def _route(payload: bytes) -> Changes:
    family, bits, _source, _tos, _table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(payload)
    length = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
    if length is None or flags & _CLONED or _UNICAST < kind < _BLACKHOLE:
        return NOTHING
    where = attributes(payload[_ROUTE.size :]).get(_DESTINATION, bytes(length))
    if len(where) != length or bits > 8 * length:
        return NOTHING
    return Changes(frozenset({ip_network((where, bits), strict=False)}))


class RouteChanges:
    """The changes in the network namespace of the thread that makes this.

    Attributes:
        close: stop listening; so does whoever forgets this.

    Raises:
        OSError: such sockets are refused here (a sandbox), or there are too many files.
    """

    def __init__(self) -> None:
        self.sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self.sock.bind((0, _GROUPS))
        except OSError:
            self.sock.close()
            raise
        self.close = weakref.finalize(self, self.sock.close)

    def read(self) -> Changes:
        """What changed since this was last called; never waits. What the kernel had to drop is anything.

        Raises:
            OSError: nothing more will be told.
        """
        found = NOTHING
        for _ in range(_MOST_DATAGRAMS):
            try:
                data, _control, flags, (port, _groups) = self.sock.recvmsg(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = ANYTHING
                continue
            if port != 0:  # not the kernel
                continue
            if flags & socket.MSG_TRUNC:
                found = ANYTHING
            if found != ANYTHING:
                for message in messages(data):
                    found |= change(message)
        return ANYTHING  # the rest is read the next time

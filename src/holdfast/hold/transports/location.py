"""Where a server is reached past what stands before it: what it may announce, and what a client follows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import socket

from holdfast.errors import UsageError
from holdfast.hold.race import Address
from holdfast.hold.transports.target import Target, is_loopback
from holdfast.hold.transports.trust import check_plain

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def announced(url: str, serving: Target, key: bytes) -> tuple[bytes, int]:
    """What a server tells its clients: its address, 4 or 16 octets, and port; 0: that at which it listens.

    Args:
        url: as it is given to ``serve``.
        serving: what is served.
        key: the pre-shared key, or NO_KEY.

    Raises:
        UsageError: clients could not follow it, or it would not be safe.
    """
    if not isinstance(url, str):
        raise UsageError(f"location is a {type(url).__name__}: give a URL, such as tls://192.0.2.7:9000.")
    if serving.scheme == "unix":
        raise UsageError("A Unix socket leads to one process only: it has no use for location=.")
    target = Target.parse(url)
    if target.scheme != serving.scheme:
        raise UsageError(
            f"location={url!r} is of another kind than what is served: give {serving.scheme}://address:port."
        )
    try:
        ip = ipaddress.ip_address(target.host)
    except ValueError:
        raise UsageError(
            f"location={url!r} has a name: give the address, since clients look up nothing for a server."
        ) from None
    if not _reaches(ip):
        raise UsageError(f"location={url!r} leads no client here: give an address of this host's own.")
    check_plain(target.host, key)
    return ip.packed, target.port


def followed(told: tuple[bytes, int], plain: bool, last: Address | None) -> Address | None:
    """The address that a client dials for a location; None: it does not follow this one.

    Args:
        told: address, 4 or 16 octets, and port.
        plain: the session has neither TLS nor a key.
        last: what carried the session last.
    """
    ip, port = ipaddress.ip_address(told[0]), told[1]
    if not _reaches(ip):
        return None
    # What listens on this host only is none of another host's business.
    if is_loopback(str(ip)):
        if last is None or not is_loopback(last.sockaddr[0]):
            return None
    elif plain:
        return None
    if ip.version == 4:
        return Address(socket.AF_INET, (str(ip), port))
    return Address(socket.AF_INET6, (str(ip), port, 0, 0))  # as a lookup gives it


def _reaches(ip: IP) -> bool:
    """Whether an address can be one host's own, wherever it is dialled from.

    Link-local ones mean another host on each link; there, the clouds' hosts ask for their credentials.
    """
    mapped = getattr(ip, "ipv4_mapped", None)
    found = mapped or ip
    scoped = getattr(ip, "scope_id", None) is not None
    return not (scoped or found.is_unspecified or found.is_multicast or found.is_link_local)

"""Where a session goes to or is served, as a URL; touches no socket."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import os
from collections.abc import Hashable
from dataclasses import dataclass
from urllib.parse import urlsplit

from holdfast.errors import UsageError
from holdfast.hold.resolve import name_of_host


@dataclass(frozen=True, slots=True)
class Target:
    """``tcp://host:port``, ``tls://host:port`` or ``unix:///path``.

    Attributes:
        scheme: one of the three.
        host: name or address; empty for a Unix socket.
        port: 0 where a server lets the kernel choose.
        path: of a Unix socket; ``@`` at its beginning stands for the abstract namespace.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Target:
        """The target of a URL.

        Raises:
            UsageError: it is none, with what is wrong.
        """
        if url.startswith("unix://"):
            path = url.removeprefix("unix://")
            if not path or "\0" in path or len(os.fsencode(path)) > 107:  # struct sockaddr_un
                raise UsageError(f"{url!r} needs a path of 1 to 107 bytes: unix:///run/name.sock")
            if path[0] not in "/@":
                raise UsageError(
                    f"{url!r} needs a path from the root, or a name: unix:///{path}, unix://@{path}"
                )
            return cls("unix", path=path)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            bare_v6 = " (an IPv6 address stands in brackets)" if url.count(":") > 2 and "[" not in url else ""
            raise UsageError(f"{url!r} is no URL of a session: {error}{bare_v6}.") from error
        if parts.scheme not in ("tcp", "tls"):
            raise UsageError(
                f"{url!r} is no URL of a session: tls://host:port, tcp://host:port, unix:///path."
            )
        if parts.query or parts.fragment or parts.username is not None:
            raise UsageError(f"{url!r} has more than a host and a port: give the rest as arguments.")
        if not host or "\0" in host or port is None or parts.path not in ("", "/"):
            raise UsageError(f"{url!r} needs a host and a port: {parts.scheme}://host:port")
        return cls(parts.scheme, name_of_host(host), port)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def remote(self) -> bool:
        """Whether it may lie beyond this machine."""
        return self.scheme != "unix" and self.host != "localhost" and not is_loopback(self.host)

    @property
    def sockaddr(self) -> str | bytes:
        """What a Unix socket binds or connects to."""
        return b"\0" + os.fsencode(self.path[1:]) if self.path.startswith("@") else self.path


def origin(ip: str) -> Hashable:
    """What one host is taken to have: an IPv4 address, or the first 64 bits of an IPv6 address.

    A host can have all addresses of a subnet, and a subnet has 64 bits for them (RFC 4291 section 2.5.4).
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.packed[:8]
    return address


def is_loopback(ip: str) -> bool:
    """Whether an address never leaves this host."""
    try:
        found = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)

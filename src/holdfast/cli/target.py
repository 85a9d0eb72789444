"""What ``HOST:PORT`` means: which sockets have it at either end."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from holdfast.cli.render import printable
from holdfast.errors import UsageError
from holdfast.linux.sock_diag import Socket

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})
_EVERY = "*"


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses and a port, as they were asked for.

    Attributes:
        words: as they were written.
        hosts: any of these addresses, None for every.
        port: None for every.
        ours: whether an address is this host's own, so that a listener on every address serves it.
    """

    words: str
    hosts: frozenset[str] | None
    port: int | None
    ours: bool

    def matches(self, sock: Socket) -> bool:
        """Whether either end of a socket is meant."""
        if self._means(sock.local_ip, sock.local_port) or self._means(sock.peer_ip, sock.peer_port):
            return True
        listens = sock.state == "LISTEN" and sock.local_ip in _EVERY_ADDRESS
        return listens and self.ours and self.port in (None, sock.local_port)

    def _means(self, ip: str, port: int) -> bool:
        return self.port in (None, port) and (self.hosts is None or ip in self.hosts)


def parse(words: str) -> Target:
    """``HOST:PORT``, ``[v6]:PORT``, ``:PORT`` or ``PORT``; ``*`` is every host or port, names are looked up.

    Raises:
        UsageError: it is none of these, or a name is not known.
    """
    host, port_words = _split(words)
    port = _port(port_words, words)
    if host in ("", _EVERY):
        return Target(words, None, port, True)
    hosts = _addresses(host)
    return Target(words, hosts, port, any(_is_ours(one) for one in hosts))


def _split(words: str) -> tuple[str, str]:
    shown = printable(words)
    if words.startswith("["):
        host, bracket, rest = words[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise UsageError(f"'{shown}' is no address: write [ADDRESS]:PORT.")
        return host, rest[1:]
    if words.count(":") > 1:
        raise UsageError(f"'{shown}' has no clear end: write an IPv6 address in brackets, [ADDRESS]:PORT.")
    host, colon, port = words.rpartition(":")
    if not colon and not words.isdecimal():
        raise UsageError(f"'{shown}' has no port: write HOST:PORT, or HOST:* for every port.")
    return host, port


def _port(words: str, whole: str) -> int | None:
    if words == _EVERY:
        return None
    if words.isascii() and words.isdecimal():
        digits = words.lstrip("0")
        if digits and len(digits) <= 5 and int(digits) <= 65535:
            return int(digits)
        raise UsageError(f"port {printable(words[:20])} is not between 1 and 65535.")
    try:
        return socket.getservbyname(words, "tcp")
    except (OSError, UnicodeError, ValueError) as error:
        raise UsageError(
            f"'{printable(whole)}' has no port: '{printable(words)}' is no known service."
        ) from error


def _addresses(host: str) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name"
        raise UsageError(f"the host '{printable(host)}' cannot be found ({why}).") from error
    return frozenset(_plain(str(address[0])) for *_, address in found)


def _plain(address: str) -> str:
    """An address as the socket list writes it: no zone, no IPv4 inside IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True

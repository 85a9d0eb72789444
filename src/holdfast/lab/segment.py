"""TCP segments made by hand, whole IP datagrams with right checksums, and read back from a capture."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from holdfast.events import Endpoint

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP = 6
MODULUS = 1 << 32


@dataclass(frozen=True, slots=True)
class Datagram:
    """One TCP segment with the fields of its IP header that tell who sent it; ``ip_id`` is None for IPv6."""

    src: Endpoint
    dst: Endpoint
    flags: int
    seq: int = 0
    ack: int = 0
    window: int = 0
    ttl: int = 64
    ip_id: int | None = 0
    options: bytes = b""
    payload: bytes = b""


def timestamps(value: int, echo: int) -> bytes:
    """The Timestamps option, padded (RFC 7323 3.2)."""
    return struct.pack("!BBBBII", 1, 1, 8, 10, value, echo)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(made: Datagram) -> bytes:
    """The octets of a datagram; sequence numbers wrap."""
    src, dst = (ip_address(end.ip).packed for end in (made.src, made.dst))
    options = made.options + b"\0" * (-len(made.options) % 4)
    head = struct.pack(
        "!HHIIBBHHH", made.src.port, made.dst.port, made.seq % MODULUS, made.ack % MODULUS,
        (20 + len(options)) // 4 << 4, made.flags, made.window, 0, 0,
    )  # fmt: skip
    segment = head + options + made.payload
    pseudo = src + dst + struct.pack("!II", len(segment), TCP)
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    if len(src) == 16:
        return struct.pack("!IHBB", 6 << 28, len(segment), TCP, made.ttl) + src + dst + segment
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), made.ip_id or 0, 0x4000, made.ttl, TCP, 0)
    ip += src + dst
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + segment


def parse(data: bytes) -> Datagram | None:
    """The TCP segment in an IP datagram, or None if there is none; the payload may be cut short."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 40 and data[9] == TCP:
        at, ip_id, ttl = (data[0] & 15) * 4, struct.unpack_from("!H", data, 4)[0], data[8]
        src, dst, end = data[12:16], data[16:20], struct.unpack_from("!H", data, 2)[0]
    elif version == 6 and len(data) >= 60 and data[6] == TCP:
        at, ip_id, ttl = 40, None, data[7]
        src, dst, end = data[8:24], data[24:40], 40 + struct.unpack_from("!H", data, 4)[0]
    else:
        return None
    sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", data, at)
    body = at + (offset >> 4) * 4
    return Datagram(
        Endpoint(str(ip_address(src)), sport), Endpoint(str(ip_address(dst)), dport), flags, seq, ack,
        window, ttl, ip_id, data[at + 20 : body], data[body:end],
    )  # fmt: skip

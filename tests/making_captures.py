"""Makes frames and capture files, byte by byte, for the tests of captures."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN

CLIENT, SERVER = ("192.0.2.1", 40000), ("198.51.100.7", 443)
CLIENT_6, SERVER_6 = ("2001:db8::1", 40000), ("2001:db8:ffff::7", 443)

TIMESTAMP = b"\x01\x01\x08\x0a" + struct.pack("!II", 1000, 2000)
SYN_OPTIONS = b"\x02\x04\x05\xb4\x04\x02" + TIMESTAMP[2:] + b"\x01\x03\x03\x07"
ETHERNET, RAW, COOKED, COOKED_2, NULL, LOOP = 1, 101, 113, 276, 0, 108


@dataclass(frozen=True, slots=True)
class Record:
    """One captured packet: nanoseconds, the bytes that were kept, the length on the wire."""

    time_ns: int
    data: bytes
    wire_bytes: int | None = None
    interface: int = 0

    @property
    def original(self) -> int:
        return len(self.data) if self.wire_bytes is None else self.wire_bytes


def tcp(
    source: tuple[str, int],
    target: tuple[str, int],
    flags: int,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    *,
    window: int = 512,
    options: bytes = b"",
) -> bytes:
    """A TCP segment; options are padded with zeros."""
    options += b"\0" * (-len(options) % 4)
    word = (5 + len(options) // 4) << 12 | flags
    ports = struct.pack("!HH", source[1], target[1])
    return ports + struct.pack("!IIHHHH", seq, ack, word, window, 0, 0) + options + payload


def ipv4(
    source: str,
    target: str,
    body: bytes,
    *,
    proto: int = 6,
    ttl: int = 64,
    ip_id: int = 0,
    fragment: int = 0x4000,
    total: int | None = None,
) -> bytes:
    """An IPv4 packet; ``fragment`` is the field with DF and the offset."""
    length = 20 + len(body) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x45, 0, length & 0xFFFF, ip_id, fragment, ttl, proto, 0)
    return head + ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed + body


def ipv6(source: str, target: str, body: bytes, *, proto: int = 6, ttl: int = 64) -> bytes:
    """An IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28, len(body) & 0xFFFF, proto, ttl)
    return head + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed + body


def ethernet(body: bytes, kind: int | None = None) -> bytes:
    """An Ethernet frame around an IP packet (or anything, with its type)."""
    if kind is None:
        kind = 0x86DD if body[0] >> 4 == 6 else 0x0800
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + struct.pack("!H", kind) + body


def segment(source: tuple[str, int], target: tuple[str, int], flags: int, **fields: object) -> bytes:
    """A TCP segment in IP, by its addresses IPv4 or IPv6; fields of tcp(), ipv4() or ipv6()."""
    of_tcp = {key: fields.pop(key) for key in list(fields) if key in _OF_TCP}
    body = tcp(source, target, flags, **of_tcp)  # type: ignore[arg-type]  # checked by the tests themselves
    wrap = ipv6 if ":" in source[0] else ipv4
    return wrap(source[0], target[0], body, **fields)  # type: ignore[operator,no-any-return]


_OF_TCP = {"seq", "ack", "payload", "window", "options"}


def conversation(
    client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER, *, start_ns: int = 10**18
) -> list[Record]:
    """Handshake, a request, a reply and a RST of the server: seven frames, 10 ms apart."""
    up = {"ttl": 64}
    down = {"ttl": 57}
    parts = [
        segment(client, server, SYN, seq=100, options=SYN_OPTIONS, window=64240, **up),
        segment(server, client, SYN | ACK, seq=900, ack=101, options=SYN_OPTIONS, window=65160, **down),
        segment(client, server, ACK, seq=101, ack=901, options=TIMESTAMP, **up),
        segment(client, server, PSH | ACK, seq=101, ack=901, payload=b"GET / HTTP/1.1\r\n\r\n", **up),
        segment(server, client, ACK, seq=901, ack=119, options=TIMESTAMP, **down),
        segment(server, client, PSH | ACK, seq=901, ack=119, payload=b"HTTP/1.1 200 OK\r\n\r\n", **down),
        segment(server, client, RST | ACK, seq=920, ack=119, options=TIMESTAMP, **down),
    ]
    return [Record(start_ns + 10_000_000 * place, ethernet(part)) for place, part in enumerate(parts)]


def closing(client: tuple[str, int] = CLIENT, server: tuple[str, int] = SERVER) -> list[Record]:
    """What follows the six first frames of a conversation that ends well."""
    parts = [
        segment(server, client, FIN | ACK, seq=920, ack=119, ttl=57),
        segment(client, server, FIN | ACK, seq=119, ack=921),
        segment(server, client, ACK, seq=921, ack=120, ttl=57),
    ]
    return [Record(10**18 + 10_000_000 * place, ethernet(part)) for place, part in enumerate(parts, 6)]


def pcap(records: Iterable[Record], *, link: int = ETHERNET, order: str = "<", kind: str = "us") -> bytes:
    """A pcap file: ``kind`` is us, ns or modified."""
    magic = {"us": 0xA1B2C3D4, "ns": 0xA1B23C4D, "modified": 0xA1B2CD34}[kind]
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for one in records:
        seconds, rest_ns = divmod(one.time_ns, 10**9)
        part = rest_ns if kind == "ns" else rest_ns // 1000
        out.append(struct.pack(f"{order}IIII", seconds, part, len(one.data), one.original))
        if kind == "modified":
            out.append(struct.pack(f"{order}IHBB", 1, 0x0800, 0, 0))
        out.append(one.data)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of a pcapng file."""
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """The block that opens a section."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """An option of a block."""
    return struct.pack(f"{order}HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def interface(
    link: int = ETHERNET, *, order: str = "<", resolution: int | None = None, offset_s: int = 0, snap: int = 0
) -> bytes:
    """The block that describes an interface; ``resolution`` as if_tsresol has it."""
    options = b""
    if resolution is not None:
        options += option(9, bytes([resolution]), order)
    if offset_s:
        options += option(14, struct.pack(f"{order}q", offset_s), order)
    return block(1, struct.pack(f"{order}HHI", link, 0, snap) + options + option(0, b"", order), order)


def enhanced(record: Record, *, ticks_per_s: int = 10**6, offset_s: int = 0, order: str = "<") -> bytes:
    """The block of one packet."""
    ticks = (record.time_ns - offset_s * 10**9) * ticks_per_s // 10**9
    head = struct.pack(
        f"{order}IIIII", record.interface, ticks >> 32, ticks & 0xFFFFFFFF, len(record.data), record.original
    )
    return block(6, head + record.data, order)


def simple(record: Record, order: str = "<") -> bytes:
    """The block of one packet that has no time."""
    return block(3, struct.pack(f"{order}I", record.original) + record.data, order)


def pcapng(records: Iterable[Record], *, order: str = "<") -> bytes:
    """A pcapng file with one Ethernet interface."""
    return section(order) + interface(order=order) + b"".join(enhanced(one, order=order) for one in records)


def statistics(dropped: int, *, interface: int = 0, order: str = "<") -> bytes:
    """The block in which a capturing program says what it lost."""
    body = struct.pack(f"{order}III", interface, 0, 0) + option(5, struct.pack(f"{order}Q", dropped), order)
    return block(5, body + option(0, b"", order), order)

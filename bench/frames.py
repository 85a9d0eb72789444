"""Ready-made Ethernet frames for ``flood``: TCP segments over IPv4 with right checksums."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable

from bench.network import SOURCE_IP, SOURCE_MAC, TARGET_IP, TARGET_MAC

SYN, ACK = 0x02, 0x10
CLOSED_PORT = 9

_ETHERNET = bytes.fromhex((TARGET_MAC + SOURCE_MAC).replace(":", "")) + b"\x08\x00"
_SOURCE, _TARGET = socket.inet_aton(SOURCE_IP), socket.inet_aton(TARGET_IP)


def frame(source_port: int, target_port: int, seq: int, ack: int, flags: int) -> bytes:
    """A segment without options or payload, from source to target."""
    tcp = struct.pack("!HHIIBBHHH", source_port, target_port, seq, ack, 5 << 4, flags, 64240, 0, 0)
    pseudo = _SOURCE + _TARGET + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + _checksum(pseudo + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
    ip += _SOURCE + _TARGET
    return _ETHERNET + ip[:10] + _checksum(ip) + ip[12:] + tcp


def pack(frames: Iterable[bytes]) -> bytes:
    """Frames as ``flood`` reads them."""
    return b"".join(struct.pack("=H", len(one)) + one for one in frames)


def syn_flood() -> bytes:
    """SYNs to a closed port, each from another port; every one draws a RST."""
    chance = random.Random(1)
    return pack(
        frame(port, CLOSED_PORT, chance.getrandbits(32), 0, SYN)
        for port in chance.sample(range(1024, 65536), 60000)
    )


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)

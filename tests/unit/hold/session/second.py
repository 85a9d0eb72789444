# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the session protocol, written from docs/reference/protocol.md and the .proto
files alone; it imports nothing of Holdfast. It follows a published conversation from the private keys on:
finds every proof and key by itself, opens every frame, and keeps what an end would know of its session.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

L = b"holdfast session 1 "
HELLO, WELCOME, RESUME, RESUME_OK, PROOF, CONFIRM, REFUSED = range(1, 8)
ASK = 1
DATA, FIN, ACK, RESET, RESET_OK, CLOSE, CLOSE_OK = range(16, 23)
PING, PONG, GOAWAY = 32, 33, 34
UNKNOWN = 1


def fields(message: bytes) -> dict[int, Any]:
    """A protobuf message of numbers and byte strings, by field number; of repeated ones the last."""
    found: dict[int, Any] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            octet = message[at]
            at += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while at < len(message):
        number, wire_type = divmod(varint(), 8)
        value: Any = varint()
        if wire_type == 2:
            value, at = message[at : at + value], at + value
        found[number] = value
    return found


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(key: bytes, info: bytes) -> bytes:
    """RFC 5869, section 2.3, the first block."""
    return mac(key, info + b"\x01")


def frames(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """Kind, handle, header, payload."""
    found = []
    while data:
        kind, _, _, handle, length = struct.unpack(">BBHII", data[:12])
        found.append((kind, handle, data[:12], data[12 : 12 + length]))
        data = data[12 + length :]
    return found


@dataclass
class End:
    """What is known of one end of a session."""

    said: bytes = b""
    confirmed: int = 0
    limit: int = 0
    fin: int | None = None
    closed: bool = False
    asks: bool = False
    answered: int = 0


@dataclass
class Follower:
    """Follows a conversation.

    Attributes:
        keys: of the session, by generation.
        locations: where the server said that it is, on each transport: address and port.
        seen: the kinds of all frames, in order, each with who sent it.
    """

    told: dict[str, Any]
    keys: list[bytes] = field(default_factory=list)
    locations: list[tuple[bytes, int]] = field(default_factory=list)
    seen: list[tuple[str, int]] = field(default_factory=list)
    ends: dict[str, End] = field(default_factory=lambda: {"client": End(), "server": End()})
    refused: dict[int, Any] | None = None

    def follow(self) -> Follower:
        """All of it; raises where it is not what the specification says."""
        for transport in self.told["transports"]:
            self._transport(transport)
        return self

    def _transport(self, told: dict[str, Any]) -> None:
        psk, mode = bytes.fromhex(self.told["psk"]), self.told["mode"].encode()
        transcript = L + bytes([len(mode)]) + mode + bytes.fromhex(self.told["binding"])
        private = {who: bytes.fromhex(told[f"{who}_private_key"]) for who in ("client", "server")}
        ciphers: dict[str, ChaCha20Poly1305] = {}
        numbers = {"client": 0, "server": 0}
        master = t = secret = b""
        proofs = 0  # how many went by
        expected = {1: b"", 2: b"", 3: b""}
        generation = 0
        for flight in told["flights"]:
            who = flight["from"]
            for kind, handle, head, payload in frames(bytes.fromhex(flight["bytes"])):
                self.seen.append((who, kind))
                first_of_client = who == "client" and kind == CONFIRM
                if mode == b"psk" and master and (who in ciphers or first_of_client or proofs == 3):
                    cipher = ciphers.setdefault(
                        who, ChaCha20Poly1305(expand(master, L + who.encode() + b" traffic " + t))
                    )
                    payload = cipher.decrypt(numbers[who].to_bytes(12, "big"), payload, head)
                    numbers[who] += 1
                if kind > REFUSED:
                    self._frame(who, kind, head[1], handle, payload)
                    continue
                message = fields(payload)
                plain = struct.pack(">BBHII", kind, 0, 0, 0, len(payload)) + payload
                if kind in (PROOF, CONFIRM):
                    proofs += 1
                    assert message[1] == expected[proofs], (flight["what"], proofs)
                transcript += plain
                digest = hashlib.sha256(transcript).digest()
                if kind in (HELLO, RESUME):
                    assert message[3] == public_of(private["client"])
                    generation = message.get(5, 0) if kind == RESUME else 0
                    secret = self.keys[generation - 1] if kind == RESUME else psk
                    expected[1] = mac(expand(secret, L + b"opening"), digest)
                elif kind in (WELCOME, RESUME_OK):
                    assert message[3 if kind == WELCOME else 2] == public_of(private["server"])
                    shared = X25519PrivateKey.from_private_bytes(private["server"]).exchange(
                        X25519PublicKey.from_public_bytes(public_of(private["client"]))
                    )
                    master, t = mac(secret, shared), digest
                    if where := fields(message.get(9 if kind == WELCOME else 8, b"")):
                        self.locations.append((where[1], where[2]))
                    expected[2] = mac(expand(master, L + b"server proof " + t), t)
                elif kind == REFUSED:
                    self.refused = message
                    expected[2] = mac(expand(psk, L + b"refusal"), digest)
                elif kind == PROOF and proofs == 2 and master:
                    expected[3] = mac(expand(master, L + b"client proof " + t), digest)
                    if generation:
                        self.keys.append(expand(self.keys[generation - 1], L + b"generation"))
                    else:
                        self.keys.append(expand(master, L + b"session " + t))
        assert proofs == (2 if self.refused else 3)

    def _frame(self, who: str, kind: int, flags: int, handle: int, payload: bytes) -> None:
        me, peer = self.ends[who], self.ends["server" if who == "client" else "client"]
        if kind == DATA:
            (offset,) = struct.unpack(">Q", payload[:8])
            data = payload[8:]
            assert offset <= len(me.said) and data, "a gap"
            assert me.said[offset : offset + len(data)] == data[: len(me.said) - offset], "other bytes"
            me.said += data[len(me.said) - offset :]
            assert me.limit == 0 or len(me.said) <= me.limit, "over the credit"
        elif kind == FIN:
            assert struct.unpack(">Q", payload) == (len(me.said),)
            me.fin = len(me.said)
        elif kind in (ACK, PING, PONG):
            if kind == ACK:
                upto, limit = struct.unpack(">QQ", payload)
                me.asks = me.asks or bool(flags & ASK)
                if peer.asks and not flags & ASK and upto == len(peer.said):
                    peer.asks, peer.answered = False, peer.answered + 1
            else:
                upto, limit = fields(payload).get(2, 0), fields(payload).get(3, 0)
            if handle:
                end = len(peer.said) + (peer.fin is not None)
                assert peer.confirmed <= upto <= end and limit >= peer.limit
                peer.confirmed, peer.limit = upto, limit
        elif kind in (CLOSE, CLOSE_OK):
            for end in (me, peer):
                assert end.fin is not None
            assert me.confirmed == len(me.said) + 1 or kind == CLOSE_OK
            me.closed = True


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

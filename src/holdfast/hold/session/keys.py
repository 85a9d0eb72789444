"""Keys and proofs: what each end must know, and what it shows to prove it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import Buffer, header

KEY_BYTES = NONCE_BYTES = MAC_BYTES = 32
ID_BYTES = 16
TAG_BYTES = 16
ENTROPY_BYTES = KEY_BYTES + NONCE_BYTES
"""What one end needs for one handshake: a private key and a nonce."""

LABEL = b"holdfast session 1 "
NO_KEY = bytes(KEY_BYTES)
"""In the place of a pre-shared key where there is none."""


class Pair(Protocol):
    """One end's keys for one Diffie-Hellman exchange.

    Attributes:
        public: what the peer is told.
    """

    public: bytes

    def shared(self, public: bytes) -> bytes:
        """What both ends share, from the peer's public key."""


Agreement = Callable[[bytes], Pair]
"""A Diffie-Hellman function, from a private key on. The simulator has a quicker one that keeps no secrets."""


class X25519:
    """RFC 7748, by OpenSSL."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def shared(self, public: bytes) -> bytes:
        """What both ends share, from the peer's public key.

        Raises:
            Violation: that is no public key, or one with which nothing would be secret.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise Violation(Code.MALFORMED, "a public key") from error


# As of 50.0, cryptography loads its OpenSSL only with the first key, which would be within the event loop.
X25519(bytes(KEY_BYTES))


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract of RFC 5869 with SHA-256."""
    return hmac.digest(salt, secret, "sha256")


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-256, for the 32 bytes of one block."""
    return hmac.digest(key, info + b"\x01", "sha256")


def mac(key: bytes, digest: bytes) -> bytes:
    """HMAC-SHA256 over the digest of a transcript."""
    return hmac.digest(key, digest, "sha256")


def check(expected: bytes, shown: bytes) -> bool:
    """Whether two MACs are the same, in a time that says nothing."""
    return hmac.compare_digest(expected, shown)


def opening_key(secret: bytes) -> bytes:
    """With what a client proves in its first flight that it knows the secret."""
    return expand(secret, LABEL + b"opening")


def refusal_key(psk: bytes) -> bytes:
    """With what a server proves that a refusal is its own."""
    return expand(psk, LABEL + b"refusal")


def next_key(key: bytes) -> bytes:
    """A session's key of the next generation. There is no way back."""
    return expand(key, LABEL + b"generation")


class Transcript:
    """Everything that both ends said, in order, bound to the channel on which they said it."""

    def __init__(self, mode: bytes, binding: bytes) -> None:
        self._hash = hashlib.sha256(LABEL + bytes([len(mode)]) + mode + binding)

    def add(self, kind: int, payload: Buffer) -> bytes:
        """One more frame; the digest after it. The handle is left out: it only says where an answer goes."""
        self._hash.update(header(kind, 0, len(payload)))
        self._hash.update(payload)
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What comes out of a handshake.

    Attributes:
        server_proof, client_proof: keys of the second and the third proof.
        client_traffic, server_traffic: keys of what each end sends on this transport.
        session: the key of a new session.
    """

    server_proof: bytes
    client_proof: bytes
    client_traffic: bytes
    server_traffic: bytes
    session: bytes

    @classmethod
    def derive(cls, secret: bytes, shared: bytes, digest: bytes) -> Secrets:
        """From the secret of before, the secret of the key agreement and the transcript of both."""
        master = extract(secret, shared)
        words = (b"server proof", b"client proof", b"client traffic", b"server traffic", b"session")
        return cls(*(expand(master, LABEL + word + b" " + digest) for word in words))


class Seal:
    """ChaCha20-Poly1305 (RFC 8439) for one direction of one transport; the nonce is the frame's number."""

    __slots__ = ("_cipher", "_number")

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._number = 0

    def _nonce(self) -> bytes:
        self._number += 1
        return (self._number - 1).to_bytes(12, "big")

    def close(self, kind: int, handle: int, payload: Buffer, flags: int = 0) -> bytes:
        """A whole frame with its payload sealed."""
        head = header(kind, handle, len(payload) + TAG_BYTES, flags)
        return head + self._cipher.encrypt(self._nonce(), payload, head)

    def open(self, head: bytes, payload: Buffer) -> bytes:
        """The payload of a frame.

        Raises:
            Violation: it was changed, came twice, or in another order.
        """
        try:
            return self._cipher.decrypt(self._nonce(), payload, head)
        except InvalidTag as error:
            raise Violation(Code.BAD_SEAL) from error

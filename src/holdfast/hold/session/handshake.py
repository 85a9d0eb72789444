"""The first frames for a session on a transport: both ends prove what they know before anything changes.

Three flights: what the client wants, with a proof; what the server offers, with a proof; the client's
confirmation. Only that last one has an effect, so a first flight that comes twice, or is played back by
somebody else, does nothing.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import Buffer, Kind
from holdfast.hold.session.keys import (
    MAC_BYTES,
    Agreement,
    Secrets,
    Transcript,
)
from holdfast.hold.wire.session_pb2 import (
    Position,
    Proof,
)

_M = TypeVar("_M", bound=Message)

Said = list[tuple[Kind, bytes]]
"""Frames to send, in order, before anything else on this handle."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What a handshake is bound to, so that nothing of it can be used elsewhere.

    Attributes:
        mode: ``psk`` (frames are sealed), ``tls``, ``unix`` or ``plain``.
        binding: what only this channel has: with TLS the hash of the server's certificate.
        psk: the pre-shared key, 32 zero octets if there is none.
        agreement: the key agreement.
        entropy: so many random octets.
    """

    mode: str
    binding: bytes
    psk: bytes
    agreement: Agreement
    entropy: Callable[[int], bytes]

    @property
    def sealed(self) -> bool:
        """Whether frames are sealed: where nothing below does it."""
        return self.mode == "psk"

    def transcript(self) -> Transcript:
        """An empty one."""
        return Transcript(self.mode.encode(), self.binding)


@dataclass(frozen=True, slots=True)
class Agreed:
    """The end of a handshake that went well.

    Attributes:
        session: which.
        secrets: the keys of this transport.
        epoch: the transport's number.
        position: the peer's; None in a new session.
        limit, frame_bytes: what the peer takes; 0: as it said before.
        heartbeat: its terms, as they travel.
        transport_limit: its credit for the transport as a whole; 0: it sets none.
    """

    session: Session
    secrets: Secrets
    epoch: int
    position: Position | None
    limit: int
    frame_bytes: int
    heartbeat: bytes
    transport_limit: int


@dataclass(frozen=True, slots=True)
class Denied:
    """The server refused, and proved that it was the server."""

    reason: int
    retry_after_s: float
    restarted: bool
    next: int | None


def parsed(kind: type[_M], payload: Buffer) -> _M:
    """A message of the peer's; fields that we do not know are kept in it.

    Raises:
        Violation: it is none.
    """
    try:
        message = kind()
        message.ParseFromString(bytes(payload))
    except DecodeError as error:
        raise Violation(Code.MALFORMED, kind.__name__) from error
    return message


def sized(value: bytes, size: int, what: str) -> bytes:
    """The value, if it has its size.

    Raises:
        Violation: it has not.
    """
    if len(value) != size:
        raise Violation(Code.MALFORMED, f"a {what} of {len(value)} bytes")
    return value


# Rule: what each end takes in each step of a handshake; anything else is out of place.
EXPECTED: dict[str, frozenset[Kind]] = {
    "client asked": frozenset({Kind.WELCOME, Kind.RESUME_OK, Kind.REFUSED}),
    "client was offered": frozenset({Kind.PROOF}),
    "client was refused": frozenset({Kind.PROOF}),
    "client confirmed": frozenset(),
    "server waits": frozenset({Kind.HELLO, Kind.RESUME}),
    "server was asked": frozenset({Kind.PROOF}),
    "server offered": frozenset({Kind.CONFIRM}),
    "server agreed": frozenset(),
    "over": frozenset(),
}


def proof_frame(digest_mac: bytes) -> bytes:
    """The payload of PROOF and CONFIRM."""
    return Proof(mac=digest_mac).SerializeToString()


def proof_of(payload: Buffer) -> bytes:
    """The MAC in one.

    Raises:
        Violation: there is none.
    """
    return sized(parsed(Proof, payload).mac, MAC_BYTES, "MAC")

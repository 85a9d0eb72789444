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
from holdfast.hold.session.core import Session, Why
from holdfast.hold.session.frames import Buffer, Kind
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import (
    ENTROPY_BYTES,
    ID_BYTES,
    KEY_BYTES,
    MAC_BYTES,
    NONCE_BYTES,
    Agreement,
    Secrets,
    Transcript,
    check,
    mac,
    opening_key,
    refusal_key,
)
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import VERSIONS
from holdfast.hold.wire.session_pb2 import (
    BUSY,
    DRAINING,
    EXPIRED,
    GAP,
    UNKNOWN,
    VERSION,
    Hello,
    Position,
    Proof,
    Refusal,
    Refused,
    Resume,
    ResumeOk,
    Welcome,
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
    """

    session: Session
    secrets: Secrets
    epoch: int
    position: Position | None
    limit: int
    frame_bytes: int
    heartbeat: bytes


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


class Initiator:
    """The client's end of a handshake: begins a session, or resumes one.

    Attributes:
        session: which.
        agreed: the result, once the server has proven itself.
        denied: the refusal, once the server has proven itself.
    """

    def __init__(self, channel: Channel, session: Session) -> None:
        self._channel, self.session = channel, session
        self._transcript = channel.transcript()
        entropy = channel.entropy(ENTROPY_BYTES)
        self._pair, self._nonce = channel.agreement(entropy[:KEY_BYTES]), entropy[KEY_BYTES:]
        self._step = "client asked"
        self._state, self._key = session.state, session.key
        self._resuming = session.key is not None
        self._secret = session.key if session.key is not None else channel.psk
        self._digest = b""
        self._answer: Welcome | ResumeOk | Refused | None = None
        self.agreed: Agreed | None = None
        self.denied: Denied | None = None

    @property
    def outrun(self) -> bool:
        """Another transport was quicker: what this handshake builds on does not hold any more."""
        session = self.session
        begun = self._state is State.OPENING and session.state is not State.OPENING
        return begun or session.key is not self._key

    def first(self) -> Said:
        """The first flight."""
        session, terms = self.session, self.session.terms
        public = self._pair.public
        if self._resuming:
            asked: Hello | Resume = Resume(
                version=VERSIONS[-1], nonce=self._nonce, public_key=public, session_id=session.id,
                generation=session.generation, position=session.position(), heartbeat=terms.rhythm.wire(),
            )  # fmt: skip
        else:
            wire = terms.wire(session.into.limit, terms.keep_s)
            asked = Hello(versions=VERSIONS, nonce=self._nonce, public_key=public, terms=wire)
        kind, payload = (Kind.RESUME if self._resuming else Kind.HELLO), asked.SerializeToString()
        digest = self._transcript.add(kind, payload)
        proof = proof_frame(mac(opening_key(self._secret), digest))
        self._transcript.add(Kind.PROOF, proof)
        return [(kind, payload), (Kind.PROOF, proof)]

    def receive(self, kind: int, payload: Buffer) -> Said:
        """A frame of the server's, and what it calls for.

        Raises:
            Violation: it has no place here, or the proof is wrong.
        """
        if kind not in EXPECTED[self._step]:
            raise Violation(Code.OUT_OF_PLACE, f"kind {kind} when {self._step}")
        if self._step == "client asked":
            self._asked(Kind(kind), payload)
            return []
        if self._step == "client was refused":
            return self._refused(proof_of(payload))
        return self._confirm(payload)

    def _asked(self, kind: Kind, payload: Buffer) -> None:
        if kind is Kind.REFUSED:
            self._answer = parsed(Refused, payload)
            self._digest = self._transcript.add(kind, payload)
            self._step = "client was refused"
            return
        if (kind is Kind.RESUME_OK) is not self._resuming:
            raise Violation(Code.OUT_OF_PLACE, kind.name)
        answer: Welcome | ResumeOk
        answer = parsed(ResumeOk, payload) if self._resuming else parsed(Welcome, payload)
        sized(answer.nonce, NONCE_BYTES, "nonce")
        sized(answer.public_key, KEY_BYTES, "public key")
        sized(answer.instance_id, ID_BYTES, "instance")
        if isinstance(answer, Welcome):
            sized(answer.session_id, ID_BYTES, "session")
            if answer.version not in VERSIONS:
                raise Violation(Code.MALFORMED, f"version {answer.version}")
        self._answer = answer
        self._digest = self._transcript.add(kind, payload)
        self._step = "client was offered"

    def _refused(self, shown: bytes) -> Said:
        assert isinstance(self._answer, Refused)  # the step says so
        if not check(mac(refusal_key(self._channel.psk), self._digest), shown):
            raise Violation(Code.BAD_PROOF, "of a refusal")
        answer, session = self._answer, self.session
        restarted = bool(session.instance_id) and answer.instance_id != session.instance_id
        upto = answer.next if answer.HasField("next") else None
        self._step = "over"
        self.denied = Denied(answer.reason, answer.retry_after_ms / 1000, restarted, upto)
        return []

    def _confirm(self, payload: Buffer) -> Said:
        answer, session = self._answer, self.session
        assert isinstance(answer, Welcome | ResumeOk)  # the step says so
        shared = self._pair.shared(answer.public_key)
        secrets = Secrets.derive(self._secret, shared, self._digest)
        if not check(mac(secrets.server_proof, self._digest), proof_of(payload)):
            raise Violation(Code.BAD_PROOF, "of the server")
        digest = self._transcript.add(Kind.PROOF, payload)
        if session.ended or self.outrun:
            raise Violation(Code.SUPERSEDED)
        if isinstance(answer, Welcome):
            self._begin(answer, secrets)
        else:
            self._resume(answer, secrets)
        self._step = "client confirmed"
        return [(Kind.CONFIRM, proof_frame(mac(secrets.client_proof, digest)))]

    def _begin(self, answer: Welcome, secrets: Secrets) -> None:
        session, terms = self.session, answer.terms
        session.id, session.instance_id = answer.session_id, answer.instance_id
        session.key, session.generation = secrets.session, 1
        session.keep_s = min(session.terms.keep_s, terms.keep_ms / 1000)
        self.agreed = Agreed(
            session, secrets, answer.epoch, None, terms.limit, terms.largest_frame, terms.heartbeat
        )

    def _resume(self, answer: ResumeOk, secrets: Secrets) -> None:
        session = self.session
        if answer.instance_id != session.instance_id:
            raise Violation(Code.OUT_OF_PLACE, "another instance")
        if not session.could_resume(answer.position):
            session.lost(Event.REFUSED, Why.GAP)  # no other transport could mend that
            raise Violation(Code.GAP, "in RESUME_OK")
        if answer.epoch <= session.epoch:
            raise Violation(Code.OUT_OF_PLACE, "an old epoch")
        # The server still takes the key of before, until it hears of this one.
        session.proven(session.generation + 1)
        self.agreed = Agreed(session, secrets, answer.epoch, answer.position, 0, 0, answer.heartbeat)


class Responder:
    """The server's end of a handshake.

    Attributes:
        agreed: the result, once the client has confirmed.
        over: the client was refused.
    """

    def __init__(self, channel: Channel, host: Host) -> None:
        self._channel, self._host = channel, host
        self._transcript = channel.transcript()
        self._step = "server waits"
        self._asked: Hello | Resume | None = None
        self._digest = b""
        self._offer: tuple[Secrets, int, Welcome | ResumeOk] | None = None
        self.agreed: Agreed | None = None
        self.secrets: Secrets | None = None

    @property
    def over(self) -> bool:
        """It has ended with a refusal."""
        return self._step == "over"

    def receive(self, kind: int, payload: Buffer, now_s: float) -> Said:
        """A frame of the client's, and what it calls for.

        Raises:
            Violation: it has no place here, or the confirmation is wrong.
        """
        if kind not in EXPECTED[self._step]:
            raise Violation(Code.OUT_OF_PLACE, f"kind {kind} when {self._step}")
        if self._step == "server waits":
            asked: Hello | Resume
            asked = parsed(Hello, payload) if kind == Kind.HELLO else parsed(Resume, payload)
            sized(asked.nonce, NONCE_BYTES, "nonce")
            sized(asked.public_key, KEY_BYTES, "public key")
            self._asked = asked
            self._digest = self._transcript.add(kind, payload)
            self._step = "server was asked"
            return []
        if self._step == "server was asked":
            shown = proof_of(payload)
            digest, self._digest = self._digest, self._transcript.add(kind, payload)
            if isinstance(self._asked, Hello):
                return self._hello(self._asked, shown, digest)
            assert self._asked is not None  # the step says so
            return self._resume(self._asked, shown, digest, now_s)
        return self._confirmed(payload)

    def _refuse(self, reason: Refusal, upto: int | None = None) -> Said:
        later_ms = self._host.retry_after_ms if reason in (BUSY, DRAINING) else 0
        answer = Refused(reason=reason, retry_after_ms=later_ms, instance_id=self._host.instance_id)
        if upto is not None:
            answer.next = upto
        payload = answer.SerializeToString()
        digest = self._transcript.add(Kind.REFUSED, payload)
        self._step = "over"
        proof = proof_frame(mac(refusal_key(self._channel.psk), digest))
        return [(Kind.REFUSED, payload), (Kind.PROOF, proof)]

    def _hello(self, asked: Hello, shown: bytes, digest: bytes) -> Said:
        if not check(mac(opening_key(self._channel.psk), digest), shown):
            return self._refuse(UNKNOWN)
        common = set(asked.versions) & set(VERSIONS)
        if not common:
            return self._refuse(VERSION)
        if self._host.draining:
            return self._refuse(DRAINING)
        host = self._host
        window = host.first_window()
        if not window:
            return self._refuse(BUSY)
        keep_s = min(host.terms.keep_s, asked.terms.keep_ms / 1000)
        entropy = self._channel.entropy(ENTROPY_BYTES + ID_BYTES)
        answer = Welcome(
            version=max(common), nonce=entropy[KEY_BYTES:ENTROPY_BYTES],
            terms=host.terms.wire(window, keep_s), session_id=entropy[ENTROPY_BYTES:],
            instance_id=host.instance_id, epoch=1,
        )  # fmt: skip
        return self._offer_it(Kind.WELCOME, answer, entropy, self._channel.psk, asked.public_key)

    def _resume(self, asked: Resume, shown: bytes, digest: bytes, now_s: float) -> Said:
        host = self._host
        # An unknown session costs the same work as a wrong proof: it is checked against nobody's.
        session = host.find(asked.session_id) or host.nobody
        key = session.key_of(asked.generation)
        proven = check(mac(opening_key(key or host.nobodys_key), digest), shown)
        if not proven or key is None or session is host.nobody:
            return self._refuse(UNKNOWN)
        session.proven(asked.generation)
        session.look(now_s)
        if session.ended:
            return self._refuse(EXPIRED, session.into.next)
        if not session.could_resume(asked.position):
            return self._refuse(GAP, session.into.next)
        entropy = self._channel.entropy(ENTROPY_BYTES)
        answer = ResumeOk(
            nonce=entropy[KEY_BYTES:], instance_id=host.instance_id, epoch=session.offer_epoch(),
            position=session.position(), heartbeat=session.terms.rhythm.wire(),
        )  # fmt: skip
        return self._offer_it(Kind.RESUME_OK, answer, entropy, key, asked.public_key)

    def _offer_it(
        self, kind: Kind, answer: Welcome | ResumeOk, entropy: bytes, secret: bytes, public: bytes
    ) -> Said:
        pair = self._channel.agreement(entropy[:KEY_BYTES])
        answer.public_key = pair.public
        shared = pair.shared(public)
        payload = answer.SerializeToString()
        digest = self._transcript.add(kind, payload)
        self.secrets = Secrets.derive(secret, shared, digest)
        proof = proof_frame(mac(self.secrets.server_proof, digest))
        self._digest = self._transcript.add(Kind.PROOF, proof)
        self._offer = (self.secrets, answer.epoch, answer)
        self._step = "server offered"
        return [(kind, payload), (Kind.PROOF, proof)]

    def _confirmed(self, payload: Buffer) -> Said:
        assert self._offer is not None and self._asked is not None  # the step says so
        secrets, epoch, answer = self._offer
        if not check(mac(secrets.client_proof, self._digest), proof_of(payload)):
            raise Violation(Code.BAD_PROOF, "of the client")
        asked = self._asked
        if isinstance(asked, Hello):
            assert isinstance(answer, Welcome)  # the offer that answers a HELLO
            if not self._host.has_room(answer.terms.limit):  # others were quicker
                raise Violation(Code.TOO_MANY, "sessions")
            session = self._host.begin(answer, secrets.session)
            terms = asked.terms
            self.agreed = Agreed(
                session, secrets, epoch, None, terms.limit, terms.largest_frame, terms.heartbeat
            )
        else:
            found = self._host.find(asked.session_id)
            if found is None or found.ended or epoch <= found.epoch:
                raise Violation(Code.SUPERSEDED)
            # The confirmation was made with keys that only the next generation's owner has.
            found.proven(asked.generation + 1)
            self.agreed = Agreed(found, secrets, epoch, asked.position, 0, 0, asked.heartbeat)
        self._step = "server agreed"
        return []

"""The server's end of a handshake: offers, or refuses, and changes nothing before the confirmation."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import Buffer, Kind
from holdfast.hold.session.handshake import (
    EXPECTED,
    Agreed,
    Channel,
    Said,
    parsed,
    proof_frame,
    proof_of,
    sized,
)
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import (
    ENTROPY_BYTES,
    ID_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    Secrets,
    check,
    mac,
    opening_key,
    refusal_key,
)
from holdfast.hold.session.terms import VERSIONS
from holdfast.hold.wire.session_pb2 import (
    BUSY,
    DRAINING,
    EXPIRED,
    GAP,
    UNKNOWN,
    VERSION,
    Hello,
    Refusal,
    Refused,
    Resume,
    ResumeOk,
    Welcome,
)


class Responder:
    """The server's end of a handshake.

    Attributes:
        agreed: the result, once the client has confirmed.
        over: the client was refused.

    Args:
        channel: what the transport is.
        host: the server's sessions.
        refusal: what is answered whatever is asked for, which is then not kept; None: what comes of it.
    """

    def __init__(self, channel: Channel, host: Host, refusal: Refusal | None = None) -> None:
        self._channel, self._host, self._refusal = channel, host, refusal
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
            self._asked = asked if self._refusal is None else None
            self._digest = self._transcript.add(kind, payload)
            self._step = "server was asked"
            return []
        if self._step == "server was asked":
            shown = proof_of(payload)
            digest, self._digest = self._digest, self._transcript.add(kind, payload)
            if self._refusal is not None:
                return self._refuse(self._refusal)
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
            instance_id=host.instance_id, epoch=1, transport_limit=host.terms.credit_bytes,
            location=host.location,
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
        if asked.version not in VERSIONS:
            return self._refuse(VERSION)
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
            transport_limit=host.terms.credit_bytes, location=host.location,
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
                session, secrets, epoch, None, terms.limit, terms.largest_frame, terms.heartbeat,
                asked.transport_limit,
            )  # fmt: skip
        else:
            found = self._host.find(asked.session_id)
            if found is None or found.ended or epoch <= found.epoch:
                raise Violation(Code.SUPERSEDED)
            # The confirmation was made with keys that only the next generation's owner has.
            found.proven(asked.generation + 1)
            self.agreed = Agreed(
                found, secrets, epoch, asked.position, 0, 0, asked.heartbeat, asked.transport_limit
            )
        self._step = "server agreed"
        return []

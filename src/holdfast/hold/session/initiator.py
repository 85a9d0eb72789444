"""The client's end of a handshake: begins a session, or resumes one."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.hold.heartbeat import Life
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session, Why
from holdfast.hold.session.frames import Buffer, Kind
from holdfast.hold.session.handshake import (
    EXPECTED,
    Agreed,
    Channel,
    Denied,
    Said,
    parsed,
    proof_frame,
    proof_of,
    sized,
)
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
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import VERSIONS
from holdfast.hold.wire.session_pb2 import (
    BUSY,
    DRAINING,
    EXPIRED,
    GAP,
    STRANGER,
    UNKNOWN,
    Hello,
    Refused,
    Resume,
    ResumeOk,
    Welcome,
)

REASONS: dict[int, Why] = {
    EXPIRED: Why.EXPIRED,
    GAP: Why.GAP,
    STRANGER: Why.STRANGER,
    UNKNOWN: Why.UNKNOWN,
}

ADDRESS_BYTES = (4, 16)
"""Of IPv4 and of IPv6."""

OTHER_KEY = (
    "of a refusal: give both ends the same psk, or none; if they have it, somebody between them ends TLS"
)
"""What a refusal that nobody proves comes from."""


class Initiator:
    """The client's end of a handshake: begins a session, or resumes one.

    Attributes:
        session: which.
        agreed: the result, once the server has proven itself.
        denied: the refusal, once the server has proven itself.

    Args:
        channel: what the transport is.
        session: to be carried on it.
        front: other servers may answer there as well, and the session's own elsewhere, at its location.
    """

    def __init__(self, channel: Channel, session: Session, front: bool = False) -> None:
        self._channel, self.session, self._front = channel, session, front
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
                transport_limit=terms.credit_bytes,
            )  # fmt: skip
        else:
            wire = terms.wire(session.into.limit, terms.keep_s)
            asked = Hello(
                versions=VERSIONS, nonce=self._nonce, public_key=public, terms=wire,
                transport_limit=terms.credit_bytes,
            )  # fmt: skip
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
            raise Violation(Code.BAD_PROOF, OTHER_KEY)
        answer, session = self._answer, self.session
        restarted = bool(session.instance_id) and answer.instance_id != session.instance_id
        upto = answer.next if answer.HasField("next") else None
        self._step = "over"
        self.denied = Denied(answer.reason, answer.retry_after_ms / 1000, restarted, upto)
        if not self.outrun:  # else this refusal is about what holds no more
            self._obey(self.denied)
        return []

    def _obey(self, denied: Denied) -> None:
        """What a refusal means for the session."""
        session, carrier = self.session, self.session.link
        carried = carrier is not None and carrier.life is Life.ALIVE
        if session.state is State.OPENING and session.key is not None and denied.reason == UNKNOWN:
            # The server never had it. For any other reason it may have, and its handler may have run.
            session.key, session.generation, session.id, session.instance_id = None, 0, b"", b""
            session.location = None
        elif denied.restarted and (carried or self._front):
            pass  # ours lives, or would answer for itself: this is another one behind a load balancer
        elif denied.reason not in (BUSY, DRAINING) or denied.restarted:
            if denied.next is not None and session.out.could_resume(max(denied.next, session.out.first)):
                session.out.confirm(denied.next)
            why = Why.RESTARTED if denied.restarted else REASONS.get(denied.reason, Why.REFUSED)
            session.lost(Event.REFUSED, why)

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
        session.location = _location(answer)
        session.key, session.generation = secrets.session, 1
        session.keep_s = min(session.terms.keep_s, terms.keep_ms / 1000)
        self.agreed = Agreed(
            session, secrets, answer.epoch, None, terms.limit, terms.largest_frame, terms.heartbeat,
            answer.transport_limit,
        )  # fmt: skip

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
        session.location = _location(answer)
        self.agreed = Agreed(
            session, secrets, answer.epoch, answer.position, 0, 0, answer.heartbeat, answer.transport_limit
        )


def _location(answer: Welcome | ResumeOk) -> tuple[bytes, int] | None:
    """Where the server says that it is reached; what is no address is passed over, as it is only a hint."""
    told = answer.location
    return (
        (told.address, told.port) if len(told.address) in ADDRESS_BYTES and 0 < told.port < 1 << 16 else None
    )

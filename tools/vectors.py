# SPDX-License-Identifier: Apache-2.0
"""Writes the test vectors of the session protocol; a test checks that they hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.core import Session
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import NO_KEY, X25519
from holdfast.hold.session.link import Link
from holdfast.hold.session.terms import Memory, Terms

VECTORS = Path(__file__).resolve().parent.parent / "docs/reference/protocol-vectors.json"
PSK = bytes(range(32))
TERMS = Terms(window_bytes=65536, frame_bytes=4096, keep_s=120, rhythm=Rhythm(can_s=10, want_s=30))


class Entropy:
    """Octets that look random and are not: SHA-256 of a label and a counter."""

    def __init__(self, label: str) -> None:
        self._label, self._count = label, 0

    def __call__(self, size: int) -> bytes:
        """So many of them."""
        made = b""
        while len(made) < size:
            made += hashlib.sha256(f"{self._label} {self._count}".encode()).digest()
            self._count += 1
        return made[:size]


def conversation(mode: str) -> dict[str, object]:
    """A session that is begun, used, cut, resumed and closed; every flight in hexadecimal, in order."""
    psk = PSK if mode == "psk" else NO_KEY
    near_channel = Channel(mode, b"", psk, X25519, Entropy("client"))
    far_channel = Channel(mode, b"", psk, X25519, Entropy("server"))
    met: list[Session] = []
    host = Host(TERMS, Memory(), Entropy("host")(48))
    memory = Memory()
    memory.enter(4096)
    client = Session(TERMS, memory, 4096)
    flights: list[dict[str, str]] = []

    def say(sender: Link, receiver: Link, who: str, what: str) -> None:
        data = b"".join(sender.pull(1 << 16, 0.0))
        if data:
            flights.append({"from": who, "what": what, "bytes": data.hex()})
            receiver.receive(data, 0.0)

    def join(what: str) -> tuple[Link, Link]:
        near, far = Link(near_channel, 0.0), Link(far_channel, 0.0, host=host, on_session=met.append)
        near.open(client)
        say(near, far, "client", what)
        say(far, near, "server", f"answer to {what}")
        say(near, far, "client", "CONFIRM")
        say(far, near, "server", "ACK and what else is due")
        return near, far

    near, far = join("HELLO and PROOF")
    key_1 = client.key
    client.write(b"hello")
    say(near, far, "client", "DATA 'hello'")
    near.lost(0.0)
    far.lost(0.0)
    client.write(b" again")
    near, far = join("RESUME and PROOF")
    assert met[0].read(100) == b"hello again" and key_1 is not None and client.key is not None
    return {
        "mode": mode,
        "psk": psk.hex(),
        "session_id": client.id.hex(),
        "instance_id": host.instance_id.hex(),
        "session_key_generation_1": key_1.hex(),
        "session_key_generation_2": client.key.hex(),
        "flights": flights,
    }


def vectors() -> str:
    """All of them, as JSON."""
    return (
        json.dumps({"version": 1, "conversations": [conversation("psk"), conversation("plain")]}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    VECTORS.write_text(vectors())

# SPDX-License-Identifier: Apache-2.0
"""Writes the test vectors of the session protocol; a test checks that they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.core import Session, Why
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import NO_KEY, X25519
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory, Terms
from holdfast.hold.wire.session_pb2 import Location

VECTORS = Path(__file__).resolve().parent.parent / "docs/reference/protocol-vectors.json"
PSK = bytes(range(32))
LOCATIONS = (
    Location(address=IPv4Address("192.0.2.7").packed, port=9000),
    Location(address=IPv6Address("2001:db8::7").packed, port=9000),
)
TERMS = Terms(window_bytes=65536, frame_bytes=4096, keep_s=120, rhythm=Rhythm(can_s=10, want_s=30))


class Entropy:
    """Octets that look random and are not: SHA-256 of a label and a counter.

    Attributes:
        private_key: the first 32 octets of the last that were asked for.
    """

    def __init__(self, label: str) -> None:
        self._label, self._count = label, 0
        self.private_key = b""

    def __call__(self, size: int) -> bytes:
        """So many of them."""
        made = b""
        while len(made) < size:
            made += hashlib.sha256(f"{self._label} {self._count}".encode()).digest()
            self._count += 1
        self.private_key = made[:32]
        return made[:size]


class Conversation:
    """What two ends say to each other, flight by flight, one transport after the other.

    Attributes:
        transports: of each the private keys of both ends, and what was said.
    """

    def __init__(self, mode: str, binding: bytes = b"", locations: Sequence[Location] = ()) -> None:
        self.mode, self.binding = mode, binding
        self.psk = PSK if mode != "plain" else NO_KEY
        self._entropy = {"client": Entropy("client"), "server": Entropy("server")}
        self._channel = {
            who: Channel(mode, binding, self.psk, X25519, entropy) for who, entropy in self._entropy.items()
        }
        self.met: list[Session] = []
        self.host = Host(TERMS, Memory(), Entropy("host")(48))
        self._locations = list(locations)
        memory = Memory()
        memory.enter(4096)
        self.client = Session(TERMS, memory, 4096)
        self.transports: list[dict[str, object]] = []
        self._flights: list[dict[str, str]] = []

    def join(self, what: str) -> None:
        """A new transport, with the handshake on it."""
        if self._locations:
            self.host.location = self._locations.pop(0)
        self._near = Link(self._channel["client"], 0.0)
        self._far = Link(self._channel["server"], 0.0, host=self.host, on_session=self.met.append)
        self._near.open(self.client, 0.0)
        self._flights = []
        self.forth(what)
        self.back(f"answer to {what}")
        self.transports.append({
            "client_private_key": self._entropy["client"].private_key.hex(),
            "server_private_key": self._entropy["server"].private_key.hex(),
            "flights": self._flights,
        })  # fmt: skip
        self.forth("CONFIRM and what else is due")
        self.back("ACK and what else is due")

    def forth(self, what: str) -> None:
        """What the client has to say, if anything."""
        self._say(self._near, self._far, "client", what)

    def back(self, what: str) -> None:
        """What the server has to say, if anything."""
        self._say(self._far, self._near, "server", what)

    def _say(self, sender: Link, receiver: Link, who: str, what: str) -> None:
        data = b"".join(sender.pull(1 << 16, 0.0))
        if data:
            self._flights.append({"from": who, "what": what, "bytes": data.hex()})
            receiver.receive(data, 0.0)

    def cut(self) -> None:
        """The transport is gone."""
        self._near.lost(0.0)
        self._far.lost(0.0)

    def told(self, name: str, keys: list[bytes]) -> dict[str, object]:
        """As it is published."""
        return {
            "name": name,
            "mode": self.mode,
            "binding": self.binding.hex(),
            "psk": self.psk.hex(),
            "session_id": self.client.id.hex(),
            "instance_id": self.host.instance_id.hex(),
            "session_keys": [key.hex() for key in keys],
            "transports": self.transports,
        }


def life(mode: str, binding: bytes = b"", locations: Sequence[Location] = ()) -> dict[str, object]:
    """A session that is begun, used, cut, resumed and closed; its server may say where it is each time."""
    one = Conversation(mode, binding, locations)
    one.join("HELLO and PROOF")
    first = one.client.key
    one.client.write(b"hello")
    one.forth("DATA 'hello'")
    one.cut()
    one.client.write(b" again")
    one.client.ask()
    one.join("RESUME and PROOF")
    second = one.client.key
    assert one.met[0].read(100) == b"hello again" and first is not None and second is not None
    one.met[0].close(0.0)
    one.back("FIN")
    one.client.close(0.0)
    one.forth("ACK and FIN")
    one.back("ACK and CLOSE")
    one.forth("CLOSE_OK")
    assert one.client.state is State.CLOSED and one.met[0].state is State.CLOSED
    told = one.told(f"begun, cut, resumed and closed in mode {mode}", [first, second])
    if locations:
        told["name"] = f"{told['name']}, with locations"
        told["locations"] = [{"address": one.address.hex(), "port": one.port} for one in locations]
    return told


def refusal() -> dict[str, object]:
    """A session whose server was restarted."""
    one = Conversation("psk")
    one.join("HELLO and PROOF")
    key = one.client.key
    one.cut()
    one.host = Host(TERMS, Memory(), Entropy("another host")(48))
    one.join("RESUME and PROOF")
    assert one.client.why is Why.RESTARTED and key is not None
    return one.told("refused by a server that was restarted", [key])


def vectors() -> str:
    """All of them, as JSON."""
    told = [
        life("psk"),
        life("tls", bytes(range(100, 132))),
        life("plain"),
        refusal(),
        life("psk", locations=LOCATIONS),
    ]
    return json.dumps({"version": 1, "conversations": told}, indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(vectors())

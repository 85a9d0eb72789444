# SPDX-License-Identifier: Apache-2.0
"""The published vectors are what the code says, and follow from the specification without the code."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from holdfast.hold.session.keys import expand, extract
from holdfast.hold.wire.session_pb2 import Hello, Proof, Welcome

ROOT = Path(__file__).resolve().parents[4]
LABEL = b"holdfast session 1 "


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_are_what_the_code_says() -> None:
    made = tool("vectors")
    assert made.VECTORS.read_text() == made.vectors(), "run: python tools/vectors.py"


def frames(data: bytes) -> list[tuple[int, bytes, bytes]]:
    found = []
    while data:
        kind, _, _, _, size = struct.unpack_from("!BBHII", data)
        found.append((kind, data[:12], data[12 : 12 + size]))
        data = data[12 + size :]
    return found


def hkdf(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, info).derive(key)


def counted(label: str, size: int) -> bytes:
    made, count = b"", 0
    while len(made) < size:
        made += hashlib.sha256(f"{label} {count}".encode()).digest()
        count += 1
    return made[:size]


def test_another_implementation_finds_the_same() -> None:
    """The handshake of the first conversation, from docs/reference/protocol.md alone."""
    told = json.loads((ROOT / "docs/reference/protocol-vectors.json").read_text())["conversations"][0]
    psk = bytes.fromhex(told["psk"])
    flights = [bytes.fromhex(flight["bytes"]) for flight in told["flights"]]
    (hello, proof_1), (welcome, proof_2) = frames(flights[0]), frames(flights[1])
    said = LABEL + b"\x03psk"
    digests = []
    for kind, _, payload in (hello, proof_1, welcome, proof_2):
        said += struct.pack("!BBHII", kind, 0, 0, 0, len(payload)) + payload
        digests.append(hashlib.sha256(said).digest())
    t_hello, _, t_welcome, t_proof_2 = digests

    def mac(key: bytes, digest: bytes) -> bytes:
        return hmac.digest(key, digest, "sha256")

    assert Proof.FromString(proof_1[2]).mac == mac(hkdf(psk, LABEL + b"opening"), t_hello)
    private = X25519PrivateKey.from_private_bytes(counted("client", 64)[:32])
    assert Hello.FromString(hello[2]).public_key == private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(Welcome.FromString(welcome[2]).public_key))
    master = hmac.digest(psk, shared, "sha256")
    assert Proof.FromString(proof_2[2]).mac == mac(
        hkdf(master, LABEL + b"server proof " + t_welcome), t_welcome
    )
    session_key = hkdf(master, LABEL + b"session " + t_welcome)
    assert told["session_key_generation_1"] == session_key.hex()
    assert told["session_key_generation_2"] == hkdf(session_key, LABEL + b"generation").hex()
    opener = ChaCha20Poly1305(hkdf(master, LABEL + b"client traffic " + t_welcome))
    sealed = frames(flights[2]) + frames(flights[4])
    opened = [
        opener.decrypt(number.to_bytes(12, "big"), payload, head)
        for number, (_, head, payload) in enumerate(sealed)
    ]
    assert Proof.FromString(opened[0]).mac == mac(
        hkdf(master, LABEL + b"client proof " + t_welcome), t_proof_2
    )
    assert struct.pack("!Q", 0) + b"hello" in opened


@pytest.mark.parametrize("size", [1, 32, 200])
def test_our_hkdf_is_that_of_rfc_5869(size: int) -> None:
    key, info = bytes(range(32)), b"i" * size
    assert expand(key, info) == hkdf(key, info)
    salt = bytes.fromhex("000102030405060708090a0b0c")
    assert extract(salt, b"\x0b" * 22).hex() == (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"  # A.1
    )


def test_the_generated_messages_are_current(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "tools/protos.py"), str(tmp_path)],
        check=True,
        timeout=60,
        capture_output=True,
    )
    wire = ROOT / "src/holdfast/hold/wire"
    for made in tmp_path.iterdir():
        assert made.read_text() == (wire / made.name).read_text(), "run: python tools/protos.py"

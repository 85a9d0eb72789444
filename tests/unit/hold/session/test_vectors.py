# SPDX-License-Identifier: Apache-2.0
"""The published vectors are what the code says, and follow from the specification without the code."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from unit.hold.session import second
from unit.hold.session.second import Follower

from holdfast.hold.session.keys import expand, extract

ROOT = Path(__file__).resolve().parents[4]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_are_what_the_code_says() -> None:
    made = tool("vectors")
    assert made.VECTORS.read_text() == made.vectors(), "run: python tools/vectors.py"


def published() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((ROOT / "docs/reference/protocol-vectors.json").read_text())[
        "conversations"
    ]
    return told


@pytest.mark.parametrize("told", published(), ids=lambda told: told["name"])
def test_another_implementation_finds_the_same(told: dict[str, Any]) -> None:
    """Every proof, every key, every frame, from the private keys and the specification alone."""
    found = Follower(told).follow()
    assert [key.hex() for key in found.keys] == told["session_keys"]
    told_where = [{"address": address.hex(), "port": port} for address, port in found.locations]
    assert told_where == told.get("locations", [])
    if found.refused:
        assert found.refused == {1: second.UNKNOWN, 3: bytes.fromhex(told["instance_id"])}
        return
    client, server = found.ends["client"], found.ends["server"]
    assert client.said == b"hello again" and client.confirmed == len(client.said) + 1
    assert server.said == b"" and server.confirmed == 1
    assert client.closed and server.closed
    assert client.answered == 1 and not client.asks


def test_another_implementation_notices_what_was_changed() -> None:
    """One octet in seven of every payload; of handshakes' headers some octets are to be ignored."""
    told = published()[-1]
    for transport in told["transports"]:
        for flight in transport["flights"]:
            whole, begin = bytes.fromhex(flight["bytes"]), 0
            for _, _, head, payload in second.frames(whole):
                begin += len(head)
                for place in range(begin, begin + len(payload), 7):
                    changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
                    flight["bytes"] = changed.hex()
                    with pytest.raises((AssertionError, ValueError, LookupError, struct.error, InvalidTag)):
                        Follower(told).follow()
                begin += len(payload)
            flight["bytes"] = whole.hex()


def hkdf(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, info).derive(key)


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

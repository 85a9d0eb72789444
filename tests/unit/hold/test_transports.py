# SPDX-License-Identifier: Apache-2.0
"""What is asked for and would not be safe, or cannot be, is refused at once, in words that help."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

import holdfast
from holdfast import GaveUp, Session, UsageError

KEY = bytes(range(32))


async def nothing(session: Session) -> None:
    await session.recv()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, another key, the key with a passphrase, a certificate with a remark."""
    folder = tmp_path_factory.mktemp("tls")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    for key, certificate in (("server.key", "server.pem"), ("other.key", "other.pem")):
        command = ("openssl", "req", "-x509", *curve, *names, "-noenc", "-keyout", key, "-out", certificate)
        run(command, cwd=folder, check=True, capture_output=True)
    command = (
        "openssl",
        "ec",
        "-in",
        "server.key",
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        "locked.key",
    )
    run(command, cwd=folder, check=True, capture_output=True)
    (folder / "remark.pem").write_bytes("Zürich\n".encode() + (folder / "server.pem").read_bytes())
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


@pytest.mark.parametrize(
    ("url", "says"),
    [("tcp://::1:7000", "in brackets"), ("127.0.0.1:7000", "tcp://host:port"), ("unix://run/a", "unix:///run/a"),
     ("unix:/run/a", "unix:///path")],
)  # fmt: skip
def test_what_is_wrong_with_a_url_is_said(url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        holdfast.connect(url)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("psk", "says"),
    [(bytearray(KEY), "bytearray"), (5, "int"), (bytes(32), "zeros"), (b"short", "5 bytes"),
     ("a\0b", "as bytes"), ("", "''"), ("nowhere/key.psk", "nowhere/key.psk"), ("/tmp", "Is a directory")],
)  # fmt: skip
def test_what_is_no_key_is_refused(psk: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        holdfast.connect("tcp://127.0.0.1:7000", psk=psk)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", [KEY.hex(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBka/x4f="])
def test_a_key_in_the_place_of_its_path_is_not_shown(text: str) -> None:
    with pytest.raises(UsageError, match="given as bytes") as caught:
        holdfast.connect("tcp://127.0.0.1:7000", psk=text)
    assert text not in str(caught.value) and caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [("server.pem", "other.key", "belongs to another"),
     ("server.key", "server.pem", "no PEM file of a certificate"),
     ("server.pem", "locked.key", "passphrase"), ("missing.pem", "server.key", "No such file"),
     ("server.pem", "missing.key", "No such file")],
)  # fmt: skip
def test_what_a_server_cannot_use_is_refused(folder: Path, certificate: str, key: str, says: str) -> None:
    (folder / "server.pem").chmod(0o600)  # so that it may stand in the place of a key
    with pytest.raises(UsageError) as caught:
        holdfast.serve(nothing, "tls://127.0.0.1:0", certificate=folder / certificate, key=folder / key)
    assert says in str(caught.value)


def test_a_certificate_may_have_remarks_in_any_encoding(folder: Path) -> None:
    holdfast.serve(nothing, "tls://127.0.0.1:0", certificate=folder / "remark.pem", key=folder / "server.key")


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def old() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("made", "says"),
    [(unverified, "does not verify"), (old, "TLS 1.3"), (lambda: True, "bool"),
     (lambda: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "a server's")],
)  # fmt: skip
def test_a_context_that_would_not_do_is_refused(made: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        holdfast.connect("tls://127.0.0.1:7000", tls=made())
    assert says in str(caught.value)


def test_with_a_key_the_certificate_need_not_be_verified() -> None:
    holdfast.connect("tls://127.0.0.1:7000", tls=unverified(), psk=KEY)


@pytest.mark.parametrize("served", [None, 7000, ("127.0.0.1", 7000), nothing])
def test_what_cannot_be_served_is_refused(served: Any) -> None:
    with pytest.raises(UsageError, match="a URL"):
        holdfast.serve(nothing, served)
    with pytest.raises(UsageError, match="async function"):
        holdfast.serve(None, "tcp://127.0.0.1:0")  # type: ignore[arg-type]


def last_loss(url: str) -> str:
    async def work() -> None:
        await holdfast.connect(url, deadline=time.monotonic() + 0.1)

    with pytest.raises(GaveUp) as caught:
        asyncio.run(work())
    return str(caught.value.losses[-1])


def test_where_nobody_is_is_said(tmp_path: Path) -> None:
    assert last_loss("tcp://[::1]:1") == "[Errno 111] Connection refused: '[::1]:1'"
    assert last_loss(f"unix://{tmp_path}/a") == f"[Errno 2] No such file or directory: '{tmp_path}/a'"


def test_a_server_without_tls_is_guessed() -> None:
    async def work() -> str:
        async with holdfast.serve(nothing, "tcp://127.0.0.1:0") as server:
            url = server.url.replace("tcp://", "tls://")
            with pytest.raises(GaveUp) as caught:
                await holdfast.connect(url, deadline=time.monotonic() + 0.3)
            return str(caught.value)

    assert "as if nobody served tls:// there: '127.0.0.1:" in asyncio.run(work())

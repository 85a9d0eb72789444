# SPDX-License-Identifier: Apache-2.0
"""What no retry can change ends the first opening at once; a session that is open goes on through it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from conformance.drivers import Certificate

import holdfast
from holdfast import NotTrusted, Session, SessionLost, SessionPolicy
from holdfast.hold.drivers import attempts
from holdfast.hold.drivers.policy import Happened, SessionEvent
from holdfast.hold.drivers.server import MOST_STRANGERS
from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.race import Address
from holdfast.hold.transports.dial import Dialer, own_users
from holdfast.hold.transports.target import Target
from holdfast.policy import Backoff

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
POLICY = SessionPolicy(
    rhythm=Rhythm(0.5, 2), backoff=Backoff(first_s=0.01, cap_s=0.05, stable_s=0), keep_s=5, handshake_s=2
)


async def echo(session: Session) -> None:
    while data := await session.recv():
        await session.send(data)


def refused(work: Callable[[], Awaitable[Any]], runner: Callable[..., Any] = asyncio.run) -> str:
    """What it is told that opens this session; it must come long before its deadline of 30 s."""
    begun = time.monotonic()
    with pytest.raises(NotTrusted) as caught:
        runner(work())
    assert time.monotonic() - begun < 5
    return str(caught.value)


def serving_tls(certificate: Certificate) -> Any:
    key = certificate.path.with_name("key.pem")
    return holdfast.serve(
        echo, "tls://127.0.0.1:0", policy=POLICY, certificate=certificate.path, key=key, psk=KEY
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [(KEY, OTHER_KEY), (KEY, None), (None, KEY)], ids=["another", "ours", "theirs"]
)
def test_another_key_is_told_at_once(ours: bytes | None, theirs: bytes | None) -> None:
    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", psk=theirs, policy=POLICY) as server:
            await holdfast.connect(server.url, psk=ours, policy=POLICY)

    assert "give both ends the same psk=" in refused(work)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(("host", "trusting"), [("localhost", False), ("127.0.0.1", True)])
def test_a_certificate_that_does_not_hold_is_told_at_once(
    tmp_path: Path, host: str, trusting: bool, runner: Callable[..., Any]
) -> None:
    """It is signed by nobody whom we know, or made out to another name."""
    certificate = Certificate(tmp_path)

    async def work() -> None:
        async with serving_tls(certificate) as server:
            url = f"tls://{host}:{Target.parse(server.url).port}"
            tls = certificate.client if trusting else None
            await holdfast.connect(url, psk=KEY, policy=POLICY, tls=tls)

    told = refused(work, runner)
    assert "tls=" in told and ("127.0.0.1" if trusting else "self-signed") in told


def test_tls_before_1_3_is_told_at_once(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    certificate.server.maximum_version = ssl.TLSVersion.TLSv1_2

    async def work() -> None:
        async with await asyncio.start_server(
            lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.server
        ) as old:
            url = f"tls://localhost:{old.sockets[0].getsockname()[1]}"
            await holdfast.connect(url, policy=POLICY, tls=certificate.client)

    assert "TLSv1.2" in refused(work)


def test_a_server_of_another_user_is_told_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        url = f"unix://{tmp_path}/s.sock"
        async with holdfast.serve(echo, url, policy=POLICY):
            await holdfast.connect(url, policy=POLICY, peers={os.geteuid() + 1})

    assert "peers=" in refused(work)


def test_a_client_of_another_user_is_told_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        url = f"unix://{tmp_path}/s.sock"
        async with holdfast.serve(echo, url, policy=POLICY, peers={os.geteuid() + 1}):
            await holdfast.connect(url, policy=POLICY)

    assert "does not serve processes of this user" in refused(work)


def test_strangers_take_nobodys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connect and say nothing, they are few, and who is served gets in."""

    async def work() -> None:
        url, users = f"unix://{tmp_path}/s.sock", {os.geteuid() + 1}
        async with holdfast.serve(echo, url, policy=POLICY, peers=users, most_half_open=2) as server:
            strangers = [await asyncio.open_unix_connection(f"{tmp_path}/s.sock") for _ in range(40)]
            ends = [asyncio.create_task(reader.read()) for reader, _ in strangers]
            async with asyncio.timeout(5):
                while sum(end.done() for end in ends) < 40 - MOST_STRANGERS:
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(server, "_peers", own_users())
            async with holdfast.connect(url, policy=POLICY) as session:
                await session.send_eof()
            assert len(server._strangers.half_open) == MOST_STRANGERS
            for _, writer in strangers:
                writer.close()
            await asyncio.gather(*ends)

    asyncio.run(work())


def test_what_speaks_another_protocol_is_told_at_once() -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await reader.read()
        writer.close()

    async def work() -> None:
        async with await asyncio.start_server(banner, "127.0.0.1", 0) as other:
            await holdfast.connect(f"tcp://127.0.0.1:{other.sockets[0].getsockname()[1]}", policy=POLICY)

    assert "not speak the session protocol" in refused(work)


@pytest.mark.parametrize("good_first", [True, False])
def test_one_address_with_the_right_key_is_enough(monkeypatch: pytest.MonkeyPatch, good_first: bool) -> None:
    async def work() -> None:
        async with (
            holdfast.serve(echo, "tcp://127.0.0.1:0", psk=KEY, policy=POLICY) as good,
            holdfast.serve(echo, "tcp://127.0.0.1:0", psk=OTHER_KEY, policy=POLICY) as bad,
        ):
            urls = (good.url, bad.url) if good_first else (bad.url, good.url)
            where = [Address(socket.AF_INET, ("127.0.0.1", Target.parse(url).port)) for url in urls]

            async def addresses(dialer: Dialer, timeout_s: float) -> list[Address]:
                return where

            monkeypatch.setattr(Dialer, "addresses", addresses)
            async with holdfast.connect("tcp://two.example:1", psk=KEY, policy=POLICY) as session:
                await session.send_eof()

    asyncio.run(work())


def test_an_address_that_hangs_holds_up_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another that is right may still answer, but has less time for it than a handshake may take."""
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.1)
    monkeypatch.setattr(attempts, "REDIAL_S", 0.05)
    policy = replace(POLICY, handshake_s=20)

    async def work() -> None:
        async with holdfast.serve(echo, "tcp://127.0.0.1:0", psk=OTHER_KEY, policy=policy) as bad:
            with (
                socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
                socket.create_connection(silent.getsockname()),
            ):
                ports = (silent.getsockname()[1], Target.parse(bad.url).port)
                where = [Address(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

                async def addresses(dialer: Dialer, timeout_s: float) -> list[Address]:
                    return where

                monkeypatch.setattr(Dialer, "addresses", addresses)
                await holdfast.connect("tcp://two.example:1", psk=KEY, policy=policy)

    assert "psk=" in refused(work)


def test_an_open_session_outlives_a_certificate_that_comes_and_goes(tmp_path: Path) -> None:
    """As behind a load balancer that sends a dial to the wrong server now and then."""
    folders = [tmp_path / "right", tmp_path / "wrong"]
    for folder in folders:
        folder.mkdir()
    right, wrong = (Certificate(folder) for folder in folders)

    async def work() -> None:
        async with serving_tls(right) as server:
            port = Target.parse(server.url).port
            url = f"tls://localhost:{port}"
            async with holdfast.connect(url, psk=KEY, policy=POLICY, tls=right.client) as session:
                server._listener._tls.load_cert_chain(wrong.path, folders[1] / "key.pem")
                for wire in list(server._wires):
                    wire.abort()
                async with asyncio.timeout(5):
                    while session.loss is None:
                        await asyncio.sleep(0.01)
                assert "self-signed" in str(session.loss)
                server._listener._tls.load_cert_chain(right.path, folders[0] / "key.pem")
                await session.send(b"still here")
                assert await session.recv_exactly(10) == b"still here"
                assert session.loss is None
                await session.send_eof()

    asyncio.run(work())


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["restarted", "another key"])
def test_an_open_session_that_is_lost_names_what_it_met(key: bytes) -> None:
    """A server with another key refuses: whoever sits in the middle could say so, thus it ends nothing."""
    policy = replace(POLICY, keep_s=0.5)

    async def work() -> str:
        told: list[SessionEvent] = []
        server = await holdfast.serve(echo, "tcp://127.0.0.1:0", psk=KEY, policy=policy)
        session = await holdfast.connect(server.url, psk=KEY, policy=policy, observer=told.append)
        url = server.url
        for wire in list(server._wires):
            wire.abort()
        await server.close()
        async with holdfast.serve(echo, url, psk=key, policy=policy):
            with pytest.raises(SessionLost) as caught:
                await session.recv()
        assert (told[-1].what, told[-1].why) == (Happened.ENDED, caught.value.why)
        return caught.value.why

    why = asyncio.run(work())
    if key == KEY:
        assert "restarted" in why
    else:
        assert "no transport carried it" in why and "give both ends the same psk=" in why

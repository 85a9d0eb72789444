# SPDX-License-Identifier: Apache-2.0
"""Several servers at one address: sessions find theirs again, and nobody is led where he should not go."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop
from conformance.drivers import Certificate
from unit.hold.drivers.balancer import Balancer
from unit.hold.drivers.path import Path as Relay
from unit.hold.drivers.test_session_paths import POLICY, echo, soon

import holdfast
from holdfast import Session, SessionLost, SessionPolicy, UsageError
from holdfast.hold.drivers.server import SessionServer
from holdfast.hold.race import Address
from holdfast.hold.session.keys import NO_KEY
from holdfast.hold.session.states import State
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.location import followed
from holdfast.hold.transports.target import Target
from holdfast.hold.wire.session_pb2 import Location

KEY = bytes(range(32))
HERE = "tcp://127.0.0.1:0"
MODES = pytest.mark.parametrize("mode", ["plain", "psk", "tls"])


class Servers:
    """Two servers behind a balancer, in one mode.

    Attributes:
        both: the servers.
        balancer: before them.
        connect: what opens a session through it.
    """

    def __init__(self, mode: str, folder: Path, located: bool) -> None:
        self.scheme = "tls" if mode == "tls" else "tcp"
        self.located = located
        self.ours: dict[str, Any] = {"psk": KEY} if mode == "psk" else {}
        self.theirs = dict(self.ours)
        if mode == "tls":
            certificate = Certificate(folder)
            self.ours["certificate"] = certificate.path
            self.ours["key"] = certificate.path.with_name("key.pem")
            self.theirs["tls"] = certificate.client

    def server(self, url: str | None = None) -> SessionServer:
        """One more of them, at the kernel's choice of ports."""
        here = f"{self.scheme}://127.0.0.1:0"
        location = here if self.located else None
        return holdfast.serve(echo, url or here, policy=POLICY, location=location, **self.ours)

    def connect(self, balancer: Balancer, policy: SessionPolicy = POLICY) -> Any:
        """To whichever of them; the certificate is made out to this name, and not to an address."""
        return holdfast.connect(f"{self.scheme}://localhost:{balancer.port}", policy=policy, **self.theirs)


@asynccontextmanager
async def behind(servers: Servers) -> AsyncIterator[tuple[Balancer, SessionServer, SessionServer]]:
    """Both servers, and the balancer before them; the first session comes to the first server."""
    async with (
        servers.server() as first,
        servers.server() as second,
        Balancer(first.url, second.url) as balancer,
    ):
        yield balancer, first, second


def cut(server: SessionServer) -> None:
    """Reset every transport of a server, however it came."""
    for wire in list(server._wires):
        wire.abort()


async def says(session: Session, word: bytes) -> None:
    await session.send(word)
    assert await session.recv_exactly(len(word), deadline=soon()) == word


def test_without_locations_a_session_is_lost_at_its_first_fault(tmp_path: Path) -> None:
    async def work() -> None:
        servers = Servers("psk", tmp_path, located=False)
        async with behind(servers) as (balancer, _, _):
            session = await servers.connect(balancer)
            await says(session, b"before")
            balancer.cut()
            with pytest.raises(SessionLost, match="restarted"):
                await says(session, b"after")

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@MODES
def test_with_them_a_hundred_faults_lose_nothing(mode: str, runner: Any, tmp_path: Path) -> None:
    """The first cuts what the balancer relays, the others what goes past it, which it no longer leads."""

    async def work() -> None:
        servers = Servers(mode, tmp_path, located=True)
        async with behind(servers) as (balancer, first, second), servers.connect(balancer) as session:
            await says(session, b"before")
            balancer.cut()
            for number in range(100):
                await says(session, b"%06d" % number)
                assert session.counters.resumes == number + 1
                if number == 50:
                    balancer.go()
                cut(first)
            await says(session, b"after")
            assert session.counters.bytes_received == 6 + 600 + 5
            assert balancer.came == 1 and second.sessions == []
            await session.send_eof()

    runner(asyncio.wait_for(work(), 20))


def test_many_sessions_go_on_while_their_balancer_is_gone(tmp_path: Path) -> None:
    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second):
            sessions = [await servers.connect(balancer) for _ in range(8)]
            assert len(first.sessions) == len(second.sessions) == 4
            balancer.go()
            await asyncio.gather(*(says(one, b"still here") for one in sessions))
            assert {one.counters.resumes for one in sessions} == {1}
            for one in sessions:
                await one.abort()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_session_that_begins_anew_does_so_where_it_was_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its confirmation was the last that came through; where its server is, nobody answers."""

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with servers.server() as first, servers.server() as second, silent() as port:
            # As on another host: here it would not be followed before anything has carried the session.
            monkeypatch.setattr(Dialer, "home", lambda *_: Address(socket.AF_INET, ("127.0.0.1", port)))
            async with Relay(Target.parse(first.url).port) as path:
                path.flights = 2
                opening = asyncio.create_task(holdfast.connect(path.url, psk=KEY, policy=POLICY).open())
                async with asyncio.timeout(5):
                    while not first.sessions:
                        await asyncio.sleep(0.001)
                path.flights, path._port = None, Target.parse(second.url).port
                session = await asyncio.wait_for(opening, 2)
                assert len(second.sessions) == 1
                await session.abort()

    asyncio.run(asyncio.wait_for(work(), 20))


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port at which connections hang: the queue of those to be accepted is full."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        yield full.getsockname()[1]


def moved(server: SessionServer, port: int) -> None:
    """From now on it announces another port of this host."""
    server.host.location = Location(address=b"\x7f\0\0\1", port=port)


def test_a_location_that_does_not_answer_costs_one_short_delay(tmp_path: Path) -> None:
    async def work() -> float:
        servers = Servers("psk", tmp_path, located=True)
        async with servers.server() as only, silent() as port, Balancer(only.url) as balancer:
            moved(only, port)
            async with servers.connect(balancer) as session:
                begun = time.monotonic()
                for number in range(3):
                    balancer.cut()
                    await says(session, b"%d" % number)
                took_s = time.monotonic() - begun
                assert session.counters.resumes == 3
                await session.send_eof()
                return took_s / 3

    assert 0.2 < asyncio.run(asyncio.wait_for(work(), 20)) < 0.8


class Far:
    """A port that is far away: connections to it take their time.

    Attributes:
        port: which; 0: none.
        near: set once they take none any more.
        dialled: how many there were.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = self.dialled = 0
        self.near = asyncio.Event()
        opened = Dialer.open

        async def late(dialer: Dialer, address: Address, protocol: Any) -> Any:
            if address.sockaddr[1] == self.port:
                self.dialled += 1
                await self.near.wait()
            return await opened(dialer, address, protocol)

        monkeypatch.setattr(Dialer, "open", late)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    return Far(monkeypatch)


def test_a_location_that_does_not_answer_yet_still_has_its_chance(tmp_path: Path, far: Far) -> None:
    """Meanwhile another server refuses."""

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second), servers.connect(balancer) as session:
            far.port = Target.parse(first.url).port
            balancer.lead_to(second.url)
            balancer.cut()
            async with asyncio.timeout(2):
                while balancer.came < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert session.state is State.SUSPENDED and far.dialled == 1
            far.near.set()
            await says(session, b"still here")
            await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_the_lookup_of_the_name_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, _), servers.connect(balancer) as session:

            async def hang(*_: object) -> list[Address]:
                await asyncio.sleep(3600)
                return []

            monkeypatch.setattr(Dialer, "addresses", hang)
            for number in range(3):
                begun = time.monotonic()
                balancer.cut()
                cut(first)
                await says(session, b"%d" % number)
                assert time.monotonic() - begun < 2
            await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_location_of_ipv6(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        here = "tcp://[::1]:0"
        async with (
            holdfast.serve(echo, here, psk=KEY, policy=POLICY, location=here) as server,
            holdfast.connect(server.url, psk=KEY, policy=POLICY) as session,
        ):

            async def nowhere(*_: object) -> list[Address]:
                raise socket.gaierror(socket.EAI_NONAME, "no such name any more")

            looked_up = await Dialer.addresses(Dialer(Target.parse(server.url), KEY, None, None, ()), 5)
            home = followed((ip_address("::1").packed, looked_up[0].sockaddr[1]), False, looked_up[0])
            assert [home] == looked_up  # so that it is dialled once
            monkeypatch.setattr(Dialer, "addresses", nowhere)
            cut(server)
            await says(session, b"still here")
            assert session.counters.resumes == 1 and session.peer is not None and "::1" in session.peer
            await session.send_eof()

    runner(asyncio.wait_for(work(), 20))


async def lost_in(session: Session) -> tuple[str, float]:
    """Why it was lost, and how long that took."""
    begun = time.monotonic()
    with pytest.raises(SessionLost) as caught:
        await says(session, b"gone")
    return caught.value.why, time.monotonic() - begun


@pytest.mark.parametrize("leads_to", ["nobody", "another"])
def test_a_server_that_was_restarted_says_so_itself(tmp_path: Path, leads_to: str) -> None:
    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second):
            session = await servers.connect(balancer)
            balancer.lead_to(second.url)
            if leads_to == "nobody":
                balancer.go()
            url = first.url
            await killed(first)
            async with servers.server(url):
                why, took_s = await lost_in(session)
            assert "restarted" in why and took_s < 2

    asyncio.run(asyncio.wait_for(work(), 20))


async def killed(server: SessionServer) -> None:
    """It ends without a word to its sessions, as a process that is killed."""
    for wire in list(server._wires):
        wire.abort()
    await server.close()


@pytest.mark.parametrize("refused_after_s", [0.0, 0.35])
def test_where_nobody_listens_another_servers_word_holds(
    tmp_path: Path, far: Far, refused_after_s: float
) -> None:
    """It is refused at once there, or so late that the other server was asked before."""

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second):
            session = await servers.connect(balancer)
            balancer.lead_to(second.url)
            if refused_after_s:
                far.port = Target.parse(first.url).port
                asyncio.get_running_loop().call_later(refused_after_s, far.near.set)
            await killed(first)
            why, took_s = await lost_in(session)
            assert "restarted" in why and took_s < 2

    asyncio.run(asyncio.wait_for(work(), 20))


def test_only_what_a_location_does_now_says_whether_anybody_is_there(
    tmp_path: Path, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refused a while ago, and is silent while another server answers."""
    reach, refused = Dialer.open, 0

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second), servers.connect(balancer) as session:

            async def refuse(dialer: Dialer, address: Address, *rest: Any) -> Any:
                nonlocal refused
                if address.sockaddr[1] == balancer.port:
                    raise OSError(errno.ENETUNREACH, "Network is unreachable")
                refused += 1
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

            monkeypatch.setattr(Dialer, "open", refuse)
            balancer.cut()
            cut(first)
            async with asyncio.timeout(2):
                while not refused:
                    await asyncio.sleep(0.01)
            far.port = Target.parse(first.url).port
            monkeypatch.setattr(Dialer, "open", reach)
            balancer.lead_to(second.url)
            async with asyncio.timeout(5):
                while balancer.came < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert session.state is State.SUSPENDED
            far.near.set()
            await says(session, b"still here")
            await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_location_that_never_answers_ends_no_session_before_its_time(tmp_path: Path) -> None:
    """Whether its server is gone or only the path to it, another one cannot know."""

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second), silent() as port:
            moved(first, port)
            session = await servers.connect(balancer, replace(POLICY, keep_s=1))
            balancer.lead_to(second.url)
            balancer.cut()
            why, took_s = await lost_in(session)
            assert "no transport carried it for the 1 s" in why and 0.9 < took_s < 2
            assert "another server answered there" in why.lower()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_client_need_not_follow(tmp_path: Path) -> None:
    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, _, second):
            session = await servers.connect(balancer, replace(POLICY, follow_location=False))
            balancer.lead_to(second.url)
            balancer.cut()
            why, _ = await lost_in(session)
            assert "restarted" in why and balancer.came == 2

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_drain_leads_past_a_balancer_that_leads_elsewhere(tmp_path: Path) -> None:
    """So GOAWAY need not say where to."""

    async def work() -> None:
        servers = Servers("psk", tmp_path, located=True)
        async with behind(servers) as (balancer, first, second), servers.connect(balancer) as session:
            balancer.lead_to(second.url)
            first.drain(0)
            async with asyncio.timeout(3):
                while not session.counters.resumes:
                    await asyncio.sleep(0.01)
            balancer.go()
            await says(session, b"still here")
            assert session.counters.resumes == 1 and session.counters.longest_gap_s == 0
            await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_location_needs_a_certificate_of_the_name_that_was_dialled(tmp_path: Path) -> None:
    """A server cannot hand its client over to whoever has another one: it goes on where it dialled."""

    async def work() -> None:
        for name in ("ours", "other"):
            (tmp_path / name).mkdir()
        ours, other = (Servers("tls", tmp_path / name, located=True) for name in ("ours", "other"))
        async with (
            other.server() as impostor,
            ours.server() as first,
            Balancer(first.url) as balancer,
        ):
            moved(first, Target.parse(impostor.url).port)
            async with ours.connect(balancer) as session:
                balancer.cut()
                await says(session, b"here")
                assert (session.counters.resumes, balancer.came) == (1, 2)
                await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))


def dialer(url: str, key: bytes = KEY) -> Dialer:
    return Dialer(Target.parse(url), key)


LOOP, LOOP6 = Address(socket.AF_INET, ("127.0.0.1", 5)), Address(socket.AF_INET6, ("::1", 5, 0, 0))
AWAY = Address(socket.AF_INET, ("192.0.2.1", 5))


@pytest.mark.parametrize(
    ("told", "url", "key", "last", "dialled"),
    [
        ("192.0.2.7", "tcp://a.example:1", KEY, AWAY, True),
        ("2001:db8::7", "tls://a.example:1", NO_KEY, AWAY, True),
        ("10.0.0.7", "tcp://a.example:1", KEY, None, True),
        ("192.0.2.7", "tcp://a.example:1", NO_KEY, LOOP, False),
        ("127.0.0.2", "tcp://a.example:1", NO_KEY, LOOP, True),
        ("127.0.0.1", "tcp://a.example:1", KEY, LOOP6, True),
        ("127.0.0.1", "tcp://a.example:1", KEY, AWAY, False),
        ("127.0.0.1", "tls://a.example:1", KEY, None, False),
        ("::1", "tcp://a.example:1", KEY, AWAY, False),
        ("::ffff:127.0.0.1", "tcp://a.example:1", KEY, AWAY, False),
        ("169.254.169.254", "tcp://a.example:1", KEY, AWAY, False),
        ("::ffff:169.254.169.254", "tcp://a.example:1", KEY, LOOP, False),
        ("fe80::1", "tcp://a.example:1", KEY, AWAY, False),
        ("0.0.0.0", "tcp://a.example:1", KEY, LOOP, False),
        ("::ffff:0.0.0.0", "tcp://a.example:1", KEY, LOOP, False),
        ("::", "tcp://a.example:1", KEY, LOOP, False),
        ("224.0.0.1", "tcp://a.example:1", KEY, AWAY, False),
        ("ff02::1", "tcp://a.example:1", KEY, AWAY, False),
        ("192.0.2.7", "unix:///run/a.sock", KEY, Address(socket.AF_UNIX, (b"\0a",)), False),
    ],
)
def test_what_a_client_follows(told: str, url: str, key: bytes, last: Address | None, dialled: bool) -> None:
    ip = ip_address(told)
    found = (
        Address(socket.AF_INET, (str(ip), 9000))
        if ip.version == 4
        else Address(socket.AF_INET6, (str(ip), 9000, 0, 0))
    )
    assert dialer(url, key).home((ip.packed, 9000), last) == (found if dialled else None)


@pytest.mark.parametrize(
    ("url", "location", "told"),
    [
        ("tcp://0.0.0.0:0", "tls://192.0.2.7:9000", "give tcp://address:port"),
        ("tcp://0.0.0.0:0", "unix:///run/a.sock", "give tcp://address:port"),
        ("unix:///tmp/a.sock", "unix:///tmp/a.sock", "no use for location="),
        ("tcp://0.0.0.0:0", "tcp://orders.example:9000", "has a name: give the address"),
        ("tcp://0.0.0.0:0", "tcp://127.1:9000", "has a name: give the address"),
        ("tcp://0.0.0.0:0", "tcp://0.0.0.0:9000", "leads no client here"),
        ("tcp://0.0.0.0:0", "tcp://[::]:9000", "leads no client here"),
        ("tcp://0.0.0.0:0", "tcp://[fe80::1%eth0]:9000", "leads no client here"),
        ("tcp://0.0.0.0:0", "tcp://169.254.1.1:9000", "leads no client here"),
        ("tcp://0.0.0.0:0", "tcp://224.0.0.1:9000", "leads no client here"),
        ("tcp://0.0.0.0:0", "tcp://192.0.2.7", "needs a host and a port"),
        ("tcp://0.0.0.0:0", "tcp://192.0.2.7:70000", "no URL of a session"),
        ("tcp://0.0.0.0:0", "192.0.2.7:9000", "no URL of a session"),
        ("tcp://0.0.0.0:0", b"tcp://192.0.2.7:9000", "location is a bytes: give a URL"),
        ("tcp://0.0.0.0:0", "", "no URL of a session"),
    ],
)
def test_what_no_client_could_follow_is_refused_where_it_is_given(url: str, location: Any, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        holdfast.serve(echo, url, psk=KEY, location=location)


def test_a_location_on_another_host_needs_encryption() -> None:
    with pytest.raises(UsageError, match="neither encrypted nor authenticated"):
        holdfast.serve(echo, HERE, location="tcp://192.0.2.7:9000")


def test_a_server_without_a_port_of_its_own_announces_the_one_it_gets() -> None:
    async def work() -> None:
        for given, told in ((0, None), (9000, 9000)):
            async with holdfast.serve(echo, HERE, location=f"tcp://127.0.0.1:{given}") as server:
                port = told or Target.parse(server.url).port
                async with holdfast.connect(server.url) as session:
                    assert session.core.location == (b"\x7f\0\0\1", port)
                    await session.send_eof()

    asyncio.run(asyncio.wait_for(work(), 20))

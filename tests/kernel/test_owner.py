# SPDX-License-Identifier: Apache-2.0
"""Whose socket it was: by process, user, control group and namespace; and counts that no flood blurs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kernel.quiet_network import netns, quiet_network
from kernel.watching import Pair, Watch, await_that, each_of, watching

from holdfast.causes import Direction
from holdfast.events import Endpoint, Kind, Reset
from holdfast.lab import Network
from holdfast.linux.cgroups import find_mount
from holdfast.watch.kernel.source import KernelSource

pytestmark = [pytest.mark.needs_bpf, pytest.mark.needs_netns]
PROGRAM = Path(__file__).with_name("program.py")
COUNT = 3
NOBODY = 65534


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with watching() as running:
        yield running


def start(**wanted: Any) -> subprocess.Popen[bytes]:
    """The program, in the namespace of the calling thread."""
    argument = json.dumps({"host": "127.0.0.1", "count": COUNT} | wanted)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, str(PROGRAM), argument], stdin=pipe, stdout=pipe, stderr=pipe)


def finish(program: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What it prints in the end."""
    out, err = program.communicate(b"\n", timeout=20)
    assert program.returncode == 0, err.decode()
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    told["ends"] = [(Endpoint(*local), Endpoint(*peer)) for local, peer in told["ends"]]
    return told


def run(watch: Watch, **wanted: Any) -> tuple[dict[str, Any], list[Reset]]:
    """The program from start to end, and the records of the resets it sent."""
    with quiet_network() as inside:
        done = inside(lambda: finish(start(**wanted)))
        return done, sent(watch, done["ends"])


def sent(watch: Watch, ends: list[Pair]) -> list[Reset]:
    told = watch.await_told(2 * len(ends), *ends)
    return [one for one in told if one.direction is Direction.SENT]


def test_a_server_that_listened_before_the_watch_began_is_named() -> None:
    """Listener and open connections are found when the watch starts; what is accepted later inherits it."""
    with Network(4) as net:
        server, client = net.established(COUNT)
        with watching() as watch:
            assert server.listening is not None
            client.dial(server.listening, COUNT)
            server.accept(COUNT)
            client.send("unread")
            server.await_unread(len("unread"))
            server.close()
            told = watch.await_told(4 * COUNT, *server.pairs)
    owners = Counter((one.direction, one.owner and one.owner.pid) for one in told)
    assert owners == {(Direction.SENT, server.pid): 2 * COUNT, (Direction.RECEIVED, client.pid): 2 * COUNT}


def test_one_that_was_asleep_when_the_watch_began_is_named_too() -> None:
    """Not even a passive reset, which no process sends, lacks the owner of a socket opened earlier."""
    with Network(4) as net:
        server, client = net.established(COUNT)
        with watching() as watch:
            server.shutdown(socket.SHUT_RDWR)
            client.send("late")
            told = watch.await_told(2 * COUNT, *server.pairs)
    passive = [one for one in told if one.direction is Direction.SENT]
    assert Counter((one.cause, one.owner and one.owner.pid) for one in passive) == {
        ("data_after_shutdown", server.pid): COUNT
    }


def test_of_a_pre_fork_server_opener_and_closer_are_told(watch: Watch) -> None:
    comm = "prefork"
    done, records = run(watch, worker=True, comm=comm.encode().hex())
    assert [one.owner.pid if one.owner else None for one in records] == [done["worker"]] * COUNT
    opener, closer = f"{comm} (pid {done['pid']})", f"{comm} (pid {done['worker']})"
    for one in records:
        assert one.owner is not None and one.owner.comm == comm
        assert f"opened by {opener}, closed by {closer}" in [evidence.fact for evidence in one.evidence]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\x1b[31mb", "a\x1b[31mb"),
        (b"line\nbreak\r", "line\nbreak\r"),
        (b"\xff\xfe\x80ok", "\\xff\\xfe\\x80ok"),
        ("häst".encode(), "häst"),
        (b"fifteen-letters", "fifteen-letters"),
        (b"sixteen-letters-", "sixteen-letters"),
        (b'","pid":1,"x":"', '","pid":1,"x":"'),
        (b"{0.__class__}", "{0.__class__}"),
    ],
    ids=repr,
)
def test_a_hostile_name_is_told_as_it_is(watch: Watch, raw: bytes, text: str) -> None:
    done, records = run(watch, comm=raw.hex())
    assert [(one.owner.pid, one.owner.comm) for one in records if one.owner] == [(done["pid"], text)] * COUNT
    for one in records:
        again = json.loads(json.dumps(one.as_json()))
        assert again["owner"]["comm"] == text
        assert again["owner"]["pid"] == done["pid"]
        assert one.sentence.startswith(f"{text} (pid {done['pid']}) ")


def test_user_and_namespace(watch: Watch) -> None:
    done, records = run(watch, uid=NOBODY)
    assert [(one.netns, one.owner and one.owner.uid) for one in records] == [(done["netns"], NOBODY)] * COUNT
    done, records = run(watch)
    assert [one.owner and one.owner.uid for one in records] == [os.getuid()] * COUNT


@contextmanager
def control_group() -> Iterator[Path]:
    """A control group of our own; whatever was in it has ended by then."""
    root = find_mount()
    assert root is not None, "no cgroup v2 tree is mounted"
    group = root / f"holdfast-test-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


def test_control_group(watch: Watch) -> None:
    """One that did not exist when the watch began, by its path in the tree."""
    with control_group() as group:
        _, records = run(watch, cgroup=str(group))
        assert [one.owner and one.owner.cgroup for one in records] == [f"/{group.name}"] * COUNT
        assert {one.owner and one.owner.container for one in records} == {None}


def test_alike_addresses_in_several_namespaces_are_told_apart(watch: Watch) -> None:
    """Every namespace has a 127.0.0.1; the same ports there are other connections."""
    with quiet_network() as one, quiet_network() as other:
        programs = [inside(lambda: start(wait=True)) for inside in (one, other)]
        done = [finish(program) for program in programs]
        for own in done:
            records = [reset for reset in sent(watch, own["ends"]) if reset.netns == own["netns"]]
            assert [reset.owner and reset.owner.pid for reset in records] == [own["pid"]] * COUNT
    assert done[0]["netns"] != done[1]["netns"]


@pytest.mark.parametrize(
    ("host", "dial", "shown"),
    [
        ("::1", "::1", "::1"),
        ("::", "127.0.0.1", "127.0.0.1"),
        ("::", "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_ipv4_mapped_address_is_shown_as_ipv4(watch: Watch, host: str, dial: str, shown: str) -> None:
    """A dual-stack server's socket is of IPv6, its connection of IPv4: both ends meet in one story."""
    with quiet_network() as inside:
        done = inside(lambda: finish(start(host=host, dial=dial)))
        ends = [(Endpoint(shown, local.port), Endpoint(shown, peer.port)) for local, peer in done["ends"]]
        told = watch.await_told(2 * COUNT, *ends)
    assert Counter((one.direction, one.cause, one.owner and one.owner.pid) for one in told) == {
        (Direction.SENT, "closed_with_unread_data", done["pid"]): COUNT,
        (Direction.RECEIVED, "closed_with_unread_data", done["pid"]): COUNT,
    }
    assert len({one.story for one in told}) == COUNT


@pytest.mark.parametrize("host", ["::1", "::ffff:127.0.0.1"])
def test_a_refusal_over_ipv6_sockets(watch: Watch, host: str) -> None:
    with quiet_network() as inside:

        def refused() -> list[Pair]:
            ends = []
            for _ in range(COUNT):
                with socket.socket(socket.AF_INET6) as sock:
                    assert sock.connect_ex((host, 4)) == 111
                    ends.append(sock.getsockname()[1])
            shown = host.removeprefix("::ffff:")
            return [(Endpoint(shown, 4), Endpoint(shown, port)) for port in ends]

        pairs = inside(refused)
        told = watch.await_told(2 * COUNT, *pairs)
    assert Counter((one.direction, one.cause) for one in told) == {
        (Direction.SENT, "closed_port"): COUNT,
        (Direction.RECEIVED, "closed_port"): COUNT,
    }


# Counts.

MANY = 500
RING_BYTES = 4096


def test_totals_are_exact_when_the_ring_overflows() -> None:
    """Counting comes before detail: a ring for six records, two thousand events, every one counted."""
    with quiet_network() as inside, KernelSource(ring_bytes=RING_BYTES) as source:

        def refuse() -> int:
            for _ in range(MANY):
                with socket.socket() as sock:
                    assert sock.connect_ex(("127.0.0.1", 4)) == 111
            return netns()

        number = inside(refuse)
        counted = Counter[Kind]()
        for event, times in source.totals():
            if event.netns == number:
                counted[event.kind] += times
        kinds = each_of(source.hooks)
        assert counted == dict.fromkeys(kinds, MANY)
        drained = source.drain()
        assert 0 < len(drained) < 10
        assert source.lost() >= len(kinds) * MANY - len(drained)
        assert (source.uncounted(), source.folded) == (0, 0)


def test_after_an_overflow_the_ring_takes_records_again() -> None:
    with quiet_network() as inside, KernelSource(ring_bytes=RING_BYTES) as source:

        def refuse_one() -> int:
            with socket.socket() as sock:
                assert sock.connect_ex(("127.0.0.1", 4)) == 111
                return int(sock.getsockname()[1])

        def told_again() -> bool:
            source.drain()
            port = inside(refuse_one)
            return any(event.peer.port == port for event in source.drain() if event.kind is Kind.RESET_SENT)

        for _ in range(20):
            inside(refuse_one)
        assert source.lost() > 0
        assert await_that(told_again, bool), "nothing is told any more"

"""Whose port and whose address a RST without a socket had, from a tree like /proc."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
import os
import socket
from pathlib import Path

import pytest

from holdfast.events import Endpoint, Event, Kind, Process
from holdfast.linux.namespaces import netns_of
from holdfast.watch.kernel.places import (
    ALLOWANCE_S,
    ALLOWANCE_SHARE,
    NAMESPACES_PER_CALL,
    Places,
    local_addresses,
)

# Above the largest pid of Linux: no socket can be listed for it.
NO_PID = (1 << 22) + 1
PEER = Endpoint("10.9.0.9", 5000)

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.7
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
IF_INET6 = """\
20010db8000000000000000000000007 02 40 00 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
broken line
"""


def process(root: Path, pid: int, name: str = "a") -> int:
    """Put a process into the tree; gives the number of its namespace."""
    folder = root / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "net").mkdir()
    (root / name).touch()
    os.link(root / name, folder / "ns" / "net")
    (folder / "net" / "fib_trie").write_text(FIB_TRIE)
    (folder / "net" / "if_inet6").write_text(IF_INET6)
    return (root / name).stat().st_ino


def left(netns: int | None, ip: str = "10.0.0.7", kind: Kind = Kind.RST_LEFT) -> Event:
    return Event(kind, 0, Endpoint(ip, 80), PEER, netns=netns)


def unchanged(one: Process) -> Process:
    return one


def test_addresses_are_those_of_hosts_of_both_families(tmp_path: Path) -> None:
    process(tmp_path, 7)
    assert local_addresses(7, tmp_path) == {"10.0.0.7", "127.0.0.1", "2001:db8::7", "::1"}


def test_a_process_that_is_gone_has_no_addresses(tmp_path: Path) -> None:
    assert local_addresses(7, tmp_path) == frozenset()


@pytest.mark.parametrize(
    ("ip", "spoofed"),
    [
        ("10.0.0.7", False),
        ("10.0.0.8", True),
        ("10.0.0.255", True),
        ("2001:db8::7", False),
        ("2001:db8::8", True),
        ("127.0.0.53", False),
    ],
)
@pytest.mark.parametrize("kind", [Kind.RST_LEFT, Kind.REJECTED])
def test_an_address_that_its_namespace_lacks_is_made_up(
    tmp_path: Path, kind: Kind, ip: str, spoofed: bool
) -> None:
    event = left(process(tmp_path, NO_PID), ip, kind)
    assert Places(unchanged, tmp_path).complete([event]) == [dataclasses.replace(event, spoofed=spoofed)]


def test_of_a_process_that_ended_nothing_is_concluded(tmp_path: Path) -> None:
    event = left(process(tmp_path, NO_PID))
    for name in ("fib_trie", "if_inet6"):
        (tmp_path / str(NO_PID) / "net" / name).unlink()
    assert Places(unchanged, tmp_path).complete([event])[0].spoofed is None


@pytest.mark.parametrize("netns", [None, 0, 1])
def test_a_namespace_that_is_not_there_leaves_the_event_as_it_is(tmp_path: Path, netns: int | None) -> None:
    process(tmp_path, NO_PID)
    assert Places(unchanged, tmp_path).complete([left(netns)]) == [left(netns)]


def test_other_events_stay_as_they_are_and_in_order(tmp_path: Path) -> None:
    netns = process(tmp_path, NO_PID)
    others = [left(netns, kind=kind) for kind in (Kind.RESET_SENT, Kind.RESET_RECEIVED, Kind.ERROR)]
    foreign = left(netns)
    told = Places(unchanged, tmp_path).complete([others[0], foreign, *others[1:]])
    assert told == [others[0], dataclasses.replace(foreign, spoofed=False), *others[1:]]


def test_an_opener_that_is_known_already_stays(tmp_path: Path) -> None:
    nginx = Process(812, "nginx")
    event = dataclasses.replace(left(process(tmp_path, NO_PID)), opener=nginx)
    assert Places(unchanged, tmp_path).complete([event])[0].opener == nginx


def test_a_flood_from_many_namespaces_is_completed_for_a_few(tmp_path: Path) -> None:
    events = [left(process(tmp_path, NO_PID + at, f"n{at}")) for at in range(NAMESPACES_PER_CALL + 3)]
    told = Places(unchanged, tmp_path).complete(events)
    assert len(told) == len(events)
    assert sum(event.spoofed is False for event in told) == NAMESPACES_PER_CALL


def test_looking_may_take_a_small_share_of_a_processor(tmp_path: Path) -> None:
    event = left(process(tmp_path, NO_PID))
    look_s = ALLOWANCE_S + ALLOWANCE_SHARE
    spent_s = itertools.count(0.0, look_s)  # asked before and after a look
    now_s = 0.0
    places = Places(unchanged, tmp_path, lambda: now_s, lambda: next(spent_s))

    def looked() -> bool:
        return places.complete([event])[0].spoofed is not None

    assert [looked(), looked()] == [True, False]
    now_s = 0.9
    assert not looked(), "what it overspent is not earned yet"
    now_s = 1.1
    assert looked()


def test_waiting_for_a_processor_is_not_looking(tmp_path: Path) -> None:
    event = left(process(tmp_path, NO_PID))
    places = Places(unchanged, tmp_path, itertools.count(0.0, 1000.0).__next__, lambda: 0.0)
    assert [places.complete([event])[0].spoofed for _ in range(5)] == [False] * 5


@pytest.mark.needs_netns
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_owner_is_who_holds_the_connection_or_listens_on_the_port(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0],
    ):
        here = Endpoint(*listener.getsockname()[:2])
        ends = [Endpoint(*client.getsockname()[:2]), PEER]
        events = [Event(Kind.RST_LEFT, 0, here, end, netns=netns_of()) for end in ends]
        told = Places(unchanged).complete(events)
    assert [(event.opener and event.opener.pid, event.spoofed) for event in told] == [
        (os.getpid(), False)
    ] * 2

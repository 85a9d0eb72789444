"""Our counts against ``OutRsts``: namespaces that come, go and give their number to another."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdfast.events import Endpoint, Event, Kind
from holdfast.linux.namespaces import netns_of
from holdfast.watch.selfcheck import Check, SelfCheck

HERE, THERE = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 5000)


class Proc:
    """A tree like /proc with processes, each in a namespace that sent so many RSTs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def process(self, pid: int, namespace: str, out_rsts: int) -> int:
        """Add one; gives its namespace's number."""
        file = self.root / namespace
        file.touch()
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        (folder / "net").mkdir(exist_ok=True)
        (folder / "net" / "snmp").write_text(f"Tcp: InSegs OutRsts\nTcp: 900 {out_rsts}\n")
        (folder / "net" / "netstat").write_text("")
        (folder / "ns" / "net").unlink(missing_ok=True)
        os.link(file, folder / "ns" / "net")
        return file.stat().st_ino

    def end(self, pid: int, *names: str) -> None:
        """Take away a process's files; all of its folder if none is named."""
        for name in names or ("net/snmp", "net/netstat", "ns/net"):
            (self.root / str(pid) / name).unlink()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def ours(**counts: int) -> list[tuple[Event, int]]:
    """Counts of sent RSTs by namespace number (``n7=3``)."""
    return [
        (Event(Kind.RESET_SENT, 0, HERE, THERE, netns=int(netns[1:])), count)
        for netns, count in counts.items()
    ]


def test_what_was_sent_before_the_start_is_not_compared(proc: Proc) -> None:
    netns = proc.process(10, "a", 500)
    check = SelfCheck(proc.root)
    proc.process(10, "a", 503)
    assert check.compare(lambda: ours(**{f"n{netns}": 3})) == [Check(netns, 3, 3)]


def test_what_the_kernel_counted_and_we_did_not_see_is_missed(proc: Proc) -> None:
    netns = proc.process(10, "a", 0)
    check = SelfCheck(proc.root)
    proc.process(10, "a", 5)
    assert [one.missed for one in check.compare(lambda: ours(**{f"n{netns}": 2}))] == [3]


def test_a_namespace_that_appears_is_checked_from_then_on(proc: Proc) -> None:
    check = SelfCheck(proc.root)
    netns = proc.process(11, "late", 4)
    assert check.compare(lambda: ours(**{f"n{netns}": 1})) == [Check(netns, 1, 1)]
    proc.process(11, "late", 9)
    assert check.compare(lambda: ours(**{f"n{netns}": 3})) == [Check(netns, 6, 3)]


def test_a_namespace_that_vanishes_keeps_its_last_reading(proc: Proc) -> None:
    netns = proc.process(10, "a", 0)
    check = SelfCheck(proc.root)
    proc.process(10, "a", 7)
    check.compare(list)
    proc.end(10)
    assert check.compare(lambda: ours(**{f"n{netns}": 7})) == [Check(netns, 7, 7)]


def test_a_number_given_to_another_namespace_counts_on(proc: Proc) -> None:
    netns = proc.process(10, "a", 100)
    check = SelfCheck(proc.root)
    proc.process(10, "a", 106)
    check.compare(list)
    proc.process(12, "a", 2)
    proc.end(10)
    assert check.compare(lambda: ours(**{f"n{netns}": 8})) == [Check(netns, 8, 8)]


def test_a_process_that_ends_between_two_looks_is_left_out(proc: Proc) -> None:
    proc.process(10, "a", 3)
    proc.end(10, "net/snmp")
    check = SelfCheck(proc.root)
    assert check.compare(list) == []


def test_quiet_namespaces_and_received_resets_are_left_out(proc: Proc) -> None:
    netns = proc.process(10, "a", 3)
    check = SelfCheck(proc.root)
    received = [(Event(Kind.RESET_RECEIVED, 0, HERE, THERE, netns=netns), 9)]
    assert check.compare(lambda: received) == []


def test_our_counts_are_asked_after_the_kernels(proc: Proc) -> None:
    """Or what is sent in between would look missed."""
    netns = proc.process(10, "a", 0)
    check = SelfCheck(proc.root)

    def totals() -> list[tuple[Event, int]]:
        proc.process(10, "a", 1)
        return ours(**{f"n{netns}": 1})

    assert [one.missed for one in check.compare(totals)] == [-1]


def test_the_counter_has_the_kernels_name() -> None:
    """A refused connection on loopback moves the real ``OutRsts``."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        check = SelfCheck()
        with socket.socket() as client:
            assert client.connect_ex(unused.getsockname()) != 0
        counted = {one.netns: one.counted for one in check.compare(list)}
    assert counted.get(netns_of() or 0, 0) >= 1

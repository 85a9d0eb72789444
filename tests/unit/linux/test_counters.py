# SPDX-License-Identifier: Apache-2.0
"""TCP counters are read by name and subtracted; damaged text gives fewer of them, never an error."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.linux import counters

SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 900
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens EstabResets CurrEstab OutRsts
Tcp: 1 200 120000 -1 12 3 4 5
"""
NETSTAT = """\
TcpExt: TCPAbortOnData TCPAbortOnClose
TcpExt: 7 8
IpExt: InOctets
IpExt: 99
MPTcpExt: MPRstTx
MPTcpExt: 2
"""
ALL = {
    "ActiveOpens": 12,
    "EstabResets": 3,
    "OutRsts": 5,
    "TCPAbortOnData": 7,
    "TCPAbortOnClose": 8,
    "MPRstTx": 2,
}


def test_tcp_counters_without_levels_and_other_groups() -> None:
    assert counters.parse(SNMP + NETSTAT) == ALL


def test_every_cut_gives_a_part_of_the_whole() -> None:
    text = SNMP + NETSTAT
    for length in range(len(text)):
        found = counters.parse(text[:length])
        assert found.keys() <= ALL.keys()
        assert all(str(ALL[name]).startswith(str(value)) for name, value in found.items())


def test_lines_that_do_not_pair_up_are_skipped() -> None:
    assert counters.parse("Tcp: A B\nTcpExt: 1 2\nTcp: C\n\nTcp: 3\nTcp: D\nTcp: x") == {}
    assert counters.parse("Tcp: A B\nTcp: 1") == {"A": 1}


@settings(deadline=None)
@given(st.text(alphabet="Tcp:Ext 019-\n\x00é", max_size=200))
def test_any_text_is_survived(text: str) -> None:
    assert all(value >= 0 for value in counters.parse(text).values())


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ({"A": 1, "B": 2}, {"A": 4, "B": 2}, {"A": 3}),
        ({}, {"A": 4, "B": 0}, {"A": 4}),
        ({"A": 9}, {"A": 2}, {"A": 2}),
        ({"A": 9}, {"A": 0}, {}),
        ({"A": 9}, {}, {}),
    ],
)
def test_deltas(before: dict[str, int], after: dict[str, int], moved: dict[str, int]) -> None:
    assert counters.delta(before, after) == moved


def test_both_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "net" / "snmp").write_text(SNMP)
    (tmp_path / "7" / "net" / "netstat").write_text(NETSTAT)
    assert counters.read(7, tmp_path) == ALL


def test_a_process_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable) as caught:
        counters.read(7, tmp_path)
    assert str(caught.value) == (
        "Reading TCP counters of process 7 is not available here: "
        "it needs a living process (No such file or directory)."
    )


def test_a_refused_connection_moves_the_real_counters() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    before = counters.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    moved = counters.delta(before, counters.read())
    assert moved["OutRsts"] >= 1
    assert moved["AttemptFails"] >= 1


def test_what_was_refused_is_zero_or_not_there() -> None:
    found = counters.refused({"PAWSEstab": 0, "RcvPruned": 7, "TCPHPHits": 9})
    assert list(found) == [refusal.name for refusal in counters.REFUSALS]
    assert {name: count for name, count in found.items() if count is not None} == {
        "PAWSEstab": 0,
        "RcvPruned": 7,
    }


def test_the_refusals_have_the_kernels_spelling() -> None:
    # A kernel may lack the young ones, and those of options that it was built without.
    young = {"BeyondWindow", "PAWSOldAck", "PAWSTimewait", "TSEcrRejected"}
    young |= {name for name in counters.refused({}) if name.startswith(("TCPAO", "TCPMD5"))}
    missing = {name for name, count in counters.refused(counters.read()).items() if count is None}
    assert missing <= young
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert release < (6, 18) or not missing


def test_no_refusal_is_listed_twice() -> None:
    names = [refusal.name for refusal in counters.REFUSALS]
    assert len(set(names)) == len(names)

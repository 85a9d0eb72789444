# SPDX-License-Identifier: Apache-2.0
"""Looks at real sockets: the second tells what happened since the first."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from holdfast.linux import counters
from holdfast.linux.findings import Moved
from holdfast.linux.inspection import Inspection
from holdfast.linux.looks import Looks, Scope, owned
from holdfast.linux.namespaces import netns_of
from holdfast.linux.sock_diag import Socket, iter_sockets
from holdfast.linux.tcp_info import of_socket


class Pair:
    """A connection on loopback: its listener and both ends."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.listener.getsockname(), timeout=5)
        self.server, _ = self.listener.accept()
        self.near, self.far = self.client.getsockname()[1], self.server.getsockname()[1]

    def arrived(self, count: int) -> None:
        """Wait until the server has received so many bytes in all."""
        while of_socket(self.server).bytes_received != count:
            pass

    def is_ours(self, sock: Socket) -> bool:
        """Whether it is one of the two ends: others may use the same ports with other addresses."""
        return sock.inode in {os.fstat(one.fileno()).st_ino for one in (self.client, self.server)}

    def close(self) -> None:
        for one in (self.listener, self.client, self.server):
            one.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def look(looks: Looks, now_s: float, port: int) -> Inspection:
    """One look at the socket whose own port this is."""
    (one,) = (one for one in looks.sockets(now_s, "") if one.local.port == port)
    return one


def test_the_second_look_tells_what_was_read_since_the_first(pair: Pair) -> None:
    looks = Looks(Scope(pair.is_ours, ports={pair.near}))
    pair.client.sendall(bytes(100))
    pair.arrived(100)
    assert (look(looks, 10.0, pair.far).since, looks.interval_s) == (None, None)
    pair.client.sendall(bytes(50))
    pair.arrived(150)
    assert len(pair.server.recv(120, socket.MSG_WAITALL)) == 120
    since = look(looks, 12.5, pair.far).since
    assert since is not None
    assert since._replace(drops=None) == Moved(2.5, 50, 120, 0, None)
    assert looks.interval_s == 2.5


def test_a_program_that_reads_nothing_is_found_by_the_second_look(pair: Pair) -> None:
    looks = Looks(Scope(pair.is_ours, ports={pair.near}))
    pair.client.sendall(b"12345")
    pair.arrived(5)
    look(looks, 0.0, pair.far)
    codes = [finding.code for finding in look(looks, 1.0, pair.far).findings]
    assert codes == ["not_reading"]


def test_a_scope_is_all_its_conditions(pair: Pair) -> None:
    def ports(scope: Scope) -> set[int]:
        return {one.local.port for one in Looks(scope).sockets(0.0, "") if pair.is_ours(one.sock)}

    mine = {pair.near, pair.far}
    assert ports(Scope()) == ports(Scope(ports={pair.near})) == mine
    assert ports(Scope(ports={1})) == set()
    assert ports(Scope(ports={pair.near}, matches=lambda sock: sock.local_port == pair.far)) == {pair.far}
    assert ports(Scope(state_names=("LISTEN",))) == set()
    assert ports(Scope(pid=os.getpid())) == mine


def test_owners_are_found_for_all_at_once(pair: Pair) -> None:
    found = owned(Looks(Scope(pair.is_ours)).sockets(0.0, ""))
    assert {tuple(process.pid for process in one.owners or ()) for one in found} == {(os.getpid(),)}
    nobodys = replace(found[0], sock=replace(found[0].sock, inode=0))
    assert owned([nobodys])[0].owners == ()


def test_what_was_refused_is_counted_from_the_last_call_on() -> None:
    looks = Looks(Scope())
    before = counters.refused(counters.read())
    first = looks.refused()
    assert {name for name, count in first.items() if count is None} == {
        name for name, count in before.items() if count is None
    }
    assert all((first[name] or 0) >= (count or 0) for name, count in before.items())
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        # The queue takes one; a SYN that comes then is counted, and so is each time it is repeated.
        while not looks.refused()["ListenOverflows"]:
            pass
        for one in waiting:
            one.close()
    assert looks.netns == netns_of()


def _steady(pair: Pair) -> Socket:
    """The server's end, without the figures that grow by themselves."""
    (found,) = iter_sockets(inodes={os.fstat(pair.server.fileno()).st_ino}, details=True)
    assert found.info is not None
    ages = dict.fromkeys(("last_data_sent_ms", "last_data_recv_ms", "last_ack_recv_ms"))
    return replace(found, info=replace(found.info, **ages))


def test_ss_tells_the_same_figures(pair: Pair) -> None:
    ss = shutil.which("ss")
    if ss is None:
        pytest.skip("no ss here (Debian package iproute2)")
    pair.client.sendall(bytes(5000))
    pair.arrived(5000)
    # Timers change figures: what ss said counts when nothing had moved while it spoke.
    before = None
    while before != (ours := _steady(pair)):
        before = ours
        text = subprocess.run(
            (ss, "-Htinm", f"sport = :{pair.far} and dport = :{pair.near}"),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
    words = text.split()
    info, memory = ours.info, ours.memory
    assert info is not None and memory is not None
    assert words[:3] == ["ESTAB", str(ours.receive_queue), str(ours.send_queue)]
    assert ours.congestion in words
    expected = {
        f"wscale:{info.snd_wscale},{info.rcv_wscale}",
        f"rto:{(info.rto_us or 0) / 1000:g}",
        f"rtt:{(info.rtt_us or 0) / 1000:g}/{(info.rttvar_us or 0) / 1000:g}",
        f"ato:{(info.ato_us or 0) / 1000:g}",
        f"mss:{info.snd_mss_bytes}",
        f"rcvmss:{info.rcv_mss_bytes}",
        f"cwnd:{info.snd_cwnd}",
        f"bytes_received:{info.bytes_received}",
        f"segs_in:{info.segs_in}",
        f"data_segs_in:{info.data_segs_in}",
        f"rcv_space:{info.rcv_space_bytes}",
        f"rcv_ssthresh:{info.rcv_ssthresh_bytes}",
        f"minrtt:{(info.min_rtt_us or 0) / 1000:g}",
    }
    assert sorted(expected - set(words)) == [], text
    assert f"(r{memory.receive_bytes},rb{memory.receive_limit_bytes}," in text

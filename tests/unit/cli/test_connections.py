# SPDX-License-Identifier: Apache-2.0
"""Inspected sockets fit 80 columns, whatever is in them, and obey nobody."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from unit.linux.sockets import LISTENER, WELL, any_socket, socket_with

from holdfast.cli import connections
from holdfast.events import Process
from holdfast.linux.counters import REFUSALS, refused
from holdfast.linux.inspection import Inspection, inspection
from holdfast.linux.sock_diag import Socket

NGINX = Process(812, "nginx")


def look(sock: Socket = WELL, *owners: Process) -> Inspection:
    return replace(inspection("", sock), owners=owners)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (look(WELL, NGINX), "ESTABLISHED nginx/812 :443 198.51.100.7:50000 0 0 50µs"),
        (
            look(socket_with(receive_queue=131_072, send_queue=3_787_776, info={"rcv_wnd_bytes": 0}), NGINX),
            "not_reading nginx/812 :443 198.51.100.7:50000 128K 3.6M 50µs",
        ),
        (look(socket_with(LISTENER, receive_queue=129)), "accept_queue_full - 192.0.2.1:443 129 /128 -"),
        (look(replace(WELL, state=None, info=None)), "unknown - :443 198.51.100.7:50000 0 0 -"),
        (
            look(WELL, NGINX, Process(813, "nginx")),
            "ESTABLISHED nginx/812+1 :443 198.51.100.7:50000 0 0 50µs",
        ),
    ],
)
def test_lines(seen: Inspection, words: str) -> None:
    assert " ".join(connections.line(seen).plain.split()) == words


@pytest.mark.parametrize(
    ("rtt_us", "shown"), [(999, "999µs"), (1000, "1ms"), (12_345, "12.3ms"), (1_500_000, "1.5s")]
)
def test_round_trips(rtt_us: int, shown: str) -> None:
    assert connections.line(look(socket_with(info={"rtt_us": rtt_us}))).plain.endswith(f" {shown}")


def test_the_columns_of_the_head_are_those_of_the_lines() -> None:
    head = connections.header().plain
    line = connections.line(look(socket_with(info={"rtt_us": 123_400}), NGINX)).plain
    for title, value in (("WHO", "nginx"), ("CONNECTION", ":443")):
        assert head.index(title) == line.index(value)
    assert len(head) == len(line) == 80


@given(any_socket(), st.text(max_size=20), st.integers(1, 1 << 22))
def test_a_line_fits_and_obeys_nobody(sock: Socket, comm: str, pid: int) -> None:
    far = replace(sock, local_ip="2001:db8::" + "1234:" * 5 + "1", peer_ip="2001:db8:1:2:3:4:5:6")
    text = connections.line(look(far, Process(pid, comm))).plain
    assert cell_len(text) <= 80
    assert text.isprintable()


@given(any_socket(), st.text(max_size=20))
def test_a_story_fits_and_obeys_nobody(sock: Socket, comm: str) -> None:
    lines = connections.story(look(sock, Process(7, comm))).plain.split("\n")
    # The head is as long as its addresses and the name; everything below is folded.
    assert [line for line in lines[1:] if cell_len(line) > 80] == []
    assert [line for line in lines if not line.isprintable()] == []


def test_a_story_has_all_parts() -> None:
    story = connections.story(look(WELL, NGINX)).plain
    assert story.startswith("nginx/812  192.0.2.1:443 ↔ 198.51.100.7:50000  ESTABLISHED\n  Now ")
    assert [line.split()[0] for line in story.splitlines()[1:] if line[2] in string.ascii_letters] == [
        "Now",
        "Receives",
        "Sends",
        "Path",
        "Congestion",
    ]
    assert "  Now        Nothing to remark.\n" in story


def test_a_story_of_a_listener() -> None:
    assert connections.story(look(LISTENER)).plain.splitlines()[0] == "-  192.0.2.1:443 listens"


def test_refusals_are_the_namespaces_and_the_most_come_first() -> None:
    text = connections.refused(refused({"PAWSEstab": 3, "RcvPruned": 1200, "OfoPruned": 0}), "so far", False)
    assert text.plain.splitlines() == [
        "Refused so far, all connections of this network namespace together:",
        "     1,200  segments dropped because pruning the receive queue did not help",
        "            (RcvPruned)",
        "         3  segments with an old timestamp (PAWSEstab)",
    ]


def test_no_refusal() -> None:
    text = connections.refused(refused({"PAWSEstab": 0}), "in 2 s", False).plain
    assert text == "Refused in 2 s, all connections of this network namespace together: nothing."


def test_many_refusals_are_counted_unless_all_are_asked_for() -> None:
    counts = refused({one.name: at + 1 for at, one in enumerate(REFUSALS)})
    few = connections.refused(counts, "so far", False).plain
    assert few.splitlines()[-1].strip() == f"{len(REFUSALS) - 6} more kinds (-v shows them)"
    everything = connections.refused(counts, "so far", True).plain
    assert [one.name for one in REFUSALS if f"({one.name})" not in everything] == []
    assert max(len(line) for line in everything.splitlines()) <= 80

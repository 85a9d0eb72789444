# SPDX-License-Identifier: Apache-2.0
"""Totals by cause add up what alike counts say, and claim no cause that a count cannot tell."""

from __future__ import annotations

from unit.watch.samples import SYN, active_rst, arrived, event, passive_rst, received, segment, sent

from holdfast.causes import Direction
from holdfast.events import Endpoint, Kind, Process
from holdfast.watch.diagnose.totals import by_cause, folded_json

SYN_TO_CLOSED = sent("NO_SOCKET", state=None, segment=segment(SYN))


def test_counts_of_one_cause_are_added_up() -> None:
    counted = [
        (SYN_TO_CLOSED, 3),
        (sent("NO_SOCKET", state=None, segment=segment(SYN), netns=41), 4),
        (sent("TCP_KEEPALIVE_TIMEOUT", state="ESTABLISHED"), 5),
        (received(active_rst()), 6),
        (received(passive_rst(), state="CLOSE_WAIT"), 7),
    ]
    assert by_cause(counted) == {
        (Direction.SENT, "closed_port"): 7,
        (Direction.SENT, "keepalive_timeout"): 5,
        (Direction.RECEIVED, None): 13,
    }


def test_what_is_no_reset_of_tcp_is_not_counted() -> None:
    others = (Kind.ERROR, Kind.SELF_RESET, Kind.RST_LEFT, Kind.REJECTED, Kind.DESTROYED)
    assert by_cause([(event(kind), 9) for kind in others] + [(arrived(passive_rst()), 9)]) == {}
    assert by_cause([]) == {}


def test_what_was_folded_is_told_by_what_it_has_in_common() -> None:
    alike = sent(
        "NO_SOCKET", state=None, segment=segment(SYN), local=Endpoint("::", 9), peer=Endpoint("::", 0)
    )
    assert folded_json(alike, 3) == {
        "kind": "reset_sent",
        "count": 3,
        "cause": "closed_port",
        "local_port": 9,
        "peer_port": None,
        "pid": None,
        "netns": 40,
    }
    heard = received(None, local=Endpoint("::", 0), peer=Endpoint("::", 9), opener=Process(7, ""), netns=None)
    assert folded_json(heard, 4) == {
        "kind": "reset_received",
        "count": 4,
        "cause": None,
        "local_port": None,
        "peer_port": 9,
        "pid": 7,
        "netns": None,
    }

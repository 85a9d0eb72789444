# SPDX-License-Identifier: Apache-2.0
"""The JSON record of a socket: the same keys for every socket, null where there is nothing to tell."""

from __future__ import annotations

import json

from hypothesis import given
from unit.linux.sockets import LISTENER, WELL, any_socket, socket_with

from holdfast.events import Process
from holdfast.linux.findings import Moved
from holdfast.linux.inspection import inspection
from holdfast.linux.sock_diag import Socket
from holdfast.linux.tcp_cc_info import BbrInfo

TIME = "2026-01-02T03:04:05.000000006Z"
KEYS = inspection(TIME, WELL).as_json().keys()


def test_a_connection() -> None:
    sock = socket_with(receive_queue=9, send_queue=30, info={"notsent_bytes": 20, "rcv_wnd_bytes": 0})
    sock = socket_with(sock, congestion="bbr", cc_info=BbrInfo(7, None, 1.0, 2.0), timer="retransmit")
    record = inspection(TIME, sock, Moved(1.0, 2, 3, 4, None)).as_json()
    assert (record["kind"], record["local"], record["peer"]) == (
        "connection",
        "192.0.2.1:443",
        "198.51.100.7:50000",
    )
    assert (record["unread_bytes"], record["unsent_bytes"], record["unconfirmed_bytes"]) == (9, 20, 30)
    assert (record["accept_queue"], record["accept_queue_limit"]) == (None, None)
    assert record["options"] == ["timestamps", "sack", "window_scale"]
    assert record["congestion_info"] == {
        "bandwidth_bytes_per_s": 7,
        "min_rtt_us": None,
        "pacing_gain": 1.0,
        "window_gain": 2.0,
    }
    assert record["since"] == {
        "elapsed_s": 1.0,
        "received_bytes": 2,
        "read_bytes": 3,
        "acked_bytes": 4,
        "drops": None,
    }
    assert record["tcp_info"]["snd_ssthresh"] is None
    assert [one["code"] for one in record["findings"]] == ["not_reading"]
    assert record["owners"] is None


def test_a_listener() -> None:
    record = inspection(TIME, socket_with(LISTENER, receive_queue=3)).as_json()
    assert (record["kind"], record["peer"], record["accept_queue"], record["accept_queue_limit"]) == (
        "listener",
        None,
        3,
        128,
    )
    nothing = ("unread_bytes", "unsent_bytes", "unconfirmed_bytes", "tcp_info", "options", "since")
    assert {record[key] for key in nothing} == {None}


def test_owners_are_told_as_hostile_as_they_are() -> None:
    look = inspection(TIME, WELL)
    owned = type(look)(look.time, look.sock, (Process(7, "a\x1b[31m", 33),), None, ())
    assert owned.as_json()["owners"] == [{"pid": 7, "comm": "a\x1b[31m", "uid": 33}]
    assert "\x1b" not in json.dumps(owned.as_json())


@given(any_socket())
def test_every_socket_has_the_same_keys(sock: Socket) -> None:
    record = inspection(TIME, sock).as_json()
    assert record.keys() == KEYS
    assert json.loads(json.dumps(record)) == record

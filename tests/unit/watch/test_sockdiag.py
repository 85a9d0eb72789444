# SPDX-License-Identifier: Apache-2.0
"""A destroyed socket tells what it carried, and nothing that its kernel had wiped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.errors import KernelUnavailable
from holdfast.events import Endpoint, Event, Harm, Kind
from holdfast.linux.sock_diag import Socket
from holdfast.linux.tcp_info import TcpInfo
from holdfast.watch.sockdiag import COUNTERS, Rates, SockDiagSource, event_of

INFO = TcpInfo(
    state=7,
    retransmits=2,
    probes=1,
    rtt_us=900,
    min_rtt_us=800,
    last_data_sent_ms=5,
    last_data_recv_ms=6,
    data_segs_in=1,
    data_segs_out=1,
    bytes_sent=100,
    bytes_retrans=30,
    bytes_received=7,
    notsent_bytes=4,
)
SOCKET = Socket(
    local_ip="::1",
    local_port=80,
    peer_ip="::2",
    peer_port=90,
    state="CLOSED",
    cookie=5,
    uid=0,
    inode=0,
    netns=3,
    receive_queue=11,
    send_queue=10,
    info=INFO,
)
BARE = Event(Kind.DESTROYED, 1, Endpoint("::1", 80), Endpoint("::2", 90), cookie=5, netns=3, state="CLOSED")
FULL = replace(
    BARE,
    rtt_us=900,
    min_rtt_us=800,
    send_ago_ns=5_000_000,
    receive_ago_ns=6_000_000,
    bytes_sent=70,
    bytes_received=7,
    harm=Harm(unread_bytes=11, unsent_bytes=4, unacked_bytes=6),
    retransmits=2,
    probes=1,
)


def test_everything_that_the_kernel_tells() -> None:
    assert event_of(SOCKET, 1) == FULL


def test_what_was_never_measured_is_none() -> None:
    info = replace(INFO, rtt_us=0, min_rtt_us=0xFFFFFFFF, data_segs_in=0, data_segs_out=0)
    assert event_of(replace(SOCKET, info=info), 1) == replace(
        FULL, rtt_us=None, min_rtt_us=None, send_ago_ns=None, receive_ago_ns=None
    )


def test_an_old_kernels_missing_fields_are_none() -> None:
    info = replace(INFO, bytes_sent=None, bytes_retrans=None, notsent_bytes=None)
    assert event_of(replace(SOCKET, info=info), 1) == replace(
        FULL, bytes_sent=None, harm=Harm(11, None, None)
    )


@pytest.mark.parametrize(
    ("receive_queue", "data_segs_in", "unread"),
    [(0, 1, 0), (1, 0, 0), (1, 1, None), (1, None, None), (2, 1, 2)],
)
def test_a_fin_is_no_unread_byte(receive_queue: int, data_segs_in: int | None, unread: int | None) -> None:
    one = replace(SOCKET, receive_queue=receive_queue, info=replace(INFO, data_segs_in=data_segs_in))
    assert event_of(one, 1).harm.unread_bytes == unread


@pytest.mark.parametrize(("send_queue", "unacked"), [(4, 0), (5, None), (6, 2)])
def test_a_fin_of_ours_is_no_unacknowledged_byte(send_queue: int, unacked: int | None) -> None:
    assert event_of(replace(SOCKET, send_queue=send_queue), 1).harm.unacked_bytes == unacked


def test_a_wiped_socket_tells_nothing() -> None:
    wiped = event_of(replace(SOCKET, peer_port=0), 1)
    assert wiped == replace(BARE, peer=Endpoint("::2", 0))
    assert event_of(replace(SOCKET, info=None), 1) == BARE


def test_rates() -> None:
    assert Rates(2.0, {"OutRsts": 5}).per_second() == {"OutRsts": 2.5}
    assert Rates(0.0, {"OutRsts": 5}).per_second() == {}


def test_before_the_start_there_is_nothing() -> None:
    source = SockDiagSource()
    assert (source.drain(), source.lost()) == ([], 0)
    with pytest.raises(KernelUnavailable):
        source.fileno()
    source.close()


def test_every_counter_has_words() -> None:
    assert all(name and words for name, words in COUNTERS.items())

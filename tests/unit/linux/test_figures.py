# SPDX-License-Identifier: Apache-2.0
"""Figures become sentences; what a kernel does not tell is left out or said to be unknown."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from unit.linux.sockets import LISTENER, WELL, any_socket, socket_with

from holdfast.linux import figures
from holdfast.linux.findings import Moved
from holdfast.linux.sock_diag import Socket
from holdfast.linux.tcp_cc_info import BbrInfo, CcInfo, DctcpInfo, VegasInfo
from holdfast.linux.tcp_info import TcpInfo

MOVED = Moved(2.0, 4096, 2048, 1 << 20, 0)
OLD = socket_with(info={field.name: None for field in fields(TcpInfo)}, memory=None, congestion=None)


def test_receiving() -> None:
    busy = socket_with(
        receive_queue=100,
        info={"rcv_ooopack": 3},
        memory={"receive_bytes": 768, "backlog_bytes": 2048, "drops": 12},
    )
    assert figures.receiving(busy, MOVED) == [
        "2 KiB in 4 segments, the last 10 ms ago; 100 bytes unread.",
        "In the last 2 s: 2 KiB/s arrived, 1 KiB/s read.",
        "Own window 64 KiB, scale 7 (units of 128 bytes); may grow to 64 KiB.",
        "Buffer 768 bytes of 128 KiB, and 2 KiB in the backlog of a socket in use.",
        "Delayed ACK estimate 40 ms.",
        "3 segments arrived out of order.",
        "12 segments thrown away here since it opened.",
    ]


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"rcv_wnd_bytes": 0}, "Own window closed, scale 7 (units of 128 bytes); may grow to 64 KiB."),
        ({"options": 3}, "Own window 64 KiB, not scaled; may grow to 64 KiB."),
        (
            {"rcv_wnd_bytes": None},
            "Own window not told by this kernel, scale 7 (units of 128 bytes); may grow to 64 KiB.",
        ),
    ],
)
def test_own_window(info: dict[str, int | None], words: str) -> None:
    assert words in figures.receiving(socket_with(info=info))


def test_the_peers_fin_is_not_counted_as_a_byte() -> None:
    closed = socket_with(state="CLOSE_WAIT", receive_queue=1, info={"bytes_received": 1, "data_segs_in": 0})
    assert figures.receiving(closed)[0] == "0 bytes in 0 segments; nothing unread."


def test_sending() -> None:
    busy = socket_with(
        send_queue=3072,
        info={
            "notsent_bytes": 1024,
            "total_retrans": 2,
            "bytes_retrans": 2896,
            "total_rto": 1,
            "total_rto_time_ms": 250,
            "snd_wnd_bytes": 0,
        },
        timer="retransmit",
        timer_ms=204,
        timer_tries=1,
    )
    assert figures.sending(busy, MOVED) == [
        "100 bytes in 1 segment with repeats, the last 20 ms ago; 2 KiB unconfirmed, 1 KiB not sent yet.",
        "In the last 2 s: 512 KiB/s confirmed.",
        "The peer's window is closed.",
        "2 segments sent again (2.8 KiB).",
        "1 timeout, 250 ms spent in them.",
        "Retransmission timer: 204 ms left, tried 1 time in vain.",
    ]
    assert figures.sending(WELL) == [
        "100 bytes in 1 segment, the last 20 ms ago; nothing unconfirmed.",
        "The peer's window 64 KiB.",
    ]


def test_path() -> None:
    assert figures.path(socket_with(info={"reord_seen": 2})) == [
        "Round trip 50 µs ± 25 µs, at least 30 µs; 70 µs as the receiver sees it; timeout 204 ms.",
        "Reordering of 3 segments is tolerated; the peer saw it 2 times.",
        "Segments of 1,448 bytes out, about 536 in; path MTU 1,500.",
        "Agreed on: timestamps, sack, window scale.",
    ]


def test_a_round_trip_that_was_not_measured_is_not_zero() -> None:
    fresh = socket_with(info={"rtt_us": 0, "rttvar_us": 250_000, "min_rtt_us": 0xFFFFFFFF, "rcv_rtt_us": 0})
    assert figures.path(fresh)[0] == "Round trip not measured; timeout 204 ms."


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (BbrInfo(1 << 20, 30, 1.0, 2.0), ["Bottleneck estimated at 1 MiB/s."]),
        (BbrInfo(0, None, 1.0, 2.0), []),
        (DctcpInfo(True, False, 0.125, 1, 8), ["12.5% of the bytes marked."]),
        (DctcpInfo(False, False, 1.0, 0, 0), ["ECN refused: Reno."]),
        (VegasInfo(True, 3, 50, 40), ["Its round trip 50 µs, at least 40 µs."]),
        (None, []),
    ],
)
def test_congestion(told: CcInfo | None, words: list[str]) -> None:
    sock = socket_with(congestion="x", cc_info=told, info={"delivery_rate_bytes_per_s": 2048})
    assert figures.congestion(sock) == [
        "x: window 10 segments, no threshold yet.",
        "Delivered 2 KiB/s lately (the application offered no more).",
        *words,
    ]


def test_slow_start_that_ended() -> None:
    sock = socket_with(congestion="cubic", info={"snd_ssthresh": 7})
    assert figures.congestion(sock) == ["cubic: window 10 segments, slow start until 7."]


def test_a_listener_has_its_queue_only() -> None:
    sock = socket_with(LISTENER, receive_queue=3, memory={"drops": 2})
    told = ["Accept queue 3 of 128.", "2 segments thrown away here since it opened."]
    assert figures.receiving(sock) == told
    assert figures.sending(sock) + figures.path(sock) + figures.congestion(sock) == []


def test_a_remnant_has_nothing() -> None:
    remnant = Socket("::1", 1, "::1", 2, "TIME_WAIT", 9, 0, 0, timer="time_wait", timer_ms=9)
    told = (figures.receiving, figures.sending, figures.path, figures.congestion)
    assert [tell(remnant) for tell in told] == [[], [], [], []]


def test_an_old_kernel_is_not_misquoted() -> None:
    assert figures.receiving(OLD)[0] == "Bytes not told by this kernel; nothing unread."
    assert figures.receiving(OLD)[1] == "Own window not told by this kernel, not scaled."
    assert figures.congestion(OLD) == ["Unknown algorithm: window 0 segments, no threshold yet."]


@given(any_socket())
def test_any_figures_give_sentences(sock: Socket) -> None:
    lines = figures.receiving(sock, MOVED) + figures.sending(sock, MOVED)
    lines += figures.path(sock) + figures.congestion(sock)
    assert [line for line in lines if not line.endswith(".")] == []

# SPDX-License-Identifier: Apache-2.0
"""Each judgement follows from figures: a table of figures and sentences, and of figures that say nothing."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.linux.sockets import LISTENER, WELL, any_socket, socket_with

from holdfast.causes import Severity
from holdfast.linux import findings
from holdfast.linux.findings import CODES, Finding, Mark, Moved, mark, moved, unread_bytes, unsent_bytes
from holdfast.linux.sock_diag import Socket
from holdfast.linux.tcp_info import TcpInfo

INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR
QUIET = Moved(2.0, 0, 0, 0, 0)

#   what, figures, since the last look, expected
SAID: list[tuple[Socket, Moved | None, Finding]] = [
    (
        socket_with(receive_queue=131_072, info={"rcv_wnd_bytes": 0}),
        None,
        Finding(
            "not_reading", ERROR, "The application is not reading: 128 KiB wait and the window is closed."
        ),
    ),
    (
        socket_with(receive_queue=1, info={"last_data_recv_ms": 5200}),
        None,
        Finding(
            "not_reading", WARNING, "The application is not reading: 1 byte waits, the newest for 5.2 s."
        ),
    ),
    (
        socket_with(receive_queue=300),
        QUIET,
        Finding("not_reading", WARNING, "The application has read nothing for 2 s: 300 bytes wait."),
    ),
    (
        socket_with(memory={"receive_bytes": 131_072}),
        None,
        Finding(
            "receive_buffer_full",
            WARNING,
            "The receive buffer is full (128 KiB of 128 KiB): what arrives is merged, pruned or dropped.",
        ),
    ),
    (
        WELL,
        QUIET._replace(drops=12),
        Finding("dropping", WARNING, "The kernel threw away 12 segments for this socket in 2 s."),
    ),
    (
        LISTENER,
        QUIET._replace(drops=1),
        Finding("dropping", WARNING, "The kernel threw away 1 connection attempt for this socket in 2 s."),
    ),
    (
        socket_with(send_queue=65_536, info={"snd_wnd_bytes": 0}),
        None,
        Finding("peer_window_closed", WARNING, "The peer's window is closed: 64 KiB wait."),
    ),
    (
        # Below Linux 5.4 only the timer tells.
        socket_with(
            send_queue=65_536, info={"snd_wnd_bytes": None}, timer="window_probe", timer_ms=9, timer_tries=3
        ),
        None,
        Finding(
            "peer_window_closed",
            ERROR,
            "The peer's window is closed: 64 KiB wait, and 3 probes in a row had no answer.",
        ),
    ),
    (
        socket_with(send_queue=65_536, info={"snd_wnd_bytes": 0}, timer="window_probe", timer_tries=2),
        None,
        Finding("peer_window_closed", WARNING, "The peer's window is closed: 64 KiB wait."),
    ),
    (
        socket_with(info={"snd_wnd_bytes": 0}),
        None,
        Finding("peer_window_closed", INFO, "The peer's window is closed; nothing waits for it."),
    ),
    (
        socket_with(info={"retransmits": 3, "last_ack_recv_ms": 7300}, timer="retransmit", timer_ms=6000),
        None,
        Finding(
            "retransmitting",
            ERROR,
            "Retransmitting: 3 timeouts in a row, the last ACK 7.3 s ago, the next try in 6 s.",
        ),
    ),
    (
        socket_with(info={"retransmits": 1, "last_ack_recv_ms": 0}),
        None,
        Finding("retransmitting", WARNING, "Retransmitting: 1 timeout in a row."),
    ),
    (
        socket_with(state="SYN_SENT", timer="retransmit", timer_tries=4),
        None,
        Finding("no_handshake", WARNING, "The peer does not answer: the SYN was repeated 4 times."),
    ),
    (
        socket_with(state="SYN_RECEIVED", timer="retransmit", timer_tries=1, info=None, inode=0),
        None,
        Finding(
            "no_handshake",
            WARNING,
            "The peer does not finish the handshake: the SYN-ACK was repeated 1 time.",
        ),
    ),
    (
        socket_with(info={"ca_state": 3, "lost": 4, "retrans": 2}),
        None,
        Finding("repairing", WARNING, "Repairing loss: 4 segments thought lost, 2 sent again."),
    ),
    (
        socket_with(info={"ca_state": 4, "lost": 1}),
        None,
        Finding(
            "repairing", WARNING, "Repairing loss after a timeout: 1 segment thought lost, 0 sent again."
        ),
    ),
    (
        socket_with(timer="keep_alive", timer_tries=4, timer_ms=1800),
        None,
        Finding(
            "no_keep_alive",
            WARNING,
            "The peer did not answer 4 keep-alive probes; the next is due in 1.8 s.",
        ),
    ),
    (
        socket_with(LISTENER, receive_queue=129),
        None,
        Finding(
            "accept_queue_full",
            ERROR,
            "The accept queue is full: 129 wait, the limit is 128; new ones are dropped.",
        ),
    ),
    (
        socket_with(LISTENER, receive_queue=64),
        None,
        Finding("accept_queue", WARNING, "The accept queue holds 64 of 128."),
    ),
    (
        socket_with(LISTENER, receive_queue=3),
        None,
        Finding("accept_queue", INFO, "The accept queue holds 3 of 128."),
    ),
    (
        socket_with(state="CLOSE_WAIT", receive_queue=1, info={"last_data_recv_ms": 300_000}),
        None,
        Finding(
            "not_closed",
            WARNING,
            "The peer has closed and this side has not, with nothing received for 5 min.",
        ),
    ),
    (
        socket_with(inode=0, receive_queue=100),
        None,
        Finding("not_accepted", INFO, "No process has accepted it yet, with 100 bytes to read."),
    ),
    (
        socket_with(inode=0, state="FIN_WAIT_2", timer="time_wait", timer_ms=55_600),
        None,
        Finding("no_owner", INFO, "Closed here; the kernel awaits the peer's FIN for another 55.6 s."),
    ),
    (
        socket_with(inode=0, state="LAST_ACK", send_queue=2048),
        None,
        Finding("no_owner", INFO, "No process holds it: the kernel ends it and still delivers 2 KiB."),
    ),
    (
        socket_with(info={"busy_us": 200_000, "rwnd_limited_us": 126_000}),
        None,
        Finding(
            "window_limited",
            INFO,
            "The peer's window limited sending for 63% of the time there was data to send.",
        ),
    ),
    (
        socket_with(info={"busy_us": 200_000, "sndbuf_limited_us": 100_000}),
        None,
        Finding(
            "send_buffer_limited",
            INFO,
            "The send buffer limited sending for 50% of the time there was data to send.",
        ),
    ),
    (
        socket_with(info={"bytes_sent": 1_000_000, "bytes_retrans": 21_000}),
        None,
        Finding("lossy", INFO, "2.1% of the bytes sent were sent again."),
    ),
    (
        socket_with(info={"bytes_sent": 1_000_000, "bytes_retrans": 50_000}),
        None,
        Finding("lossy", WARNING, "5.0% of the bytes sent were sent again."),
    ),
]

UNSAID: list[tuple[str, Socket, Moved | None]] = [
    ("nothing is wrong", WELL, None),
    ("nothing is wrong, twice", WELL, QUIET),
    ("an idle listener", LISTENER, QUIET),
    ("a remnant", socket_with(state="TIME_WAIT", info=None, memory=None, inode=0, timer="time_wait"), None),
    ("bytes that have just arrived", socket_with(receive_queue=500), None),
    ("bytes that are being read", socket_with(receive_queue=500), QUIET._replace(read_bytes=1)),
    ("two looks in quick succession", socket_with(receive_queue=500), QUIET._replace(elapsed_s=0.1)),
    ("a FIN that was read, and a program at work", socket_with(state="CLOSE_WAIT"), None),
    ("a keep-alive timer", socket_with(timer="keep_alive", timer_tries=0, timer_ms=7_000_000), None),
    ("a first SYN", socket_with(state="SYN_SENT", timer="retransmit", timer_tries=0), None),
    ("a SYN that knows no window", socket_with(state="SYN_SENT", info={"snd_wnd_bytes": 0}), None),
    ("an old kernel", socket_with(info={field.name: None for field in fields(TcpInfo)}, memory=None), None),
    ("a short transfer", socket_with(info={"busy_us": 99_999, "rwnd_limited_us": 99_999}), None),
    ("one repeat", socket_with(info={"bytes_sent": 1000, "bytes_retrans": 500}), None),
    ("one repeat in a million", socket_with(info={"bytes_sent": 10**9, "bytes_retrans": 5000}), None),
]


@pytest.mark.parametrize(("sock", "since", "expected"), SAID, ids=[said[2].code for said in SAID])
def test_what_is_said(sock: Socket, since: Moved | None, expected: Finding) -> None:
    assert findings.findings(sock, since) == [expected]


@pytest.mark.parametrize(
    ("sock", "since"), [(one[1], one[2]) for one in UNSAID], ids=[one[0] for one in UNSAID]
)
def test_what_is_left_unsaid(sock: Socket, since: Moved | None) -> None:
    assert findings.findings(sock, since) == []


def test_every_code_is_tested_and_listed_once() -> None:
    assert {said[2].code for said in SAID} == set(CODES)
    assert len(set(CODES)) == len(CODES)


def test_the_worst_comes_first() -> None:
    sock = socket_with(
        receive_queue=131_072, info={"rcv_wnd_bytes": 0, "busy_us": 200_000, "rwnd_limited_us": 200_000}
    )
    found = findings.findings(sock, QUIET._replace(drops=1))
    assert [one.code for one in found] == ["not_reading", "dropping", "window_limited"]


def test_the_peers_fin_is_no_byte_to_read() -> None:
    assert unread_bytes(socket_with(receive_queue=1)) == 1
    assert unread_bytes(socket_with(receive_queue=1, state="CLOSE_WAIT")) == 0
    assert unread_bytes(socket_with(receive_queue=0, state="CLOSE_WAIT")) == 0
    assert (unread_bytes(LISTENER), unsent_bytes(LISTENER), unsent_bytes(WELL)) == (None, None, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Mark(1000, 100, 50, 3), Mark(1500, 200, 60, 5), Moved(2.0, 500, 400, 10, 2)),
        (Mark(1000, 100, 50, 3), Mark(1000, 0, 50, 3), Moved(2.0, 0, 100, 0, 0)),
        (Mark(1000, 0, 50, 0xFFFFFFFF), Mark(1001, 1, 50, 1), Moved(2.0, 1, 0, 0, 2)),
        (Mark(None, 0, None, None), Mark(None, 5, None, None), Moved(2.0, None, None, None, None)),
    ],
)
def test_what_moved(before: Mark, after: Mark, expected: Moved) -> None:
    assert moved(before, after, 2.0) == expected


def test_what_is_remembered() -> None:
    assert mark(socket_with(receive_queue=7, memory={"drops": 4})) == Mark(2048, 7, 101, 4)
    assert mark(socket_with(info=None, memory=None)) == Mark(2048, 0, 101, 0)
    assert mark(Socket("::", 1, "::", 2, None, 0, 0, 0)) == Mark(None, 0, None, None)


@given(any_socket(), st.none() | st.just(QUIET))
def test_any_figures_give_sentences(sock: Socket, since: Moved | None) -> None:
    found = findings.findings(sock, since)
    assert {one.code for one in found} <= set(CODES)
    assert [one.sentence for one in found if not one.sentence.endswith(".")] == []

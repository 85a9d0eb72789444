# SPDX-License-Identifier: Apache-2.0
"""The table of errno and phase, whole."""

from __future__ import annotations

import errno

import pytest

from holdfast.causes import CAUSES
from holdfast.errors import (
    ConnectionAborted,
    ConnectionClosed,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimedOut,
    ConnectionUnreachable,
)
from holdfast.hold.classify import TABLE, Figures, Phase, Verdict, classify
from holdfast.linux.tcp_info import TcpInfo

CONNECTING, OPEN, PEER_CLOSED, CLOSED_HERE = Phase


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ECONNRESET, [(ConnectionReset, cause) for cause in
            ("unrecognised_sender", "unrecognised_sender", "peer_closed_then_reset", "unrecognised_sender")]),
        (errno.ECONNREFUSED, [(ConnectionRefused, "connection_refused"),
            *[(ConnectionUnreachable, "unreachable_after_retries")] * 3]),
        (errno.ETIMEDOUT, [(ConnectionTimedOut, "connect_timeout"),
            *[(ConnectionTimedOut, "retransmission_timeout")] * 3]),
        (errno.ECONNABORTED, [(ConnectionAborted, "socket_destroyed")] * 4),
        (errno.EPIPE, [(ConnectionClosed, cause) for cause in
            ("written_after_close", *["peer_closed_then_reset"] * 2, "written_after_close")]),
        (errno.EHOSTUNREACH, [(ConnectionUnreachable, "icmp_error"),
            *[(ConnectionUnreachable, "unreachable_after_retries")] * 3]),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)  # fmt: skip
def test_what_an_error_means_in_each_phase(number: int, expected: list[Verdict]) -> None:
    assert [classify(number, phase) for phase in Phase] == expected


@pytest.mark.parametrize("number", [errno.EBADF, errno.EFAULT, errno.ENOMEM, errno.EINTR, errno.EINVAL, 0])
def test_mistakes_and_shortages_are_no_losses(number: int) -> None:
    assert {classify(number, phase) for phase in Phase} == {None}


def test_every_row_names_a_cause() -> None:
    assert {verdict.cause for verdict in TABLE.values()} <= set(CAUSES)


def test_every_row_holds_for_every_phase() -> None:
    assert {number for number, _ in TABLE} == {
        number for number, phase in TABLE if all((number, other) in TABLE for other in Phase)
    }


@pytest.mark.parametrize(
    ("figures", "cause"),
    [
        (Figures(), "retransmission_timeout"),
        (Figures(keepalive=True, unsent_bytes=0, unacked_bytes=0), "keepalive_timeout"),
        (Figures(keepalive=True, unsent_bytes=0, unacked_bytes=9), "retransmission_timeout"),
        (Figures(user_timeout_ms=9, unsent_bytes=0, unacked_bytes=9), "user_timeout"),
        (Figures(TcpInfo(snd_wnd_bytes=0), 9, 0, user_timeout_ms=9), "zero_window_timeout"),
        (Figures(TcpInfo(snd_wnd_bytes=5), 9, 0), "retransmission_timeout"),
    ],
)
def test_which_timer_gave_up(figures: Figures, cause: str) -> None:
    assert classify(errno.ETIMEDOUT, OPEN, figures) == (ConnectionTimedOut, cause)


@pytest.mark.parametrize(
    ("info", "phase"),
    [
        (None, OPEN),
        (TcpInfo(state=7, rtt_us=0, bytes_received=0, bytes_acked=0), CONNECTING),
        (TcpInfo(state=1, rtt_us=9, bytes_received=0, bytes_acked=0), OPEN),
        (TcpInfo(state=7, rtt_us=0, bytes_received=5, bytes_acked=0), CLOSED_HERE),
        (TcpInfo(state=5, rtt_us=9), CLOSED_HERE),
    ],
)
def test_the_phase_that_nobody_kept_is_concluded(info: TcpInfo | None, phase: Phase) -> None:
    assert Figures(info).phase is phase


def test_acknowledged_bytes_do_not_count_the_syn_nor_resending() -> None:
    info = TcpInfo(bytes_sent=1000, bytes_retrans=300, bytes_acked=601)
    assert Figures(info, unsent_bytes=5, unacked_bytes=100).acked_bytes == 600
    assert Figures().acked_bytes is None


@pytest.mark.parametrize(("unsent", "unacked", "left"), [(9, 5, (8, 5)), (0, 5, (0, 4)), (0, 0, (0, 0))])
def test_a_fin_is_the_last_that_is_unsent_or_unacknowledged(
    unsent: int, unacked: int, left: tuple[int, int]
) -> None:
    figures = Figures(unsent_bytes=unsent, unacked_bytes=unacked).without_fin()
    assert (figures.unsent_bytes, figures.unacked_bytes) == left
    assert Figures().without_fin() == Figures()


def test_idle_is_since_either_end_spoke() -> None:
    assert Figures(TcpInfo(last_data_sent_ms=5000, last_data_recv_ms=2500)).idle_s == 2.5
    assert Figures(TcpInfo()).idle_s is None

# SPDX-License-Identifier: Apache-2.0
"""An error without a RST: what each errno means, by the state in which it came."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from unit.watch.samples import event

from holdfast.causes import CAUSES, Basis, Ending, Family
from holdfast.events import Event, Harm, Kind
from holdfast.watch.diagnose.endings import error_cause

ESTABLISHED: dict[str, Any] = {"state": "CLOSED", "state_before": "ESTABLISHED", "unacked": True}
DIALLING: dict[str, Any] = {"state": "CLOSED", "state_before": "SYN_SENT", "unacked": True}
HALF_OPEN: dict[str, Any] = {"state": "CLOSED", "state_before": "SYN_RECEIVED"}
WAITING = {"harm": Harm(unsent_bytes=9000, unacked_bytes=0)}

T, U, R, A = Ending.TIMED_OUT, Ending.UNREACHABLE, Ending.REFUSED_BY_ICMP, Ending.ABORTED

TABLE: list[tuple[int, dict[str, Any], Ending, str]] = [
    (errno.ETIMEDOUT, DIALLING, T, "connect_timeout"),
    (errno.ETIMEDOUT, {"state": "SYN_SENT"}, T, "connect_timeout"),
    (errno.ETIMEDOUT, HALF_OPEN, T, "fastopen_timeout"),
    (errno.ETIMEDOUT, ESTABLISHED, T, "retransmission_timeout"),
    (errno.ETIMEDOUT, ESTABLISHED | {"user_timeout": True}, T, "user_timeout"),
    (errno.ETIMEDOUT, ESTABLISHED | WAITING | {"user_timeout": True}, T, "user_timeout"),
    (errno.ETIMEDOUT, ESTABLISHED | WAITING | {"unacked": False}, T, "zero_window_timeout"),
    (
        errno.ETIMEDOUT,
        ESTABLISHED | WAITING | {"unacked": False, "user_timeout": True},
        T,
        "zero_window_timeout",
    ),
    (errno.EHOSTUNREACH, ESTABLISHED, U, "unreachable_after_retries"),
    (errno.ENETUNREACH, ESTABLISHED, U, "unreachable_after_retries"),
    (errno.EHOSTDOWN, ESTABLISHED, U, "unreachable_after_retries"),
    (errno.ENONET, ESTABLISHED, U, "unreachable_after_retries"),
    (errno.EHOSTUNREACH, DIALLING, U, "icmp_error"),
    (errno.ENETUNREACH, {"state": "SYN_SENT"}, U, "icmp_error"),
    (errno.EHOSTUNREACH, HALF_OPEN, U, "icmp_error"),
    (errno.EPROTO, DIALLING, U, "icmp_error"),
    (errno.EACCES, DIALLING, U, "icmp_error"),
    (errno.EOPNOTSUPP, DIALLING, U, "icmp_error"),
    (errno.EPERM, DIALLING, U, "icmp_error"),
    (errno.ECONNREFUSED, DIALLING, R, "icmp_refused"),
    (errno.ECONNREFUSED, {"state": "SYN_SENT"}, R, "icmp_refused"),
    (errno.ECONNABORTED, ESTABLISHED, A, "socket_destroyed"),
    (errno.EBADMSG, ESTABLISHED, A, "tls_record_error"),
]

REPEATS_A_RESET = (errno.ECONNRESET, errno.EPIPE)
LIVING = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "FIN_WAIT_2", "LAST_ACK", "LISTEN", "SYN_RECEIVED")


def error(number: int, **facts: Any) -> Event:
    return event(Kind.ERROR, error=number, **facts)


@pytest.mark.parametrize(
    ("number", "facts", "ending", "cause"),
    TABLE,
    ids=[f"{n}-{errno.errorcode[row[0]]}-{row[3]}" for n, row in enumerate(TABLE)],
)
def test_error(number: int, facts: dict[str, Any], ending: Ending, cause: str) -> None:
    ended = error_cause(error(number, **facts))
    assert ended is not None
    assert (ended[0], ended[1].cause) == (ending, cause)
    assert ended[1].basis is (Basis.INFERRED if cause == "zero_window_timeout" else Basis.OBSERVED)
    assert ended[1].evidence
    assert cause in CAUSES


@pytest.mark.parametrize("number", REPEATS_A_RESET)
@pytest.mark.parametrize("state", [None, "CLOSED"])
def test_an_error_that_repeats_a_reset_is_not_told_again(number: int, state: str | None) -> None:
    assert error_cause(error(number, state=state, state_before="ESTABLISHED")) is None


@pytest.mark.parametrize("state", LIVING)
@pytest.mark.parametrize("number", [row[0] for row in TABLE])
def test_a_soft_error_ends_nothing(number: int, state: str) -> None:
    """The socket is not closed, so the application was told of a passing trouble."""
    assert error_cause(error(number, state=state, state_before=None)) is None


def test_an_errno_that_nothing_is_known_of_ends_nothing() -> None:
    assert error_cause(error(errno.EMSGSIZE, **ESTABLISHED)) is None


def test_every_ending_is_reached_that_the_kernel_itself_reports() -> None:
    """A program writing after its own close is no event in the kernel; an orderly end is no error."""
    reached = {row[3] for row in TABLE} - {"socket_destroyed"}
    listed = {cause.id for cause in CAUSES.values() if cause.family is Family.ENDING}
    assert listed - reached == {"written_after_close", "orderly_end"}
    assert reached <= listed

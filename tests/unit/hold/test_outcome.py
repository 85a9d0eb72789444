"""What an exception or an answer means for a retry."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest

from holdfast import errors
from holdfast.errors import GaveUp, Loss
from holdfast.hold.outcome import StreamRefused, failure_of, failure_of_chain, http_status, parse_retry_after
from holdfast.policy import Failure

REFUSED = errors.ConnectionRefused(Loss(errno.ECONNREFUSED, "connection_refused"))
RESET = errors.ConnectionReset(Loss(errno.ECONNRESET, "peer_aborted"))
NO_ROUTE = OSError(errno.EADDRNOTAVAIL, "no address here")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (REFUSED, Failure.CONNECT_FAILURE),
        (errors.ConnectionTimedOut(Loss(errno.ETIMEDOUT, "connect_timeout")), Failure.CONNECT_FAILURE),
        (errors.ConnectionUnreachable(Loss(errno.EHOSTUNREACH, "icmp_error")), Failure.CONNECT_FAILURE),
        (ConnectionRefusedError(), Failure.CONNECT_FAILURE),
        (socket.gaierror(socket.EAI_AGAIN, "later"), Failure.CONNECT_FAILURE),
        (URLError(ConnectionRefusedError()), Failure.CONNECT_FAILURE),
        (URLError(ConnectionResetError()), Failure.RESET),
        (GaveUp([REFUSED, NO_ROUTE], "spent"), Failure.CONNECT_FAILURE),
        (RESET, Failure.RESET),
        (errors.ConnectionTimedOut(Loss(errno.ETIMEDOUT, "keepalive_timeout")), Failure.RESET),
        (errors.ConnectionUnreachable(Loss(errno.EHOSTUNREACH, "unreachable_after_retries")), Failure.RESET),
        (errors.ConnectionAborted(Loss(errno.ECONNABORTED, "socket_destroyed")), Failure.RESET),
        (errors.ConnectionClosed(Loss(errno.EPIPE, "written_after_close")), Failure.RESET),
        (errors.Truncated(b"ab", "the rest"), Failure.RESET),
        (ConnectionResetError(), Failure.RESET),
        (BrokenPipeError(), Failure.RESET),
        (OSError(errno.EHOSTUNREACH, "no route"), Failure.RESET),
        (asyncio.IncompleteReadError(b"", 4), Failure.RESET),
        (ssl.SSLEOFError(), Failure.RESET),
        (errors.DeadlineExceeded(), Failure.TIMEOUT),
        (TimeoutError(), Failure.TIMEOUT),
        (StreamRefused(), Failure.REFUSED_STREAM),
        # What no retry mends, and what another layer has tried already.
        (GaveUp([RESET, REFUSED], "spent"), None),
        (GaveUp([RESET], "spent"), None),
        (GaveUp([], "no time"), None),
        (errors.ReplayRefused(RESET), None),
        (errors.UsageError("mend the call"), None),
        (errors.Cancelled(), None),
        (URLError("unknown url type"), None),
        (NO_ROUTE, None),
        (EOFError(), None),
        (ssl.SSLCertVerificationError(), None),
        (FileNotFoundError(), None),
        (ValueError(), None),
    ],
    ids=repr,
)
def test_how_an_attempt_failed(error: Exception, expected: Failure | None) -> None:
    assert failure_of(error) == expected


def chained(*errors: Exception) -> Exception:
    """The first, raised from the second, raised from the third."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (chained(RuntimeError("wrapped"), RuntimeError("wrapped again"), BrokenPipeError()), Failure.RESET),
        (BrokenPipeError(), Failure.RESET),
        (chained(errors.ReplayRefused(RESET), RESET), None),
        (chained(RuntimeError(), errors.ReplayRefused(RESET), RESET), None),
        (chained(RuntimeError(), ValueError()), None),
    ],
    ids=repr,
)
def test_errors_that_libraries_wrap(error: Exception, expected: Failure | None) -> None:
    assert failure_of_chain(error) == expected


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (SimpleNamespace(status_code=503), 503),  # httpx, requests
        (SimpleNamespace(status=502), 502),  # aiohttp, urllib3
        (SimpleNamespace(code=504), 504),  # urllib.error.HTTPError
        (SimpleNamespace(response=SimpleNamespace(status_code=429)), 429),  # raise_for_status()
        (SimpleNamespace(status="503"), None),
        (SimpleNamespace(code=1006), None),
        (ValueError(), None),
        (None, None),
    ],
    ids=repr,
)
def test_where_libraries_keep_the_status(thing: Any, expected: int | None) -> None:
    assert http_status(thing) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
        ("Thu, 01 Jan 1970 00:01:40 -0000", 90),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_as_seconds_and_as_a_date(text: str, expected: float | None) -> None:
    assert parse_retry_after(text, wall_s=10) == expected

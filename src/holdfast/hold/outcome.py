"""What an exception or an answer means for a retry: how the attempt failed, and what the peer asks for."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno as errnos
import socket
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import URLError

from holdfast.errors import ConnectionLost, GaveUp, HoldfastError, Truncated
from holdfast.policy import Failure

# Rule: causes.py's names for connections that never came about: the peer's program has seen nothing.
_CONNECTING = frozenset({"connection_refused", "icmp_refused", "connect_timeout", "icmp_error"})
_PATH = frozenset({errnos.EHOSTUNREACH, errnos.ENETUNREACH, errnos.ENETDOWN, errnos.EHOSTDOWN})
_BROKEN_OFF = (ConnectionError, Truncated, asyncio.IncompleteReadError, ssl.SSLEOFError)


class StreamRefused(HoldfastError):
    """The peer says that it did not begin with this request, so repeating it is safe.

    For HTTP/2 clients to raise: at RST_STREAM with REFUSED_STREAM, and for a stream above the last one of a
    GOAWAY (RFC 9113 section 8.7).
    """

    def __str__(self) -> str:
        return "The peer refused the stream before it began with the request."


class BadAnswer(HoldfastError):
    """An answer whose status asked for a retry; in ``GaveUp.losses`` it stands for that attempt.

    Attributes:
        status: its status code.
        answer: what the attempt returned.
    """

    def __init__(self, status: int, answer: object) -> None:
        super().__init__(status, answer)
        self.status, self.answer = status, answer

    def __str__(self) -> str:
        return f"The peer answered with status {self.status}."


def failure_of(error: BaseException) -> Failure | None:
    """How an attempt failed that ended with this exception; None: not in a way that a retry can mend.

    Holdfast's own errors say how far the connection had come. Of the builtin ones only a refusal and a failed
    name lookup prove that there was none; every other counts as a reset of an open connection.
    """
    if isinstance(error, StreamRefused):
        return Failure.REFUSED_STREAM
    if isinstance(error, GaveUp):
        # A failed connect() lists each address; some may have failed for want of IPv6 or of a route here.
        kinds = {failure_of(loss) for loss in error.losses} - {None}
        return Failure.CONNECT_FAILURE if kinds == {Failure.CONNECT_FAILURE} else None
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        return failure_of(error.reason)
    if isinstance(error, (ConnectionRefusedError, socket.gaierror)):
        return Failure.CONNECT_FAILURE
    if isinstance(error, ConnectionLost):
        return Failure.CONNECT_FAILURE if error.cause in _CONNECTING else Failure.RESET
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, _BROKEN_OFF) or (isinstance(error, OSError) and error.errno in _PATH):
        return Failure.RESET
    return None


def failure_of_chain(error: BaseException) -> Failure | None:
    """As :func:`failure_of`, for libraries that raise their own error from the kernel's (``raise ... from``).

    A Holdfast error is never looked behind: it has been decided there already.
    """
    link: BaseException | None = error
    while link is not None:
        failure = failure_of(link)
        if failure is not None or isinstance(link, HoldfastError):
            return failure
        link = link.__cause__
    return None


def http_status(thing: Any) -> int | None:
    """The HTTP status of a response, or of an exception that carries one, of the usual client libraries.

    Looks for ``status_code``, ``status`` or ``code``, in the thing itself and in its ``response``.
    """
    for owner in (thing, getattr(thing, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(owner, name, None)
            if isinstance(value, int) and 100 <= value <= 599:
                return value
    return None


def parse_retry_after(text: str, wall_s: float) -> float | None:
    """The wait in seconds that a ``Retry-After`` header asks for; None if it says nothing usable.

    Args:
        text: the header: seconds or an HTTP date.
        wall_s: the time now, in seconds since 1970, for a date.

    Source: RFC 9110 section 10.2.3.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    # An HTTP date is in GMT, which the parser leaves out where the text says -0000.
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - wall_s)

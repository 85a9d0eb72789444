"""Why a transport or a session ended, or is not over yet: in words, and as a cause where one is known."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

from holdfast.errors import Loss, SessionLost
from holdfast.hold.classify import Phase, classify
from holdfast.hold.session import core
from holdfast.hold.session.codes import Code, Violation, given_up
from holdfast.hold.session.states import State

Ending = BaseException | str
"""What ended a transport: an error, or what else happened, in words."""

UNKNOWN = (errno.ECONNRESET, "unspecified")
"""Errno and cause of a session that no connection ended: the causes are those of TCP."""


def in_words(error: Ending) -> str:
    """What ended a transport, or an attempt at one, as part of a sentence."""
    if isinstance(error, str):
        return error
    if isinstance(error, Violation) and error.code is Code.SUPERSEDED:
        return Code.SUPERSEDED.sentence
    told = str(error).rstrip(".") or repr(error)  # asyncio's TimeoutError says nothing
    if isinstance(error, Violation):
        return told[0].lower() + told[1:]
    if isinstance(error, OSError) and error.strerror and error.errno and error.errno in errno.errorcode:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]} [{errno.errorcode[error.errno]}]"
    return told


def session_lost(
    one: core.Session, *, peer: str | None, attempt: BaseException | None, parted: Ending | None
) -> SessionLost:
    """A session's end as an error, with what the peer has confirmed.

    Args:
        one: the session.
        peer: the other end's address.
        attempt: why the last attempt to carry it failed, since a transport last did.
        parted: what ended that transport.
    """
    number, cause = UNKNOWN
    if one.why is core.Why.EXPIRED:
        number, cause = _cause(attempt, Phase.CONNECTING) or _cause(parted, Phase.OPEN) or UNKNOWN
    loss = Loss(number, cause, peer=peer, unacked_bytes=one.out.end - one.confirmed_bytes)
    return SessionLost(
        loss,
        confirmed_bytes=one.confirmed_bytes,
        written_bytes=one.out.end,
        why=why_ended(one, attempt, parted),
        code=one.code,
    )


def why_ended(one: core.Session, attempt: BaseException | None, parted: Ending | None) -> str:
    """What ended a session, in words; see :func:`session_lost`."""
    if one.state in (State.CLOSED, State.CLOSING):
        return "both ends have closed it"
    if one.state in (State.RESET, State.RESETTING):
        return f"{'this end' if one.reset_here else 'the peer'} {given_up(one.code or 0)}"
    if one.why is not core.Why.EXPIRED:
        return str(one.why or one.state.sentence)
    told = f"no transport carried it for the {one.keep_s:g} s that it is kept"
    last = [f"the last one: {in_words(parted)}"] if parted else []
    last += [f"the last attempt: {in_words(attempt)}"] if attempt else []
    return f"{told} ({'; '.join(last)})" if last else told


def why_open(one: core.Session) -> str:
    """What is still to happen before both ends have all, in words."""
    return " and ".join(_missing(one)) or "the peer has not confirmed the end"


def why_unconfirmed(one: core.Session) -> str:
    """How much the peer has not confirmed, in words."""
    return f"the peer has not confirmed {one.out.end - one.confirmed_bytes} of {one.out.end} bytes"


def _missing(one: core.Session) -> Iterator[str]:
    if one.confirmed_bytes < one.out.end:
        yield why_unconfirmed(one)
    if not one.into.ended:
        yield "the peer has not ended its direction"
    if one.link is None:
        yield "no transport carries the session"


def _cause(error: Ending | None, phase: Phase) -> tuple[int, str] | None:
    """Errno and cause of what the kernel said of a connection; None if it said nothing."""
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError) or error.errno is None:
        return None
    verdict = classify(error.errno, phase)
    return (error.errno, verdict.cause) if verdict is not None else None

"""Asks a watch on this host, after the fact, why a connection was lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from holdfast.causes import cause
from holdfast.errors import Explanation
from holdfast.events import Reset


class CauseSource(Protocol):
    """Who may know more of a reset than one end alone: a watch in this process, or a local agent."""

    def lookup(self, cookie: int | None, local: str | None, peer: str | None) -> Reset | None:
        """The record of this connection's end, None if there is none.

        Args:
            cookie: the kernel's identity of the socket (SO_COOKIE), None if it could not be read.
            local, peer: ``addr:port`` or ``[v6]:port``.
        """


def asker(
    source: CauseSource | None, cookie: int | None, local: str | None, peer: str | None
) -> Callable[[float], Explanation | None] | None:
    """What :meth:`ConnectionLost.explain` calls: asks only then, and waits no longer than it is told to."""
    if source is None:
        return None
    return lambda timeout_s: _ask(source, cookie, local, peer, timeout_s)


def _ask(
    source: CauseSource, cookie: int | None, local: str | None, peer: str | None, timeout_s: float
) -> Explanation | None:
    answers: list[Reset] = []

    def look_up() -> None:
        # A source that fails must not hide the loss it was asked about: no answer is an answer.
        try:
            reset = source.lookup(cookie, local, peer)
        except Exception:  # noqa: BLE001 (a stranger's code, between the user and their error)
            return
        if reset is not None:
            answers.append(reset)

    # A daemon, so that a source which never answers holds up neither the caller nor the exit.
    thread = threading.Thread(target=look_up, name="holdfast-explain", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return explained(answers[0]) if answers else None


def explained(reset: Reset) -> Explanation:
    """A watch's record in the words of an error."""
    sentence = reset.sentence or cause(reset.cause).describe(None, str(reset.peer), str(reset.local))
    return Explanation(reset.cause, reset.basis, sentence, tuple(reset.remedy), reset)

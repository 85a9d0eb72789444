"""Asks a watch on this host, after the fact, why a connection was lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from holdfast.causes import cause
from holdfast.errors import Explanation
from holdfast.events import Reset
from holdfast.hold.forks import mended_in_child


class CauseSource(Protocol):
    """Who may know more of a reset than one end alone: a watch in this process, or a local agent."""

    def lookup(self, cookie: int | None, local: str | None, peer: str | None) -> Reset | None:
        """The record of this connection's end, None if there is none.

        Args:
            cookie: the kernel's identity of the socket (SO_COOKIE), None if it could not be read.
            local, peer: ``addr:port`` or ``[v6]:port``.
        """


MOST_LOOKUPS = 16
"""How many lookups may wait for an answer at once, for all errors of a process; beyond, nobody is asked."""


def asker(
    source: CauseSource | None, cookie: int | None, local: str | None, peer: str | None
) -> Callable[[float], Explanation | None] | None:
    """What :meth:`ConnectionLost.explain` calls: asks only then, and waits no longer than it is told to."""
    return None if source is None else Lookup(lambda: source.lookup(cookie, local, peer))


class Lookup:
    """One question, asked in a thread that may outlive the patience of whoever waits for it.

    Who asks again while it is out waits for that same answer, so a silent source costs one thread for each
    error, and at most :data:`MOST_LOOKUPS` in all.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._answer: Explanation | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, timeout_s: float) -> Explanation | None:
        """The answer, if there is one in time."""
        thread = self._thread
        if self._answer is None and (thread is None or not thread.is_alive()):
            thread = self._thread = self._started()
        if thread is not None:
            # max() also turns nan into 0.
            thread.join(min(max(0.0, timeout_s), threading.TIMEOUT_MAX))
        return self._answer

    def _started(self) -> threading.Thread | None:
        if not _PLACES.take():
            return None
        # A daemon, so that a source which never answers holds up neither the caller nor the exit.
        thread = threading.Thread(target=self._look_up, name="holdfast-explain", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: no answer is an answer
            _PLACES.leave()
            return None
        return thread

    def _look_up(self) -> None:
        # A source that fails, or answers with something else, must not hide the loss it was asked about.
        try:
            reset = self._ask()
            if isinstance(reset, Reset):
                self._answer = explained(reset)
        except Exception:  # noqa: BLE001 (a stranger's code, between the user and their error)
            return
        finally:
            _PLACES.leave()


class _Places:
    """How many threads are out."""

    def __init__(self) -> None:
        self.after_fork()
        mended_in_child(self, _Places.after_fork)

    def take(self) -> bool:
        """Whether there is room for one more."""
        return self._free.acquire(blocking=False)

    def leave(self) -> None:
        self._free.release()

    def after_fork(self) -> None:
        """The child has none of its parent's threads."""
        self._free = threading.Semaphore(MOST_LOOKUPS)


_PLACES = _Places()


def explained(reset: Reset) -> Explanation:
    """A watch's record in the words of an error."""
    sentence = reset.sentence or cause(reset.cause).describe(None, str(reset.peer), str(reset.local))
    return Explanation(reset.cause, reset.basis, sentence, tuple(reset.remedy), reset)

"""One call at a time in one direction of a connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import NoReturn, TypeVar

from holdfast.errors import UsageError
from holdfast.hold.forks import freed

_A = TypeVar("_A")
_T = TypeVar("_T")

LOOK_S = 0.001
"""How often one that waits for the end of a call looks."""


class Turn:
    """The right to receive, or to send, for the length of one call.

    Attributes:
        lock: held meanwhile, and taken by whoever waits for the end of that call. Reentrant, since a signal
            handler may close the connection whose call it interrupts.
        closed: nobody gets a turn any more.

    Args:
        doing: what one does in it, for the sentence of the error.
    """

    def __init__(self, doing: str) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self._taken = False
        self._owner = 0  # the thread, while it is taken
        self._doing = doing

    def run(self, call: Callable[[_A, float], _T], what: _A, limit_s: float) -> _T:
        """What the call gives; its two arguments come along, since to bind them would cost a fifth more.

        Raises:
            UsageError: another call is under way, or it is closed.
        """
        if self._taken:
            self._refuse()
        # Rule: no context manager of our own. A handler may raise between any two calls of Python code, also
        # at the beginning of __exit__(), and the turn would be taken for ever; `with` a lock has no such gap.
        with self.lock:
            if self.closed:
                raise UsageError("the connection is closed; connect again")
            if self._taken:
                self._refuse()
            self._taken = True
            try:
                self._owner = get_ident()
                return call(what, limit_s)
            finally:
                self._taken = False

    def _refuse(self) -> NoReturn:
        if self._owner != get_ident():
            raise UsageError(f"another thread is {self._doing} on this connection; let one thread do it")
        # Between two steps of the interrupted call the bytes would go to the wrong one.
        raise UsageError(
            f"this thread was {self._doing} on this connection when a signal came; "
            "a handler may only cancel() or close() it"
        )

    def wait_for_end(self, timeout_s: float) -> None:
        """Until the call of another thread is over, or the time."""
        end_s = time.monotonic() + timeout_s
        while self._taken and self._owner != get_ident() and time.monotonic() < end_s:
            time.sleep(LOOK_S)

    def after_fork(self) -> None:
        """The child has no other thread whose call could be under way."""
        lock = freed(self.lock)
        if lock is not self.lock:
            self.lock, self._taken = lock, False

"""One call at a time in one direction of a connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

from holdfast.errors import UsageError
from holdfast.hold.forks import freed

LOOK_S = 0.001
"""How often one that waits for its turn looks whether it is a call that has it."""


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
        self._doing = doing

    def __enter__(self) -> None:
        if not self.lock.acquire(False):  # without waiting; the keyword would cost a fifth of a small message
            self._queue()
        if self._taken or self.closed:
            self.lock.release()
            if self.closed:
                raise UsageError("the connection is closed; connect again")
            # Between two steps of the interrupted call the bytes would go to the wrong one.
            raise UsageError(
                f"this thread was {self._doing} on this connection when a signal came; "
                "a handler may only cancel() or close() it"
            )
        self._taken = True

    def _queue(self) -> None:
        """Wait behind what is no call: a close(), or the other direction that waited for a verdict."""
        while not self.lock.acquire(timeout=LOOK_S):
            if self._taken:
                raise UsageError(f"another thread is {self._doing} on this connection; let one thread do it")

    def __exit__(self, *_: object) -> None:
        self._taken = False
        self.lock.release()

    def wait_for_end(self, timeout_s: float) -> None:
        """Until the call of another thread is over, or the time."""
        if self.lock.acquire(timeout=timeout_s):
            self.lock.release()

    def after_fork(self) -> None:
        """The child has no other thread whose call could be under way."""
        lock = freed(self.lock)
        if lock is not self.lock:
            self.lock, self._taken = lock, False

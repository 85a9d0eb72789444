"""A descriptor that ends the waits of one connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os


class Wake:
    """Once rung, it ends every wait in this process that polls it, and every later one.

    Attributes:
        fd: what to poll; -1 once closed.
    """

    fd = -1

    def __init__(self) -> None:
        self.fd = _event(0)
        self._rung = False

    def ring(self) -> None:
        """End the waits."""
        self._rung = True
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Give the descriptor back."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close  # a connection that is dropped takes no descriptor along

    def after_fork(self) -> None:
        """The child's own, so that neither process ends the waits of the other.

        Under the same number: a call whose signal handler forked goes on polling that.
        """
        if self.fd >= 0:
            own = _event(int(self._rung))
            os.dup2(own, self.fd, inheritable=False)
            os.close(own)


def _event(count: int) -> int:
    return os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

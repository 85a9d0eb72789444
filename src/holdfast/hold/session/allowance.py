"""The credit of a transport as a whole, beside that of each session on it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.hold.session.codes import Code, Violation


class Allowance:
    """How much DATA may go over one transport, counted from 0 in each direction, whatever session it is of.

    Without it, one peer with a thousand sessions on a transport could have a thousand windows filled.

    Attributes:
        went: how many bytes of DATA this end has sent.
        came: how many the peer has.
        limit: up to where the peer may send; it never shrinks.

    Args:
        window: how much may have come and not been taken by an application, of all sessions together.
        may: the peer's first limit; 0: it has none.
    """

    __slots__ = ("_may", "_window", "came", "limit", "went")

    def __init__(self, window: int, may: int) -> None:
        self._window = self.limit = window
        self._may = may
        self.went = self.came = 0

    @property
    def left(self) -> int:
        """How many bytes this end may still send."""
        return self._may - self.went if self._may else 1 << 62

    @property
    def short(self) -> bool:
        """The peer may soon have to wait, so whatever an application takes should be granted."""
        return self.limit - self.came < self._window // 2

    def arrived(self, size: int) -> None:
        """So much DATA came.

        Raises:
            Violation: more than was allowed.
        """
        self.came += size
        if self.came > self.limit:
            raise Violation(Code.OVER_CREDIT, f"{self.came} on the transport, {self.limit} allowed")

    def told(self, came: int, limit: int) -> None:
        """The peer has so much, and allows up to ``limit``.

        Raises:
            Violation: it cannot have that.
        """
        if came > self.went:
            raise Violation(Code.BAD_ACK, f"{came} on the transport confirmed, {self.went} sent")
        if self._may:
            self._may = max(self._may, limit)

    def grant(self, held: int) -> bool:
        """Whether there is more to allow that is worth a frame: ``held`` bytes wait for applications."""
        limit = self.came + self._window - held
        worth = limit - self.limit >= self._window // 4 or (self.limit == self.came and limit > self.limit)
        if worth:
            self.limit = limit
        return worth

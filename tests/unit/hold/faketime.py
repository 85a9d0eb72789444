"""Time that passes only when somebody sleeps, for drivers that take it as an argument."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations


class FakeTime:
    """A clock and its sleeps; ``pass_by`` is for work that takes time."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

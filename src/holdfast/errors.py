"""The error tree: facts as attributes, the sentence in ``str()``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations


class HoldfastError(Exception):
    """Anything that Holdfast raises on purpose."""


class UsageError(HoldfastError, ValueError):
    """The caller broke our contract; the sentence says how to mend the call."""


class KernelUnavailable(HoldfastError):
    """A kernel feature is missing, too old, or not allowed to this process.

    Attributes:
        feature: what was wanted, in words.
        needs: what would make it available: a capability, a kernel version, a package.
    """

    def __init__(self, feature: str, needs: str) -> None:
        super().__init__(feature, needs)
        self.feature = feature
        self.needs = needs

    def __str__(self) -> str:
        return f"{self.feature} is not available here: it needs {self.needs}."


class DeadlineExceeded(HoldfastError, TimeoutError):
    """Time is up; the connection lives and nothing is lost. ``errno`` is None: no kernel error.

    Attributes:
        partial: received bytes gathered so far.
        sent_bytes: of the data given to a send, how much the kernel had taken.
    """

    def __init__(self, partial: bytes = b"", sent_bytes: int = 0) -> None:
        super().__init__(partial, sent_bytes)
        # OSError takes two arguments for errno and text; neither is meant here.
        self.errno, self.strerror = None, None
        self.partial, self.sent_bytes = partial, sent_bytes

    def __str__(self) -> str:
        if self.sent_bytes:
            return f"The deadline passed after {self.sent_bytes} bytes were sent."
        if self.partial:
            return f"The deadline passed after {len(self.partial)} bytes had come."
        return "The deadline passed."

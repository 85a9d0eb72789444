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

"""Holdfast: keeps TCP conversations alive through resets, and explains every reset."""

# SPDX-License-Identifier: Apache-2.0
from holdfast.errors import HoldfastError, KernelUnavailable, UsageError

__all__ = ["HoldfastError", "KernelUnavailable", "UsageError"]

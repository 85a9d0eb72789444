"""Bytes that were received and not yet taken: no I/O, so that every driver frames alike."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.hold.inbox_portable import Inbox
else:
    try:
        from holdfast._native import Inbox
    except ImportError:  # no C compiler when this was built
        from holdfast.hold.inbox_portable import Inbox

__all__ = ["Inbox"]

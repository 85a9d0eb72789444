"""The parser in Python: for machines without a compiler, and to check the compiled one against.

It gives the same bytes as ``native/capture_*.c``, file by file the same rules, at a hundredth of the speed.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.watch.capture.portable.file import Capture

__all__ = ["Capture"]

"""What a forked child must make anew: locks of its parent may be held by threads that it does not have."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")
_known: WeakKeyDictionary[object, Callable[[object], None]] = WeakKeyDictionary()


def mended_in_child(one: _T, mend: Callable[[_T], None]) -> None:
    """Have every forked child call ``mend`` with its copy of this object, for as long as it lives.

    The thread that forked is the only one there.
    """
    _known[one] = mend  # type: ignore[assignment]  # a dictionary does not say that key and value belong together


def freed(lock: threading.RLock) -> threading.RLock:
    """The lock itself if nobody holds it, or the thread that forked does; else a new one."""
    if not lock.acquire(blocking=False):
        return threading.RLock()
    lock.release()
    return lock


def _mend() -> None:
    for one, mend in list(_known.items()):
        mend(one)


os.register_at_fork(after_in_child=_mend)

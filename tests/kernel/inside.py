"""Runs our own code inside a host of the lab, in a thread that enters its namespace."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from holdfast.lab.network import Host

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


def _enter(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def inside(host: Host, work: Callable[[], T]) -> T:
    """What ``work`` gives when it runs in the host's network."""
    with ThreadPoolExecutor(1, initializer=_enter, initargs=(host.pid,)) as thread:
        return thread.submit(work).result()

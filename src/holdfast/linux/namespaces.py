"""Network namespaces: which exist, who lives in them, and how to open a socket inside one."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from holdfast.errors import KernelUnavailable

PROC = Path("/proc")

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


def netns_of(pid: int | str = "self", proc: Path = PROC) -> int | None:
    """Inode number of a process's network namespace; None if it is gone or not ours to look at."""
    try:
        return os.stat(proc / str(pid) / "ns" / "net").st_ino
    except OSError:
        return None


def network_namespaces(proc: Path = PROC) -> dict[int, int]:
    """Network namespaces that have a process, by inode number, each with the smallest pid living in it.

    A namespace that only a bind mount or an open file keeps alive is not found. Without rights over
    other users' processes, theirs are not seen.
    """
    found: dict[int, int] = {}
    try:
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdecimal())
    except OSError:
        return found
    for pid in pids:
        netns = netns_of(pid, proc)
        if netns is not None:
            found.setdefault(netns, pid)
    return found


def inside(pid: int, make: Callable[[], _T], proc: Path = PROC) -> _T:
    """What ``make`` returns when called inside the network namespace of ``pid``.

    It runs in a thread of its own that ends at once, so this process stays where it is. A socket made
    there belongs to that namespace for as long as it is open.

    Raises:
        KernelUnavailable: the process is gone, or CAP_SYS_ADMIN is missing.
    """
    path = proc / str(pid) / "ns" / "net"

    def call() -> _T:
        _enter(path)
        return make()

    with ThreadPoolExecutor(1, thread_name_prefix=f"netns-of-{pid}") as thread:
        return thread.submit(call).result()


def _enter(path: Path) -> None:
    """Move the calling thread into a network namespace (``os.setns`` is Python 3.12)."""
    feature = f"The network namespace {path}"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelUnavailable(feature, f"a living process ({error.strerror})") from error
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET) != 0:
            raise KernelUnavailable(feature, f"CAP_SYS_ADMIN ({os.strerror(ctypes.get_errno())})")
    finally:
        os.close(handle)

"""Reads ``format`` files from tracefs, without mounting anything where others could see it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from holdfast.errors import KernelUnavailable
from holdfast.watch.tracepoint.formats import Format, parse

MOUNT_POINTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def read_formats(names: Iterable[str]) -> dict[str, Format]:
    """Layouts of those of the named tracepoints (``category:name``) that this kernel has.

    Where tracefs is not mounted, a thread that ends at once mounts it in a mount namespace of its own.

    Raises:
        KernelUnavailable: tracefs cannot be read: no tracing in this kernel, or missing rights.
    """
    wanted = tuple(names)
    for root in MOUNT_POINTS:
        if os.access(root / "events", os.R_OK | os.X_OK):
            return _read(root, wanted)
    with ThreadPoolExecutor(1, thread_name_prefix="tracefs") as thread:
        return thread.submit(_mount_and_read, wanted).result()


def _read(root: Path, names: tuple[str, ...]) -> dict[str, Format]:
    found = {}
    for name in names:
        path = root.joinpath("events", *name.split(":"), "format")
        try:
            text = path.read_text("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unavailable(error.strerror or "not readable") from error
        found[name] = parse(name, text)
    return found


def _mount_and_read(names: tuple[str, ...]) -> dict[str, Format]:
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.fsencode(MOUNT_POINTS[0])
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        # Without this the new mount would appear in every namespace that shares mounts with ours.
        or libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) != 0
        or libc.mount(b"tracefs", root, b"tracefs", ctypes.c_ulong(0), None) != 0
    ):
        raise _unavailable(os.strerror(ctypes.get_errno()))
    return _read(MOUNT_POINTS[0], names)


def _unavailable(why: str) -> KernelUnavailable:
    return KernelUnavailable("Reading tracepoints (tracefs)", f"root and a kernel with tracing ({why})")

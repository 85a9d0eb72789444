"""Processes as ``/proc`` tells them: command, user, control group, container, and who holds a socket."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from holdfast.errors import KernelUnavailable
from holdfast.events import Process
from holdfast.linux.cgroups import container_of
from holdfast.linux.namespaces import PROC


def describe(pid: int, cgroup_root: Path | None = None, proc: Path = PROC) -> Process | None:
    """A living process; None if there is none, or ``/proc`` hides it.

    Args:
        pid: process id (not a thread's).
        cgroup_root: mount point of control groups version 2; without it there is no ``cgroup_id``.
        proc: another place to look, for tests.
    """
    folder = proc / str(pid)
    try:
        status = (folder / "status").read_text("utf-8", "replace")
        # status escapes the command; comm has it as it is.
        comm = (folder / "comm").read_text("utf-8", "replace").removesuffix("\n")
    except OSError:
        return None
    cgroup = cgroup_path(_read(folder / "cgroup"))
    container = container_of(cgroup) if cgroup else None
    return Process(
        pid,
        comm,
        _uid(status),
        _inode(cgroup_root, cgroup),
        cgroup,
        container.id if container else None,
    )


def cgroup_path(text: str) -> str | None:
    """The version 2 path in the text of ``/proc/<pid>/cgroup``; None if there is none."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)") or None
    return None


def socket_owners(inodes: Collection[int], proc: Path = PROC) -> dict[int, tuple[int, ...]]:
    """Which processes hold these sockets open, by inode number; each list is sorted.

    Reads every open file of every process that is ours to look at (all of them as root), so ask for
    many sockets at once.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    found: dict[int, set[int]] = {}
    if not wanted:
        return {}
    for pid in _pids(proc):
        folder = f"{proc}/{pid}/fd"
        try:
            handles = os.listdir(folder)
        except OSError:
            continue  # ended meanwhile, or another user's
        for handle in handles:
            try:
                inode = wanted.get(os.readlink(f"{folder}/{handle}"))
            except OSError:
                continue
            if inode is not None:
                found.setdefault(inode, set()).add(pid)
    return {inode: tuple(sorted(pids)) for inode, pids in found.items()}


def sockets_of(pid: int, proc: Path = PROC) -> frozenset[int]:
    """Inode numbers of the sockets that a process holds open.

    Raises:
        KernelUnavailable: the process is gone, or its files are not ours to look at.
    """
    folder = f"{proc}/{pid}/fd"
    found = set()
    try:
        for handle in os.listdir(folder):
            inode = _socket_inode(f"{folder}/{handle}")
            if inode is not None:
                found.add(inode)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        needs = "root, or CAP_SYS_PTRACE" if denied else f"a living process ({error.strerror})"
        raise KernelUnavailable(f"Looking at the open files of process {pid}", needs) from error
    return frozenset(found)


def _socket_inode(path: str) -> int | None:
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return None  # closed meanwhile
    number = target.removeprefix("socket:[").removesuffix("]")
    return int(number) if number.isdecimal() else None


def _pids(proc: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(proc) if name.isdecimal()]
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _uid(status: str) -> int | None:
    for line in status.splitlines():
        words = line.split()
        if line.startswith("Uid:") and len(words) > 2 and words[2].isdecimal():
            return int(words[2])  # the effective one
    return None


def _inode(root: Path | None, cgroup: str | None) -> int | None:
    if root is None or cgroup is None:
        return None
    try:
        return os.stat(f"{root}{cgroup}").st_ino
    except OSError:
        return None

"""Control groups (version 2): paths by id, and the container that a path names."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.linux.namespaces import PROC

_MAX_CGROUPS = 65536
_OCTAL = re.compile(rb"\\([0-7]{3})")
_HEX64 = "[0-9a-f]{64}"
# The last path component of a container, by the runtime that names it so.
_SCOPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("docker", re.compile(rf"docker-({_HEX64})\.scope")),
    ("containerd", re.compile(rf"cri-containerd-({_HEX64})(?:\.scope)?")),
    ("cri-o", re.compile(rf"crio-({_HEX64})(?:\.scope)?")),
    ("podman", re.compile(rf"libpod-({_HEX64})(?:\.scope)?")),
    ("lxc", re.compile(r"lxc\.payload\.([\w.-]+)")),
)
_BARE = re.compile(_HEX64)
_PREFIXED = re.compile(rf".+:([\w-]+):({_HEX64})")  # runc without systemd: slice:prefix:id
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?::|$)")


class Container(NamedTuple):
    """A container as its control group's path names it; ``pod`` is the Kubernetes pod's uid."""

    runtime: str
    id: str
    pod: str | None = None


def container_of(path: str) -> Container | None:
    """The container that a control group's path belongs to, or None; the innermost one if nested."""
    parts = path.split("/")
    for at in range(len(parts) - 1, -1, -1):
        named = _container_named(parts[at], parts[:at])
        if named is not None:
            return named
    return None


def _container_named(part: str, above: list[str]) -> Container | None:
    pod = next(
        (found[1].replace("_", "-") for p in (part, *reversed(above)) if (found := _POD.search(p))), None
    )
    for runtime, pattern in _SCOPES:
        found = pattern.fullmatch(part)
        if found:
            return Container(runtime, found[1], pod)
    found = _PREFIXED.fullmatch(part)
    if found:
        return Container(found[1].removeprefix("cri-"), found[2], pod)
    if _BARE.fullmatch(part):
        return Container("docker" if "docker" in above else "unknown", part, pod)
    if above and above[-1] == "lxc" and part:
        return Container("lxc", part, pod)
    return None


def mount_point(mountinfo: str) -> str | None:
    """Where version 2 is mounted, from the text of ``/proc/self/mountinfo``; None if it is not."""
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split(" ")
        if separator and source.split(" ")[0] == "cgroup2" and len(fields) > 4:
            return os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8) & 0xFF]), os.fsencode(fields[4])))
    return None


def find_mount(proc: Path = PROC) -> Path | None:
    """Where version 2 is mounted for this process (in hybrid set-ups ``/sys/fs/cgroup/unified``)."""
    try:
        text = (proc / "self" / "mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    found = mount_point(text)
    return None if found is None else Path(found)


class Cgroups:
    """Paths of control groups by id (the inode number of their directory), cached.

    Args:
        root: the mount point; None answers None to everything.
        rescan_s: an unknown id makes the tree be read again, but not more often than this.
    """

    def __init__(self, root: Path | None, rescan_s: float = 1.0) -> None:
        self.root = root
        self._rescan_s = rescan_s
        self._scanned_s: float | None = None
        self._paths: dict[int, str] = {}

    def path(self, cgroup_id: int, now_s: float) -> str | None:
        """The path below the mount point, starting with ``/``; None if it is unknown.

        A group that is gone keeps the path it was last seen with.
        """
        known = self._paths.get(cgroup_id)
        due = self._scanned_s is None or now_s - self._scanned_s >= self._rescan_s
        if known is not None or self.root is None or not due:
            return known
        self._scanned_s = now_s
        fresh = dict(_scan(self.root))
        if len(self._paths) + len(fresh) > _MAX_CGROUPS:
            self._paths.clear()
        self._paths.update(fresh)
        return self._paths.get(cgroup_id)


def _scan(root: Path) -> Iterator[tuple[int, str]]:
    try:
        yield os.stat(root).st_ino, "/"
    except OSError:
        return
    waiting, seen = [""], 1
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(f"{root}{above}") as entries:
                below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # removed while we looked
        for entry in below:
            seen += 1
            if seen > _MAX_CGROUPS:
                return
            yield entry.inode(), f"{above}/{entry.name}"
            waiting.append(f"{above}/{entry.name}")

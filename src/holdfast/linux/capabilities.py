"""Capabilities of a process, by name."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from holdfast.linux.namespaces import PROC

# include/uapi/linux/capability.h; a name's place is its bit.
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)


def parse_mask(mask: int) -> frozenset[str]:
    """Names of the bits set in ``mask``; bits above the last known name are left out."""
    return frozenset(name for bit, name in enumerate(NAMES) if mask >> bit & 1)


def effective(pid: int | str = "self", proc: Path = PROC) -> frozenset[str]:
    """Effective capabilities of a process; empty if it is gone or has none.

    Inside a user namespace they hold only there: see :func:`in_initial_user_namespace`.
    """
    try:
        text = (proc / str(pid) / "status").read_text("utf-8", "replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("CapEff:"):
            try:
                return parse_mask(int(line[7:], 16))
            except ValueError:
                return frozenset()
    return frozenset()


def in_initial_user_namespace(proc: Path = PROC) -> bool:
    """Whether this process's user ids are the host's, so that its capabilities hold for the whole kernel."""
    try:
        words = (proc / "self" / "uid_map").read_text("ascii", "replace").split()
    except OSError:
        return True  # a kernel without user namespaces has no such file
    return words == ["0", "0", "4294967295"]

"""TCP counters of a network namespace: ``/proc/<pid>/net/snmp`` and ``netstat``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import KernelUnavailable
from holdfast.linux.namespaces import PROC

_GROUPS = frozenset({"Tcp", "TcpExt", "MPTcpExt"})
# Levels and settings that share the files with the counters.
_NOT_COUNTERS = frozenset({"RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab", "MPCurrEstab"})


def parse(text: str) -> dict[str, int]:
    """Counters by the kernel's names, from the text of ``snmp``, ``netstat`` or both joined.

    Only TCP and MPTCP groups are kept, levels and settings are left out. Lines that do not pair up
    are skipped, so damaged text gives fewer counters, never an error.
    """
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].rstrip(":") not in _GROUPS:
            names = []
        elif names and names[0] == words[0]:
            for name, value in zip(names[1:], words[1:], strict=False):
                if name not in _NOT_COUNTERS and value.isascii() and value.isdecimal():
                    found[name] = int(value)
            names = []
        else:
            names = words
    return found


def read(pid: int | str = "self", proc: Path = PROC) -> dict[str, int]:
    """Counters of the network namespace that ``pid`` lives in.

    Raises:
        KernelUnavailable: the process is gone, or its files are not ours to read.
    """
    folder = proc / str(pid) / "net"
    try:
        text = "\n".join((folder / name).read_text("ascii", "replace") for name in ("snmp", "netstat"))
    except OSError as error:
        needs = f"a living process ({error.strerror})"
        raise KernelUnavailable(f"Reading TCP counters of process {pid}", needs) from error
    return parse(text)


def delta(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was counted between two readings; only names that moved.

    A counter that went backwards belongs to a new namespace: it is counted from zero.
    """
    moved = {}
    for name, value in after.items():
        old = before.get(name, 0)
        if value != old:
            moved[name] = value - old if value > old else value
    return {name: count for name, count in moved.items() if count}

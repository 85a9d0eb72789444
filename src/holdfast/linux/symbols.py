"""Names for addresses: kernel functions, and places in the modules of a user process."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from holdfast.linux.namespaces import PROC

_TEXT = frozenset("tTwW")
# The last symbol of a range has no end; no kernel function is longer than this.
_MAX_FUNCTION_BYTES = 1 << 20


class KernelSymbols:
    """Kernel functions by address, from ``/proc/kallsyms``; read once, at the first question.

    Where ``kernel.kptr_restrict`` hides the addresses (needs CAP_SYSLOG), :attr:`hidden` is true and
    every answer is the bare address.
    """

    def __init__(self, path: Path = PROC / "kallsyms") -> None:
        self._path = path
        self._addresses: array[int] | None = None
        self._names: list[str] = []

    @property
    def hidden(self) -> bool:
        """Whether no address can be named here."""
        return not self._load()

    def name(self, address: int) -> str:
        """The function that holds ``address``, without compiler suffixes; else the address itself."""
        addresses = self._load()
        at = bisect_right(addresses, address) - 1
        if at < 0 or address - addresses[at] > _MAX_FUNCTION_BYTES:
            return f"0x{address:x}"
        return self._names[at]

    def has(self, name: str) -> bool:
        """Whether there is a function of this name: not inlined everywhere."""
        self._load()
        return name in self._names

    def _load(self) -> array[int]:
        if self._addresses is None:
            try:
                with open(self._path, encoding="ascii", errors="replace") as lines:
                    found = sorted(_functions(lines))
            except OSError:
                found = []
            self._addresses = array("Q", [address for address, _ in found])
            self._names = [name for _, name in found]
        return self._addresses


def _functions(lines: Iterable[str]) -> list[tuple[int, str]]:
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 3 or words[1] not in _TEXT:
            continue
        try:
            address = int(words[0], 16)
        except ValueError:
            continue
        if 0 < address < 1 << 64:
            # tcp_v4_rcv.isra.0, .constprop.0, .cold and .part.1 are parts of the function so named.
            found.append((address, words[2].partition(".")[0] or words[2]))
    return found


class Mapping(NamedTuple):
    """One executable range of a process: addresses, offset in the file, and the file's last name."""

    start: int
    end: int
    offset: int
    module: str


def parse_maps(text: str) -> tuple[Mapping, ...]:
    """Executable ranges of ``/proc/<pid>/maps``, by address; lines that make no sense are skipped."""
    found = []
    for line in text.splitlines():
        words = line.split(None, 5)
        if len(words) < 5 or "x" not in words[1]:
            continue
        start, _, end = words[0].partition("-")
        try:
            numbers = int(start, 16), int(end, 16), int(words[2], 16)
        except ValueError:
            continue
        path = words[5].removesuffix(" (deleted)") if len(words) > 5 else "[anon]"
        found.append(Mapping(*numbers, path.rpartition("/")[2] or path))
    return tuple(sorted(found))


def place(mappings: tuple[Mapping, ...], address: int) -> str | None:
    """``module+0xoffset`` (in the file, as ``addr2line`` wants it); None if nothing is mapped there."""
    at = bisect_right(mappings, address, key=lambda mapping: mapping.start) - 1
    if at < 0 or address >= mappings[at].end:
        return None
    found = mappings[at]
    return f"{found.module}+0x{address - found.start + found.offset:x}"


def user_path(name: Callable[[int, int], str | None], pid: int, addresses: Iterable[int]) -> tuple[str, ...]:
    """The places of a call chain in a process, innermost first, up to the first where no code is.

    In a program that was built without frame pointers the kernel takes for a caller's address whatever lies
    on the stack, and goes on from there.
    """
    found = []
    for address in addresses:
        place_there = name(pid, address) if address else None
        if place_there is None:
            break
        found.append(place_there)
    return tuple(found)


class UserSymbols:
    """Places in user processes by pid and address; the maps of the last processes asked for are kept.

    Args:
        capacity: how many processes' maps to keep.
    """

    def __init__(self, proc: Path = PROC, capacity: int = 256) -> None:
        self._proc = proc
        self._capacity = capacity
        self._maps: OrderedDict[int, tuple[str, tuple[Mapping, ...]]] = OrderedDict()

    def name(self, pid: int, address: int) -> str | None:
        """``module+0xoffset``; None where no code is, and if the process is gone or not ours to read."""
        born = self._born(pid)
        known = self._maps.get(pid)
        # A pid can be used again, and a process can map a library after we looked.
        if known is not None and (born is None or known[0] == born):
            self._maps.move_to_end(pid)
            found = place(known[1], address)
            if found is not None or born is None:
                return found
        if born is None:
            return None
        mappings = self._read(pid)
        self._maps[pid] = (born, mappings)
        self._maps.move_to_end(pid)
        while len(self._maps) > self._capacity:
            self._maps.popitem(last=False)
        return place(mappings, address)

    def _born(self, pid: int) -> str | None:
        """A process's start time in clock ticks: with the pid it is never used twice."""
        try:
            text = (self._proc / str(pid) / "stat").read_text("utf-8", "replace")
        except OSError:
            return None
        # The command in parentheses may hold anything, even spaces and parentheses.
        words = text.rpartition(")")[2].split()
        return words[19] if len(words) > 19 else None

    def _read(self, pid: int) -> tuple[Mapping, ...]:
        try:
            return parse_maps((self._proc / str(pid) / "maps").read_text("utf-8", "replace"))
        except OSError:
            return ()

"""Tracepoints opened through ``perf_event_open``, with one ring buffer for each CPU."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import KernelUnavailable
from holdfast.watch.tracepoint.records import SAMPLE_TYPE, Lost, Sample, parse

ONLINE = Path("/sys/devices/system/cpu/online")

_SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
_TYPE_TRACEPOINT = 2
_CLOCK_MONOTONIC = 1
_FLAG_CLOEXEC = 8
_IOC_ENABLE, _IOC_DISABLE, _IOC_SET_OUTPUT = 0x2400, 0x2401, 0x2405
_IOC_SET_FILTER = 0x40082406
# Bits of struct perf_event_attr.
_DISABLED, _WATERMARK, _USE_CLOCKID = 1 << 0, 1 << 14, 1 << 25
_NO_CALLCHAIN = 1 << 21 | 1 << 22
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
# Words of the control page that precedes the ring: how far the kernel wrote, how far we read.
_HEAD, _TAIL = 1024 // 8, 1032 // 8


class Wanted(NamedTuple):
    """A tracepoint to open: its id, a filter the kernel applies, and whether to record who called."""

    id: int
    filter: str = ""
    callchain: bool = True


def parse_cpus(text: str) -> list[int]:
    """CPU numbers in a list like ``0-3,8``; parts that make no sense are skipped."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and int(last or first) < 1 << 16:
            cpus.update(range(int(first), int(last or first) + 1))
    return sorted(cpus)


class Rings:
    """Samples of these tracepoints from every CPU and every network namespace.

    Args:
        wanted: tracepoints; a filter that the kernel refuses is left out, so check again.
        ring_bytes: for each CPU; rounded down to a power of two.
        frames: longest call chain, kernel and user together.

    Attributes:
        lost: samples the kernel had no room for, as far as it has told; it tells when there is room.

    Raises:
        KernelUnavailable: missing rights, or no perf events in this kernel.
    """

    def __init__(self, wanted: Sequence[Wanted], ring_bytes: int = 1 << 20, frames: int = 48) -> None:
        self.lost = 0
        self._handles: list[int] = []
        self._rings: list[_Ring] = []
        try:
            for cpu in parse_cpus(ONLINE.read_text()):
                self._open_cpu(cpu, wanted, ring_bytes, frames)
            for handle in self._handles:
                fcntl.ioctl(handle, _IOC_ENABLE, 0)
        except OSError as error:
            self.close()
            raise _unavailable(error) from error

    def drain(self) -> list[Sample]:
        """Samples since the last call, in the order of time."""
        samples: list[Sample] = []
        for ring in self._rings:
            for record in parse(ring.read()):
                if isinstance(record, Lost):
                    self.lost += record.samples
                else:
                    samples.append(record)
        samples.sort(key=lambda sample: sample.mono_ns)
        return samples

    def filenos(self) -> list[int]:
        """For ``poll``: each becomes readable when a quarter of its ring is full."""
        return [ring.handle for ring in self._rings]

    def close(self) -> None:
        """Stop, and free the rings."""
        for ring in self._rings:
            ring.close()
        for handle in self._handles:
            os.close(handle)
        self._rings, self._handles = [], []

    def _open_cpu(self, cpu: int, wanted: Sequence[Wanted], ring_bytes: int, frames: int) -> None:
        leader = None
        for one in wanted:
            try:
                handle = _perf_event_open(one, cpu, frames, ring_bytes // 4)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # the CPU went offline meanwhile
                raise
            self._handles.append(handle)
            if one.filter:
                _set_filter(handle, one.filter)
            if leader is None:
                leader = handle
                self._rings.append(_Ring(handle, ring_bytes))
            else:
                fcntl.ioctl(handle, _IOC_SET_OUTPUT, leader)


class _Ring:
    """One CPU's buffer: the kernel writes at the head, we read from the tail."""

    def __init__(self, handle: int, size: int) -> None:
        size = max(mmap.PAGESIZE, 1 << (size.bit_length() - 1))
        self.handle = handle
        self._size = size
        self._map = mmap.mmap(handle, mmap.PAGESIZE + size)
        self._words = memoryview(self._map).cast("Q")

    def read(self) -> bytes:
        head, tail = self._words[_HEAD], self._words[_TAIL]
        first, last = tail % self._size, head % self._size
        page = mmap.PAGESIZE
        if head == tail:
            return b""
        if first < last:
            data = self._map[page + first : page + last]
        else:
            data = self._map[page + first :] + self._map[page : page + last]
        self._words[_TAIL] = head
        return data

    def close(self) -> None:
        self._words.release()
        self._map.close()


def _perf_event_open(one: Wanted, cpu: int, frames: int, watermark: int) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"unknown machine {platform.machine()}")
    flags = _DISABLED | _WATERMARK | _USE_CLOCKID | (0 if one.callchain else _NO_CALLCHAIN)
    attributes = _ATTRIBUTES.pack(
        *(_TYPE_TRACEPOINT, _ATTRIBUTES.size, one.id),
        *(1, SAMPLE_TYPE, 0, flags, watermark),
        *(0, 0, 0, 0, 0, 0),
        *(_CLOCK_MONOTONIC, 0, 0, frames if one.callchain else 0, 0),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.syscall(ctypes.c_long(number), attributes, -1, cpu, -1, ctypes.c_ulong(_FLAG_CLOEXEC))
    if handle < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return handle


def _set_filter(handle: int, words: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # A refusal (an older kernel lacks the field) only means that more samples come than we need.
    libc.ioctl(handle, ctypes.c_ulong(_IOC_SET_FILTER), words.encode())


def _unavailable(error: OSError) -> KernelUnavailable:
    feature = "Reading tracepoints through perf_event_open"
    if error.errno in (errno.EPERM, errno.EACCES):
        return KernelUnavailable(
            feature, "root, or the capability CAP_PERFMON (before Linux 5.8 CAP_SYS_ADMIN)"
        )
    if error.errno == errno.EMFILE:
        return KernelUnavailable(feature, "more open files: raise `ulimit -n`")
    return KernelUnavailable(feature, f"a kernel with perf events ({error.strerror})")

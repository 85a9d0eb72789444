"""Records of a perf ring buffer: samples of tracepoints, and how many were lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# PERF_SAMPLE_TID | TIME | CPU | CALLCHAIN | RAW: in this order they lie in a record.
SAMPLE_TYPE = 1 << 1 | 1 << 2 | 1 << 7 | 1 << 5 | 1 << 10

_RECORD_LOST, _RECORD_SAMPLE = 2, 9
_HEADER = struct.Struct("=IHH")
_LOST = struct.Struct("=QQ")
_SAMPLE = struct.Struct("=IIQIIQ")
_RAW_SIZE = struct.Struct("=I")
# A call chain is divided by marks of its context: -128 kernel, -512 user, and others as negative.
_KERNEL, _USER = (1 << 64) - 128, (1 << 64) - 512
_FIRST_MARK = (1 << 64) - 4095


class Sample(NamedTuple):
    """One hit of a tracepoint.

    Attributes:
        pid, tid: the process and thread that ran, which is not always the one it is about.
        mono_ns: CLOCK_MONOTONIC.
        kernel, user: return addresses, innermost first.
        raw: the record that the tracepoint's format describes.
    """

    pid: int
    tid: int
    mono_ns: int
    cpu: int
    kernel: tuple[int, ...]
    user: tuple[int, ...]
    raw: bytes


class Lost(NamedTuple):
    """How many samples the kernel had no room for."""

    samples: int


def parse(data: bytes) -> Iterator[Sample | Lost]:
    """The records in a stretch of ring buffer; a malformed one is skipped, a cut one ends it."""
    at = 0
    while at + _HEADER.size <= len(data):
        kind, _misc, size = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            return
        body = data[at + _HEADER.size : at + size]
        if kind == _RECORD_SAMPLE:
            sample = _sample(body)
            if sample is not None:
                yield sample
        elif kind == _RECORD_LOST and len(body) >= _LOST.size:
            yield Lost(_LOST.unpack_from(body)[1])
        at += size


def _sample(body: bytes) -> Sample | None:
    if len(body) < _SAMPLE.size:
        return None
    pid, tid, mono_ns, cpu, _reserved, frames = _SAMPLE.unpack_from(body)
    at = _SAMPLE.size + 8 * frames
    if at + _RAW_SIZE.size > len(body):
        return None
    chain = struct.unpack_from(f"={frames}Q", body, _SAMPLE.size)
    (size,) = _RAW_SIZE.unpack_from(body, at)
    raw = body[at + _RAW_SIZE.size : at + _RAW_SIZE.size + size]
    if len(raw) < size:
        return None
    kernel, user = _split(chain)
    return Sample(pid, tid, mono_ns, cpu, kernel, user, raw)


def _split(chain: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    kernel: list[int] = []
    user: list[int] = []
    into: list[int] = []
    for address in chain:
        if address >= _FIRST_MARK:
            into = kernel if address == _KERNEL else user if address == _USER else []
        else:
            into.append(address)
    return tuple(kernel), tuple(user)

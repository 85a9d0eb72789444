"""Opens capture files, compressed or not, as streams of bytes of bounded memory."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import select
import stat
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from holdfast.errors import UsageError

_INPUT_BYTES = 1 << 18
_MAX_WINDOW_BYTES = 1 << 27
"""The most that a decompressor may remember; what ``zstd --long=27`` and ``xz -9e`` need is below it."""

_AHEAD_BYTES = 8 << 20
_POLL_MS = 200


class Damaged(Exception):
    """The compressed bytes stop making sense; the text says how."""


class Stream(Protocol):
    """Bytes of one file, decompressed."""

    def readinto(self, into: memoryview, /) -> int | None:
        """Fill as much as there is now; 0 at the end, None when nothing came within 0.2 s."""

    def close(self) -> None:
        """Close the file."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class RawFile:
    """A file as it lies on disk, or a pipe; counts what was read of it.

    ``identity`` is the same for every name of one file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.read_bytes = self._asked_bytes = 0
        self._own = path != "-"
        if not self._own and sys.stdin is None:
            raise UsageError("standard input cannot be read: it is closed.")
        self._kept = b""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if self._own else sys.stdin.fileno()
            status = os.fstat(self._fd)
        except (OSError, ValueError) as why:
            raise UsageError(f"{path} cannot be read: {getattr(why, 'strerror', None) or why}.") from None
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise UsageError(f"{path} is a directory: name the captures in it.")
        self.regular = stat.S_ISREG(status.st_mode)
        self.identity = status.st_dev, status.st_ino
        self.total_bytes = status.st_size if self.regular else None
        if self.regular:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def peek(self, size: int) -> bytes:
        """The first bytes, which are read again afterwards; fewer at the end of the file."""
        if self.regular:
            return os.pread(self._fd, size, 0)
        while len(self._kept) < size:
            more = os.read(self._fd, size - len(self._kept))
            if not more:
                break
            self._kept += more
        return self._kept

    def readinto(self, into: memoryview) -> int | None:
        """What there is, 0 at the end; None if a pipe gave nothing for 0.2 s."""
        if self._kept:
            count = min(len(self._kept), len(into))
            into[:count] = self._kept[:count]
            self._kept = self._kept[count:]
        elif self.regular:
            self._ask_ahead()
            count = os.readv(self._fd, [into])
        else:
            waiting = select.poll()
            waiting.register(self._fd, select.POLLIN)
            if not waiting.poll(_POLL_MS):
                return None
            count = os.readv(self._fd, [into])
        self.read_bytes += count
        return count

    def read_by(self, reader: Callable[[int, int], int], most_bytes: int) -> int:
        """Let it read on from the descriptor of a regular file, about so many bytes; gives how many."""
        self._ask_ahead()
        count = reader(self._fd, most_bytes)
        self.read_bytes += count
        return count

    def _ask_ahead(self) -> None:
        """Ask for more than the kernel's own readahead, which is too short for a disk that is cold."""
        if self.read_bytes >= self._asked_bytes:
            self._asked_bytes = self.read_bytes + _AHEAD_BYTES
            os.posix_fadvise(self._fd, self._asked_bytes, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)

    def read(self, size: int) -> bytes | None:
        """Like :meth:`readinto`, as bytes."""
        into = bytearray(size)
        count = self.readinto(memoryview(into))
        return None if count is None else bytes(into[:count])

    def close(self) -> None:
        """Close it; standard input stays open."""
        if self._own:
            os.close(self._fd)
            self._own = False


class _Blocking(io.RawIOBase):
    """A RawFile for libraries that cannot be told to come back later."""

    def __init__(self, raw: RawFile) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        count = None
        while count is None:
            count = self._raw.readinto(memoryview(into))
        return count


class _Members:
    """Concatenated members of a format whose decompressor gives as much as it is asked for."""

    def __init__(self, raw: RawFile, make: Callable[[], _Decompressor]) -> None:
        self._raw, self._make = raw, make
        self._member = make()
        self._input = b""
        self._begun = False
        self._ended = False

    def readinto(self, into: memoryview, /) -> int | None:
        while True:
            if self._member.eof:
                # Padding between members (xz) is zeros; so is what tapes add.
                self._input = (self._member.unused_data or self._input).lstrip(b"\0")
                self._member, self._begun = self._make(), False
            if not self._input and (not self._begun or self._member.needs_input):
                more = self._raw.read(_INPUT_BYTES)
                if more is None:
                    return None
                if not more:
                    if self._begun:
                        raise Damaged("the compressed file ends early")
                    return 0
                self._input = more if self._begun else more.lstrip(b"\0")
                if not self._input:
                    continue
            data, self._input, self._begun = self._input, b"", True
            out = self._member.decompress(data, len(into))
            if out:
                into[: len(out)] = out
                return len(out)

    def close(self) -> None:
        self._raw.close()


class _Reader:
    """A library's own file object."""

    def __init__(self, raw: RawFile, reader: Any) -> None:
        self._raw, self._reader = raw, reader

    def readinto(self, into: memoryview, /) -> int | None:
        count = self._reader.readinto(into)
        return int(count)

    def close(self) -> None:
        self._raw.close()


def _needs(path: str, library: str) -> UsageError:
    return UsageError(f"{path} is compressed: to read it, install {library} (holdfast[capture] has it).")


def _gzip(raw: RawFile) -> Stream:
    try:
        from isal import igzip_lib
    except ImportError:
        return _Reader(raw, gzip.GzipFile(fileobj=io.BufferedReader(_Blocking(raw), _INPUT_BYTES)))
    return _Members(raw, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _zstd(raw: RawFile) -> Stream:
    try:
        import zstandard
    except ImportError:
        raise _needs(raw.path, "zstandard") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    file: Any = _Blocking(raw)  # its stubs ask for all of IO, of which it calls read
    return _Reader(raw, decompressor.stream_reader(file, read_size=_INPUT_BYTES, read_across_frames=True))


def _xz(raw: RawFile) -> Stream:
    return _Members(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_WINDOW_BYTES))


def _lz4(raw: RawFile) -> Stream:
    try:
        import lz4.frame
    except ImportError:
        raise _needs(raw.path, "lz4") from None
    return _Members(raw, lz4.frame.LZ4FrameDecompressor)


def _bzip2(raw: RawFile) -> Stream:
    return _Members(raw, bz2.BZ2Decompressor)


_BY_MAGIC: tuple[tuple[bytes, Callable[[RawFile], Stream]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"\xfd7zXZ\x00", _xz),
    (b"\x04\x22\x4d\x18", _lz4),
    (b"BZh", _bzip2),
)


def decompressed(raw: RawFile) -> tuple[Stream, bool]:
    """The file's content by its first bytes, whatever its name is, and whether it was compressed.

    Raises:
        UsageError: its compression needs a library that is not installed.
    """
    start = raw.peek(6)
    for magic, opened in _BY_MAGIC:
        if start.startswith(magic):
            return opened(raw), True
    return raw, False


def errors() -> tuple[type[Exception], ...]:
    """What reading a damaged file raises, with whichever libraries are there."""
    found: list[type[Exception]] = [Damaged, EOFError, OSError, zlib.error, lzma.LZMAError, RuntimeError]
    if "zstandard" in sys.modules:
        found.append(sys.modules["zstandard"].ZstdError)
    if "isal.igzip_lib" in sys.modules:
        found.append(sys.modules["isal.igzip_lib"].IsalError)
    return tuple(found)

"""The kernel's own type information (BTF): names and numbers of enums, prototypes, structs, functions."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import sys
from array import array
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import KernelUnavailable

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER_BYTES = 24
# A prototype's type chain (const, pointer, typedef, ...) is short; a damaged file may hold a loop.
_MAX_CHAIN = 32


class _Type(IntEnum):
    """``BTF_KIND_*`` of include/uapi/linux/btf.h."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Words that follow the three words of a record: a fixed number, plus a number for each of its members.
_FIXED_WORDS: dict[int, int] = {_Type.INT: 1, _Type.ARRAY: 3, _Type.VAR: 1, _Type.DECL_TAG: 1}
_MEMBER_WORDS: dict[int, int] = {
    _Type.STRUCT: 3,
    _Type.UNION: 3,
    _Type.ENUM: 2,
    _Type.FUNC_PROTO: 2,
    _Type.DATASEC: 3,
    _Type.ENUM64: 3,
}
_KNOWN: frozenset[int] = frozenset(_Type)
_WORDS: dict[int, str] = {
    _Type.CONST: "const ",
    _Type.VOLATILE: "volatile ",
    _Type.RESTRICT: "",
    _Type.TYPE_TAG: "",
    _Type.STRUCT: "struct ",
    _Type.UNION: "union ",
    _Type.ENUM: "enum ",
    _Type.ENUM64: "enum ",
}
_QUALIFIERS: frozenset[int] = frozenset((_Type.CONST, _Type.VOLATILE, _Type.RESTRICT, _Type.TYPE_TAG))


class Parameter(NamedTuple):
    """One parameter of a function: its name (often empty in a typedef) and its type in C words."""

    name: str
    type: str


def _damaged(what: str) -> KernelUnavailable:
    return KernelUnavailable("The kernel's type information (BTF)", f"an undamaged file, but {what}")


class Btf:
    """Type information by name.

    Reading is one pass over the records; strings are decoded only when asked for.

    Args:
        data: a whole BTF file, either byte order. Split BTF (of a module) is not understood.

    Raises:
        KernelUnavailable: the bytes are no BTF, are cut short, or contradict themselves.
    """

    def __init__(self, data: bytes) -> None:
        self._words, self._strings = _sections(data)
        self._starts, self._ids = _index(self._words)

    @classmethod
    def of_kernel(cls, path: Path = KERNEL_BTF) -> Btf:
        """The running kernel's types.

        Raises:
            KernelUnavailable: the kernel has none (CONFIG_DEBUG_INFO_BTF), or the file is damaged.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            needs = f"a kernel built with CONFIG_DEBUG_INFO_BTF ({path}: {error.strerror})"
            raise KernelUnavailable("The kernel's type information (BTF)", needs) from error
        return cls(data)

    def enum(self, name: str) -> dict[str, int]:
        """Values of an enum by the names of its members; empty if this kernel has no such enum."""
        for kind in (_Type.ENUM, _Type.ENUM64):
            type_id = self._find(kind, name)
            if type_id is not None:
                return self._enum_values(kind, self._starts[type_id])
        return {}

    def parameters(self, name: str) -> tuple[Parameter, ...] | None:
        """Parameters of a function, or of a typedef of a function (pointer); None if there is none.

        The typedef ``btf_trace_tcp_send_reset`` tells which arguments a tracepoint passes: its first
        parameter is the context, the others are the arguments.
        """
        start = self._find(_Type.FUNC, name)
        if start is None:
            start = self._find(_Type.TYPEDEF, name)
        if start is None:
            return None
        prototype = self._follow(start, (_Type.FUNC, _Type.TYPEDEF, _Type.PTR, _Type.CONST))
        at = self._starts[prototype]
        if prototype == 0 or self._kind(at) != _Type.FUNC_PROTO:
            return None
        words = self._words
        members = range(at + 3, at + 3 + 2 * (words[at + 1] & 0xFFFF), 2)
        return tuple(Parameter(self._string(words[m]), self._type_words(words[m + 1])) for m in members)

    def members(self, name: str) -> tuple[str, ...] | None:
        """Names of a struct's direct members (anonymous ones are empty); None if there is no such struct."""
        type_id = self._find(_Type.STRUCT, name)
        if type_id is None:
            return None
        at = self._starts[type_id]
        words = self._words
        count = words[at + 1] & 0xFFFF
        return tuple(self._string(words[m]) for m in range(at + 3, at + 3 + 3 * count, 3))

    def bit_offsets(self, name: str) -> dict[str, int] | None:
        """Where each named member of a struct starts, in bits; None if there is no such struct."""
        type_id = self._find(_Type.STRUCT, name)
        if type_id is None:
            return None
        at = self._starts[type_id]
        words = self._words
        info = words[at + 1]
        # Of a struct with bit fields the upper byte of an offset is the width of the field.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        members = range(at + 3, at + 3 + 3 * (info & 0xFFFF), 3)
        return {word: words[m + 2] & mask for m in members if (word := self._string(words[m]))}

    def has_struct(self, name: str) -> bool:
        """Whether a struct of this name is defined (``bpf_raw_tp_null_args`` marks Linux 6.14)."""
        return self._find(_Type.STRUCT, name) is not None

    def has_function(self, name: str) -> bool:
        """Whether a function of this name is described: it exists and was not inlined everywhere."""
        return self._find(_Type.FUNC, name) is not None

    def _find(self, kind: _Type, name: str) -> int | None:
        if not name or "\0" in name:
            return None
        # The section starts with a NUL, so every string has one on both sides.
        at = self._strings.find(b"\0" + name.encode() + b"\0")
        return None if at < 0 else self._ids.get(kind << 32 | at + 1)

    def _kind(self, at: int) -> int:
        return self._words[at + 1] >> 24 & 0x1F

    def _enum_values(self, kind: _Type, at: int) -> dict[str, int]:
        words = self._words
        info = words[at + 1]
        signed, count = info >> 31, info & 0xFFFF
        width = 2 if kind == _Type.ENUM else 3
        values = {}
        for m in range(at + 3, at + 3 + width * count, width):
            value = words[m + 1] if width == 2 else words[m + 1] | words[m + 2] << 32
            bits = 32 * (width - 1)
            if signed and value >> (bits - 1):
                value -= 1 << bits
            values[self._string(words[m])] = value
        return values

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if offset >= len(self._strings) or end < 0:
            raise _damaged(f"a name lies outside its strings (offset {offset})")
        return self._strings[offset:end].decode("utf-8", "replace")

    def _target(self, at: int) -> int:
        type_id = self._words[at + 2]
        if type_id >= len(self._starts):
            raise _damaged(f"a record refers to type {type_id} of {len(self._starts)}")
        return type_id

    def _follow(self, type_id: int, through: tuple[_Type, ...]) -> int:
        for _ in range(_MAX_CHAIN):
            at = self._starts[type_id]
            if type_id == 0 or self._kind(at) not in through:
                return type_id
            type_id = self._target(at)
        raise _damaged("a type refers to itself")

    def _type_words(self, type_id: int) -> str:
        """A parameter's type as C writes it, without the insides of function pointers and arrays."""
        stars, front = "", ""
        for _ in range(_MAX_CHAIN):
            if type_id == 0:
                return f"{front}void {stars}".rstrip()
            if type_id >= len(self._starts):
                raise _damaged(f"a parameter has type {type_id} of {len(self._starts)}")
            at = self._starts[type_id]
            kind = self._kind(at)
            if kind == _Type.PTR:
                stars += "*"
            elif kind in _QUALIFIERS:
                front += _WORDS[kind]
            elif kind == _Type.FUNC_PROTO:
                return f"{front}function {stars}".rstrip()
            elif kind == _Type.ARRAY:
                return f"{front}array {stars}".rstrip()
            else:
                return f"{front}{_WORDS.get(kind, '')}{self._string(self._words[at])} {stars}".rstrip()
            type_id = self._target(at)
        raise _damaged("a type refers to itself")


def _sections(data: bytes) -> tuple[array[int], bytes]:
    """The records as words in this machine's byte order, and the strings."""
    if len(data) < _HEADER_BYTES:
        raise _damaged(f"it ends after {len(data)} bytes")
    mark = "<" if data[:2] == _MAGIC.to_bytes(2, "little") else ">"
    magic, *fields = struct.unpack_from(f"{mark}HHIIIII", data)
    if magic != _MAGIC:
        raise _damaged("it does not start with the BTF magic number")
    _version, header, types_at, types_bytes, strings_at, strings_bytes = fields
    types_at, strings_at = header + types_at, header + strings_at
    if header < _HEADER_BYTES or max(types_at + types_bytes, strings_at + strings_bytes) > len(data):
        raise _damaged("a section lies outside of it")
    strings = data[strings_at : strings_at + strings_bytes]
    if types_bytes % 4 or not strings or strings[0] or strings[-1]:
        raise _damaged("a section has an impossible shape")
    words = array("I", data[types_at : types_at + types_bytes])
    if (mark == "<") != (sys.byteorder == "little"):
        words.byteswap()
    return words, strings


def _index(words: array[int]) -> tuple[list[int], dict[int, int]]:
    """Where each type's record starts (by type id), and type ids by kind and name."""
    fixed = [_FIXED_WORDS.get(kind, 0) + 3 if kind in _KNOWN else 0 for kind in range(32)]
    each = [_MEMBER_WORDS.get(kind, 0) for kind in range(32)]
    starts = [0]
    ids: dict[int, int] = {}
    at, end = 0, len(words)
    try:
        while at < end:
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            step = fixed[kind]
            if not step:
                raise _damaged(f"it holds a record of unknown kind {kind}")
            ids[kind << 32 | words[at]] = len(starts)
            starts.append(at)
            at += step + each[kind] * (info & 0xFFFF)
    except IndexError:
        at = end + 1
    if at != end:
        raise _damaged("its last record is cut short")
    return starts, ids

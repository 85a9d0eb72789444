"""A tracepoint's ``format`` file: where its fields lie in a record, and the names of their values."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.errors import KernelUnavailable

_ID = re.compile(r"^ID: (\d{1,9})$", re.MULTILINE)
_FIELD = re.compile(r"^\tfield:([^;]+);\toffset:(\d{1,5});\tsize:(\d{1,5});\tsigned:([01]);$", re.MULTILINE)
_NAME = re.compile(r"(\w+)(?:\[\w*\])?$")
_SYMBOLS = re.compile(r"__print_symbolic\(REC->(\w+),([^()]*)\)")
_SYMBOL = re.compile(r'\{\s*(-?\d{1,10}|0x[0-9a-fA-F]{1,8})\s*,\s*"([^"]*)"\s*\}')


class Field(NamedTuple):
    """Where a field lies in a record."""

    offset: int
    size: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Format:
    """One tracepoint's layout on this kernel.

    Attributes:
        name: ``category:name``.
        id: what records of it carry as ``common_type``, and what perf wants as ``config``.
        fields: by name.
        symbols: names of a field's values, where the kernel prints them by name.
    """

    name: str
    id: int
    fields: dict[str, Field]
    symbols: dict[str, dict[int, str]] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether records have all of these fields."""
        return all(name in self.fields for name in names)

    def number(self, record: bytes, name: str) -> int:
        """A field as a number; 0 if this kernel has no such field, or the record is cut before it."""
        place = self.fields.get(name)
        if place is None:
            return 0
        raw = record[place.offset : place.offset + place.size]
        return int.from_bytes(raw, sys.byteorder, signed=place.signed) if len(raw) == place.size else 0

    def raw(self, record: bytes, name: str) -> bytes:
        """A field's bytes; empty if this kernel has no such field."""
        place = self.fields.get(name)
        return b"" if place is None else record[place.offset : place.offset + place.size]


def parse(name: str, text: str) -> Format:
    """The layout that a ``format`` file describes; lines that make no sense are skipped.

    Raises:
        KernelUnavailable: the text has no id or no fields.
    """
    number = _ID.search(text)
    fields = {}
    for words, offset, size, signed in _FIELD.findall(text):
        found = _NAME.search(words)
        if found:
            fields[found[1]] = Field(int(offset), int(size), signed == "1")
    if number is None or not fields:
        raise KernelUnavailable(f"The tracepoint {name}", "a format file that describes its fields")
    symbols = {
        who: {int(value, 0): word for value, word in _SYMBOL.findall(pairs)}
        for who, pairs in _SYMBOLS.findall(text)
    }
    return Format(name, int(number[1]), fields, {who: words for who, words in symbols.items() if words})

# SPDX-License-Identifier: Apache-2.0
"""A parser that reads a file by itself gives what one gives that is fed its bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import making_captures as make
import pytest

from holdfast.watch.capture import parser as capture_parser
from holdfast.watch.capture.parser import Parser
from holdfast.watch.capture.portable import Capture as Portable

MIB = 1 << 20
LONGEST = b"\0" * MIB  # a packet of no known kind, longer than any piece that is read


def make_native() -> Parser:
    native = pytest.importorskip("holdfast._native", reason="holdfast was built without its C extension")
    made: Parser = native.Capture(1000, MIB, MIB, True)
    return made


def make_portable() -> Parser:
    return Portable(1000, MIB, MIB, True)


parsers = pytest.mark.parametrize("make_parser", [make_native, make_portable])


def capture(size: int, *, fill: bytes = b"", seed: int = 1) -> bytes:
    """Resets at odd offsets, between packets of many lengths."""
    chance = random.Random(seed)
    made: list[make.Record] = []
    length = 0
    for port in count(1024):
        if length > size:
            return make.pcap(made)
        end = ("10.0.0.1", port)
        opening, reset = (make.ethernet(make.segment(end, make.SERVER, flags)) for flags in (2, 4))
        made += make.Record(port * 10**6, opening), make.Record(port * 10**6, reset)
        made.append(make.Record(port * 10**6, fill or bytes(chance.randrange(14, 60_000))))
        length += len(made[-1].data) + 200
    raise AssertionError


def results(parser: Parser) -> tuple[bytes, ...]:
    return parser.records(), parser.rows(), parser.counts()


def fed(parser: Parser, data: bytes) -> Iterator[Any]:
    parser.begin_file(0)
    taken = parser.feed(data)
    yield parser.end_file(len(data) - taken)
    while parser.finish():
        pass
    yield results(parser)


def read(parser: Parser, data: bytes, most_bytes: int) -> Iterator[Any]:
    """The same from a file of memory, whose end is met as that of a file on a disk."""
    fd = os.memfd_create("capture")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        parser.begin_file(0)
        total, found = 0, (b"", b"")
        while step := parser.read(fd, most_bytes):
            total += step
            found = found[0] + parser.records(), found[1] + parser.rows()
        assert total == len(data) or parser.damaged()
        yield parser.end_file(0)
    finally:
        os.close(fd)
    while parser.finish():
        pass
    yield found[0] + parser.records(), found[1] + parser.rows(), parser.counts()


CAPTURES = {
    "many pieces": capture(3 * MIB),
    "the longest packets": capture(5 * MIB, fill=LONGEST),
    "cut inside a packet": capture(MIB)[:-7],
    "damaged": capture(MIB // 2) + b"\xff" * (2 * MIB),
    "only a header": make.pcap([]),
    "nothing": b"",
    "no capture": b"\x01" * MIB,
}


@parsers
@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("most_bytes", [1, 8 * MIB], ids=["a piece at a time", "all at once"])
def test_reading_by_itself_gives_what_being_fed_does(
    make_parser: type[Parser], name: str, most_bytes: int
) -> None:
    data = CAPTURES[name]
    if make_parser is make_portable and most_bytes == 1:
        most_bytes = 4099  # it reads what it is asked for, not a whole piece
    expected = list(fed(make_parser(), data))
    assert list(read(make_parser(), data, most_bytes)) == expected


def test_these_captures_have_results() -> None:
    records, rows, _ = list(fed(make_native(), CAPTURES["many pieces"]))[1]
    assert records
    assert rows


@parsers
def test_what_one_file_left_is_not_of_the_next(make_parser: type[Parser]) -> None:
    parser = make_parser()
    first = list(read(parser, CAPTURES["cut inside a packet"], 8 * MIB))
    second = list(read(parser, CAPTURES["only a header"], 8 * MIB))
    assert first[0] is not None
    assert second[0] is None


@parsers
def test_a_file_that_cannot_be_read_is_an_error_of_the_system(make_parser: type[Parser]) -> None:
    parser = make_parser()
    parser.begin_file(0)
    folder = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            parser.read(folder, MIB)
    finally:
        os.close(folder)


def test_the_compiled_parser_refuses_to_read_nothing() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        make_native().read(0, 0)


def test_new_parser_takes_the_compiled_one() -> None:
    native = pytest.importorskip("holdfast._native", reason="holdfast was built without its C extension")
    assert type(capture_parser.new_parser(rows=False)) is native.Capture

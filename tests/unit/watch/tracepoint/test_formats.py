# SPDX-License-Identifier: Apache-2.0
"""Format files are read by field name; damaged ones give fewer fields or one clear error."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.watch.tracepoint.formats import Field, Format, parse

TEXT = """\
name: tcp_send_reset
ID: 2280
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:enum sk_rst_reason reason;\toffset:16;\tsize:4;\tsigned:0;
\tfield:__u8 saddr[28];\toffset:20;\tsize:28;\tsigned:0;

print fmt: "state=%s reason=%s", \
REC->state ? __print_symbolic(REC->state, { TCP_ESTABLISHED, "TCP_ESTABLISHED" }) : "UNKNOWN", \
__print_symbolic(REC->reason, { 0, "NOT_SPECIFIED" }, { 0x1, "NO_SOCKET" }, { -2, "ODD" })
"""
FIELDS = {
    "common_type": Field(0, 2, False),
    "common_pid": Field(4, 4, True),
    "skbaddr": Field(8, 8, False),
    "reason": Field(16, 4, False),
    "saddr": Field(20, 28, False),
}


def test_fields_and_names_of_values() -> None:
    expected = {"reason": {0: "NOT_SPECIFIED", 1: "NO_SOCKET", -2: "ODD"}}
    assert parse("tcp:tcp_send_reset", TEXT) == Format("tcp:tcp_send_reset", 2280, FIELDS, expected)


def test_every_cut_gives_a_part_or_our_error() -> None:
    for length in range(len(TEXT)):
        with suppress(KernelUnavailable):
            assert parse("x", TEXT[:length]).fields.items() <= FIELDS.items()


@settings(deadline=None)
@given(st.text(alphabet='field:ID offsetsize{}()";\t\n0129,->REC__print_symbolic', max_size=300))
def test_any_text_gives_a_part_or_our_error(text: str) -> None:
    with suppress(KernelUnavailable):
        parse("x", text)


def test_a_text_without_fields_is_one_clear_error() -> None:
    with pytest.raises(KernelUnavailable) as caught:
        parse("tcp:x", "ID: 5\n")
    assert str(caught.value) == (
        "The tracepoint tcp:x is not available here: it needs a format file that describes its fields."
    )


def test_values_by_name() -> None:
    layout = parse("x", TEXT)
    record = struct.pack("=HHiQI28s", 2280, 0, -5, 1 << 63, 7, b"ab")
    assert layout.number(record, "common_pid") == -5
    assert layout.number(record, "skbaddr") == 1 << 63
    assert layout.number(record, "reason") == 7
    assert layout.raw(record, "saddr") == b"ab".ljust(28, b"\0")
    assert (layout.number(record, "absent"), layout.raw(record, "absent")) == (0, b"")
    assert layout.has("reason", "saddr")
    assert not layout.has("reason", "absent")


def test_a_cut_record_has_zeros_for_what_is_missing() -> None:
    layout = parse("x", TEXT)
    record = struct.pack("=HHiQI", 2280, 0, -5, 9, 7)
    assert [layout.number(record[:n], "reason") for n in (20, 19, 16, 0)] == [7, 0, 0, 0]

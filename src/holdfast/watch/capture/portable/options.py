"""TCP options and the first bytes of a payload."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.watch.capture.flow import Content, Option
from holdfast.watch.capture.portable.segment import Segment, after

_METHODS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI ")
_TIMESTAMP_FIRST = b"\x01\x01\x08\x0a"


def number(data: bytes) -> int:
    """These bytes as the wire has them."""
    return int.from_bytes(data, "big")


def read_options(seg: Segment, area: bytes, size: int) -> None:
    """The options in ``area``, which is what was captured of ``size`` bytes."""
    known = min(len(area), size)
    at = 0
    if known >= 12 and area[:4] == _TIMESTAMP_FIRST:
        _read_option(seg, 8, area[2:12])
        at = 12
    while at < known and area[at] != 0:
        if area[at] == 1:
            at += 1
            continue
        if at + 1 < size and at + 1 >= known:
            break
        if at + 1 >= size or area[at + 1] < 2 or area[at + 1] > size - at:
            seg.options |= Option.MALFORMED
            return
        length = area[at + 1]
        if length > known - at:
            break
        _read_option(seg, area[at], area[at : at + length])
        at += length
    if known < size and (at >= known or area[at] != 0):
        seg.options |= Option.CUT


def _read_option(seg: Segment, kind: int, option: bytes) -> None:
    length = len(option)
    if kind == 2 and length == 4:
        seg.options |= Option.MSS
        seg.mss = number(option[2:4])
    elif kind == 3 and length == 3:
        seg.options |= Option.WINDOW_SCALE
        seg.window_scale = min(option[2], 14)  # RFC 7323 2.3
    elif kind == 8 and length == 10:
        seg.options |= Option.TIMESTAMP
        seg.ts_val, seg.ts_ecr = number(option[2:6]), number(option[6:10])
    elif kind in (2, 3, 8):
        seg.options |= Option.MALFORMED
    elif kind == 5:
        _read_sack(seg, option)
    elif kind == 30:
        _read_mptcp(seg, option)
    else:
        seg.options |= _OTHERS.get(kind, Option.OTHER)


_OTHERS = {4: Option.SACK_PERMITTED, 19: Option.MD5, 29: Option.AO, 34: Option.FAST_OPEN}


def _read_sack(seg: Segment, option: bytes) -> None:
    for at in range(2, len(option) - 7, 8):
        right = number(option[at + 4 : at + 8])
        if not seg.options & Option.SACK or after(right, seg.sack_right):
            seg.sack_right = right
        seg.options |= Option.SACK


def _read_mptcp(seg: Segment, option: bytes) -> None:
    seg.options |= Option.MPTCP
    if len(option) < 3:
        return
    if option[2] >> 4 == 7:
        seg.options |= Option.MPTCP_FASTCLOSE
    if option[2] >> 4 == 8 and len(option) >= 4:
        seg.options |= Option.MPTCP_RST
        seg.mptcp_reason = option[3]


def content_of(kept: bytes, length: int) -> int:
    """What a payload of this length looks like, from what was captured of it."""
    if length == 0:
        return Content.NONE
    if len(kept) < min(length, 6):
        return Content.CUT
    if length < 6:
        return Content.OTHER
    if kept[1] == 3 and 0x14 <= kept[0] <= 0x17:
        if kept[0] == 0x15:
            return Content.TLS_ALERT
        return Content.TLS_CLIENT_HELLO if kept[0] == 0x16 and kept[5] == 1 else Content.TLS_OTHER
    if kept.startswith(b"HTTP"):
        return Content.HTTP_RESPONSE
    return Content.HTTP_REQUEST if kept.startswith(_METHODS) else Content.OTHER

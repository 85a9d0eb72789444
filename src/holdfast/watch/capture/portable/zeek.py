"""``conn_state`` and ``history`` as Zeek would log them; ``native/capture_zeek.c`` says the same in C."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

from holdfast.watch.capture.flow import ACK, FIN, RST, SYN
from holdfast.watch.capture.portable.flow import Flow, Side
from holdfast.watch.capture.portable.segment import U32, Segment, signed

INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
_WROTE_SYN, _WROTE_FIN, _WROTE_RST, _WROTE_DATA, _WROTE_ACK, _WROTE_FIN_RST, _WROTE_MULTI = (
    1 << bit for bit in range(7)
)
_FAR = 1 << 20
_MAX_HISTORY = 31

# fmt: off
SERVER_PORTS = {
    20, 21, 22, 23, 25, 53, 80, 81, 88, 102, 110, 135, 139, 143, 161, 389, 443, 445, 502, 514, 515, 585, 587,
    614, 631, 636, 666, 989, 990, 992, 993, 995, 1080, 1434, 1812, 1883, 2811, 3128, 3268, 3269, 3306, 3389,
    5060, 5072, 5222, 5223, 5269, 5355, 5432, 5671, 6379, 6665, 6666, 6667, 6668, 6669, 6697, 8000, 8080,
    8888, 20000,
}
# fmt: on


def begin(flow: Flow, seg: Segment) -> None:
    """Who began it: the sender, unless it looks like the server of a connection that began earlier."""
    src, dst = seg.key.ends[seg.sender][1], seg.key.ends[1 - seg.sender][1]
    flip = False
    if (not seg.flags & SYN or seg.flags & ACK) and src in SERVER_PORTS:
        flip = not seg.flags & SYN and src < dst if dst in SERVER_PORTS else True
    flow.originator = 1 - seg.sender if flip else seg.sender
    if flip:
        _write(flow, "^")


def count(flow: Flow, seg: Segment) -> None:
    """Follow one segment."""
    side, other = flow.sides[seg.sender], flow.sides[1 - seg.sender]
    end, peer = side.zeek, other.zeek
    payload = 0 if seg.flags & RST else seg.payload_bytes
    past = (seg.seq + payload + (seg.flags & SYN > 0) + (seg.flags & FIN > 0)) & U32
    _begin_end(side, seg, past)
    _write_history(flow, seg)
    if seg.window == 0 and not seg.flags & RST and peer.state != CLOSED and end.state != RESET:
        end.zero_windows += 1
        _write_scaled(flow, seg.sender, end.zero_windows, "W")
    end.fin |= seg.flags & FIN > 0
    if seg.flags & ACK:
        _take_ack(flow, seg)
    _take_sequence(flow, seg, past)
    _move(flow, seg)


def _write(flow: Flow, letter: str) -> None:
    if len(flow.zeek_history) < _MAX_HISTORY:
        flow.zeek_history += letter


def _write_by(flow: Flow, end: int, letter: str) -> None:
    _write(flow, letter if end == flow.originator else letter.lower())


def _wrote(flow: Flow, end: int, kind: int, letter: str) -> bool:
    bit = kind if end == flow.originator else kind << 16
    if flow.zeek_letters & bit:
        return True
    flow.zeek_letters |= bit
    _write_by(flow, end, letter)
    return False


def _write_scaled(flow: Flow, end: int, times: int, letter: str) -> None:
    if str(times).rstrip("0") == "1":
        _write_by(flow, end, letter)


def _start_at(side: Side, seq: int, last: int) -> None:
    side.zeek.start = side.zeek.ack = seq & U32
    side.zeek.last = last & U32


def _begin_end(side: Side, seg: Segment, past: int) -> None:
    state, syn = side.zeek.state, seg.flags & SYN
    if state == INACTIVE:
        if syn:
            _start_at(side, seg.seq, past)
        else:
            _start_at(side, seg.seq - 1, seg.seq)
    elif (
        syn
        and (state != RESET or side.zeek.before == INACTIVE)
        and state != CLOSED
        and (state not in (SYN_SENT, SYN_ACK_SENT) or seg.seq != side.zeek.start)
    ):
        _start_at(side, seg.seq, past)


def _write_history(flow: Flow, seg: Segment) -> None:
    end = flow.sides[seg.sender].zeek
    flags = seg.flags & (SYN | FIN | RST)
    seq = (seg.seq - end.start) & U32
    if flags == SYN:
        letter = "H" if seg.flags & ACK else "S"
        if _wrote(flow, seg.sender, _WROTE_SYN, letter) and seq != end.last_syn:
            _write_by(flow, seg.sender, letter)
        end.last_syn = seq
    elif flags == FIN:
        seq = (seq + seg.payload_bytes) & U32
        if _wrote(flow, seg.sender, _WROTE_FIN, "F") and seq != end.last_fin:
            _write_by(flow, seg.sender, "F")
        end.last_fin = seq
    elif flags == RST:
        if _wrote(flow, seg.sender, _WROTE_RST, "R") and seq != end.last_rst:
            _write_by(flow, seg.sender, "R")
        end.last_rst = seq
    elif flags & (FIN | RST) == FIN | RST:
        _wrote(flow, seg.sender, _WROTE_FIN_RST, "I")
    elif flags:
        _wrote(flow, seg.sender, _WROTE_MULTI, "Q")
    elif seg.payload_bytes:
        _wrote(flow, seg.sender, _WROTE_DATA, "D")
    elif seg.flags & ACK:
        _wrote(flow, seg.sender, _WROTE_ACK, "A")


def _take_ack(flow: Flow, seg: Segment) -> None:
    other = flow.sides[1 - seg.sender]
    end, peer = flow.sides[seg.sender].zeek, other.zeek
    if peer.state == INACTIVE:
        _start_at(other, seg.ack - 1, seg.ack - 1)
        return
    ahead = signed(seg.ack - peer.ack, 32)
    if signed(seg.ack - peer.start, 32) < 0 or seg.flags & RST or ahead <= 0:
        return
    if seg.ack == 0 and ahead > _FAR:
        return
    if (
        signed(seg.ack - peer.last, 32) > 0
        and end.state == ESTABLISHED
        and peer.state == ESTABLISHED
        and not seg.flags & FIN
    ):
        peer.gaps += 1
        _write_scaled(flow, 1 - seg.sender, peer.gaps, "G")
    peer.ack = seg.ack


def _take_sequence(flow: Flow, seg: Segment, past: int) -> None:
    end = flow.sides[seg.sender].zeek
    ahead = signed(past - end.last, 32)
    if seg.flags & (SYN | RST) and not -_FAR <= ahead <= _FAR:
        return
    if seg.flags & FIN and end.last == (end.start + 1) & U32:
        end.last = past
    elif end.state == RESET:
        return
    elif ahead > 0:
        end.last = past
    elif seg.payload_bytes:
        end.retransmits += 1
        _write_scaled(flow, seg.sender, end.retransmits, "T")


def _become(side: Side, state: int) -> None:
    if side.zeek.state != state:
        side.zeek.before, side.zeek.state = side.zeek.state, state


def _first_syn(flow: Flow, side: Side, other: Side, seg: Segment) -> None:
    if seg.sender == flow.originator:
        _become(side, SYN_ACK_SENT if seg.flags & ACK else SYN_SENT)
        return
    if not seg.flags & ACK and other.zeek.state == SYN_ACK_SENT and seg.seq == side.zeek.start:
        flow.originator = 1 - flow.originator
        flow.zeek_letters = (flow.zeek_letters << 16 | flow.zeek_letters >> 16) & U32
        _write(flow, "^")
        _become(other, ESTABLISHED)
    if other.zeek.state == SYN_SENT:
        _become(other, ESTABLISHED)
    _become(side, ESTABLISHED)


def _from_inactive(flow: Flow, side: Side, other: Side, seg: Segment) -> None:
    if seg.flags & SYN:
        _first_syn(flow, side, other, seg)
    if seg.flags & FIN:
        _become(side, CLOSED)
    if seg.flags & RST:
        _become(side, RESET)
    if side.zeek.state != INACTIVE:
        return
    # Some stacks acknowledge a SYN before they answer it.
    if seg.sender != flow.originator and not seg.payload_bytes and other.zeek.state == SYN_SENT:
        return
    _become(side, ESTABLISHED if seg.flags & ACK and other.zeek.state == ESTABLISHED else PARTIAL)


def _move(flow: Flow, seg: Segment) -> None:
    side, other = flow.sides[seg.sender], flow.sides[1 - seg.sender]
    state, flags = side.zeek.state, seg.flags
    if state == INACTIVE:
        _from_inactive(flow, side, other, seg)
    elif state in (SYN_SENT, SYN_ACK_SENT):
        if flags & FIN:
            _become(side, CLOSED)
        if flags & RST:
            _become(side, RESET)
    elif state in (ESTABLISHED, PARTIAL):
        if flags & SYN and not flags & ACK and state == PARTIAL and other.zeek.state == INACTIVE:
            _become(side, SYN_SENT)
        if flags & FIN and not flags & RST:
            _become(side, CLOSED)
            if other.zeek.state == RESET and other.zeek.before == CLOSED:
                _become(other, CLOSED)
        if flags & RST:
            _become(side, RESET)
    elif state == CLOSED and flags & RST and other.zeek.state != CLOSED:
        _become(side, RESET)


def _sent_nothing(flow: Flow, which: int) -> bool:
    end, peer = flow.sides[which].zeek, flow.sides[1 - which].zeek
    if (
        end.before == SYN_SENT
        and end.state == RESET
        and peer.state == INACTIVE
        and (end.ack - end.start) & U32 > 1
    ):
        return True
    highest = end.last if signed(end.last - end.ack, 32) > 0 else end.ack
    return (highest - end.start) & U32 <= (2 if end.fin else 1)


def conclude(flow: Flow) -> str:
    """conn_state of a flow that has ended."""
    orig, resp = flow.sides[flow.originator].zeek.state, flow.sides[1 - flow.originator].zeek.state
    silent_orig, silent_resp = orig in (INACTIVE, PARTIAL), resp in (INACTIVE, PARTIAL)
    if resp == RESET:
        if orig in (SYN_SENT, SYN_ACK_SENT):
            return "REJ"
        if orig == RESET and _sent_nothing(flow, 0) and _sent_nothing(flow, 1):
            return "REJ"
        return "RSTRH" if silent_orig else "RSTR"
    if orig == RESET:
        if not silent_resp:
            return "RSTO"
        return "RSTOS0" if re.match(r"\^?S[^HAFGIQR]*R", flow.zeek_history) else "OTH"
    if orig == CLOSED:
        return "SF" if resp == CLOSED else "SH" if silent_resp else "S2"
    if resp == CLOSED:
        return "SHR" if silent_orig else "S3"
    if (orig, resp) == (SYN_SENT, INACTIVE):
        return "S0"
    return "S1" if (orig, resp) == (ESTABLISHED, ESTABLISHED) else "OTH"

"""What one segment adds to its flow; ``native/capture_flow.c`` says the same in C."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from holdfast.watch.capture import columns
from holdfast.watch.capture.columns import Seen, SeenTime
from holdfast.watch.capture.flow import (
    ACK,
    FIN,
    RST,
    SYN,
    ClientBy,
    Option,
)
from holdfast.watch.capture.portable.evidence import Evidence
from holdfast.watch.capture.portable.segment import U32, Key, Segment, after

MAX_UNSEEN_BYTES = 1 << 24
DUPLICATE_NS = 10**6


@dataclass(slots=True)
class ZeekEnd:
    """One end as Zeek follows it."""

    start: int = 0
    last: int = 0
    ack: int = 0
    last_syn: int = 0
    last_fin: int = 0
    last_rst: int = 0
    gaps: int = 0
    retransmits: int = 0
    zero_windows: int = 0
    state: int = 0
    before: int = 0
    fin: bool = False


@dataclass(slots=True)
class Side:
    """One end; the names of :data:`columns.SIDE`."""

    payload_bytes: int = 0
    ip_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    last_data_ns: int = 0
    packets: int = 0
    data_packets: int = 0
    syns: int = 0
    fins: int = 0
    rsts: int = 0
    retransmits: int = 0
    duplicates: int = 0
    ahead: int = 0
    unseen_bytes: int = 0
    keep_alives: int = 0
    zero_windows: int = 0
    ip_id_zero: int = 0
    ip_id_steps: int = 0
    dont_fragment: int = 0
    isn: int = 0
    first_seq: int = 0
    next_seq: int = 0
    highest_ack: int = 0
    window_bytes: int = 0
    fin_seq: int = 0
    sack_right: int = 0
    syn_options: int = 0
    syn_flags: int = 0
    syn_window: int = 0
    syn_payload_bytes: int = 0
    mss: int = 0
    ip_id_first: int = 0
    ip_id_last: int = 0
    seen: int = 0
    window_scale: int = 0
    ttl_first: int = 0
    ttl_last: int = 0
    ttl_min: int = 0
    ttl_max: int = 0
    rst_ttl: int = 0
    spare: bytes = b""
    last: tuple[int, ...] = (0, 0, 0, 0, 0)  # of its last segment, to know a copy of it
    zeek: ZeekEnd = field(default_factory=ZeekEnd)

    def moment(self) -> bytes:
        """What is known of it now."""
        return columns.MOMENT_LAYOUT.pack(
            self.last_ns,
            self.last_data_ns,
            self.payload_bytes,
            self.next_seq,
            self.highest_ack,
            self.window_bytes,
            self.sack_right,
            self.packets,
            self.data_packets,
            self.rsts,
            self.fins,
            self.ip_id_last,
            self.seen,
            self.ttl_last,
        )


@dataclass(slots=True)
class Flow:
    """One connection; its ends are in the order of the key."""

    key: Key
    tunnel: int
    vlan: int
    source: int
    first_number: int
    first_ns: int
    last_ns: int
    client: int = 0
    client_by: int = 0
    syn_ns: int = 0
    syn_ack_ns: int = 0
    ack_ns: int = 0
    first_rst_ns: int = 0
    seen: int = 0
    backwards: int = 0
    simultaneous: int = 0
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    places: int = 0
    others: int = 0
    fins: int = 0
    closed: int = 0  # 1 or 2: by that end's RST; 3: by FINs both ways
    beyond_syn: bool = False
    has_window_scale: bool = False
    evidence: Evidence | None = None
    charged_bytes: int = 0  # for its evidence, in the table's account
    ring: deque[Segment] = field(default_factory=deque)  # its last packets
    chunks: int = 0  # how many its ring has
    ring_goes_round: bool = False  # it has no more of them
    ring_is_short: bool = False  # it ever held fewer than RING_PACKETS when it had no more; was counted
    waiting: int = 0
    zeek_history: str = ""
    zeek_letters: int = 0
    originator: int = 0

    # ---- who is the client

    def guess_client(self, seg: Segment) -> None:
        """By the handshake, else by the ports."""
        own, other = seg.key.ends[seg.sender][1], seg.key.ends[1 - seg.sender][1]
        if seg.flags & RST or not seg.flags & SYN:
            self.client_by = ClientBy.FIRST if own == other else ClientBy.PORT
            self.client = 1 - seg.sender if own < other else seg.sender
        else:
            self.client_by = ClientBy.SYN_ACK if seg.flags & ACK else ClientBy.SYN
            self.client = 1 - seg.sender if seg.flags & ACK else seg.sender

    def is_reused(self, seg: Segment) -> bool:
        """Whether this SYN opens another connection between the same ends."""
        side = self.sides[seg.sender]
        if seg.flags & (SYN | ACK | RST) != SYN:
            return False
        if side.seen & Seen.ISN:
            return side.isn != seg.seq
        return bool(self.closed) or side.packets > side.rsts

    def count_rst(self, seg: Segment) -> None:
        """A RST closes the flow, until its sender goes on."""
        side = self.sides[seg.sender]
        if not self.seen & SeenTime.RST:
            self.seen |= SeenTime.RST
            self.first_rst_ns = seg.time_ns
        if side.rsts == 0:
            side.rst_ttl = seg.ttl
        side.rsts += 1
        self.closed = 1 + seg.sender

    # ---- one direction

    def count_syn(self, seg: Segment) -> None:
        """What the first SYN of an end says of it."""
        side = self.sides[seg.sender]
        bit = SeenTime.SYN_ACK if seg.flags & ACK else SeenTime.SYN
        if not self.seen & bit:
            self.seen |= bit
            if seg.flags & ACK:
                self.syn_ack_ns = seg.time_ns
            else:
                self.syn_ns = seg.time_ns
        side.syns += 1
        if side.syns > 1:
            return
        side.seen |= Seen.ISN
        side.isn, side.syn_flags, side.syn_options = seg.seq, seg.flags, seg.options
        side.syn_window, side.syn_payload_bytes = seg.window, min(seg.payload_bytes, 0xFFFF)
        if seg.options & Option.MSS:
            side.seen |= Seen.MSS
            side.mss = seg.mss
        if seg.options & Option.WINDOW_SCALE:
            side.seen |= Seen.WINDOW_SCALE
            side.window_scale = seg.window_scale
        one, two = self.sides
        self.has_window_scale = bool(one.seen & two.seen & Seen.WINDOW_SCALE)
        self.simultaneous = int(one.syns > 0 and two.syns > 0 and not (one.syn_flags | two.syn_flags) & ACK)

    def count_sequence(self, seg: Segment) -> None:
        """Where it lies in what its end has sent."""
        side = self.sides[seg.sender]
        length = length_of(seg)
        end = (seg.seq + length) & U32
        probe = (seg.seq + 1) & U32 == side.next_seq
        if not side.seen & Seen.NEXT:
            side.seen |= Seen.NEXT
            side.first_seq, side.next_seq = seg.seq, end
            return
        if length == 0:
            side.keep_alives += probe and seg.flags == ACK
            return
        side.ahead += after(seg.seq, side.next_seq)
        if after(end, side.next_seq):
            side.next_seq = end
        elif seg.payload_bytes == 1 and probe:
            side.keep_alives += 1
        elif seg.payload_bytes:
            side.retransmits += 1

    def count_sack(self, seg: Segment) -> None:
        """The highest right edge beyond what is acknowledged."""
        side = self.sides[seg.sender]
        if side.seen & Seen.SACK and not after(side.sack_right, side.highest_ack):
            side.seen &= ~Seen.SACK
        if (
            seg.options & Option.SACK
            and after(seg.sack_right, side.highest_ack)
            and (not side.seen & Seen.SACK or after(seg.sack_right, side.sack_right))
        ):
            side.seen |= Seen.SACK
            side.sack_right = seg.sack_right

    def count_ack(self, seg: Segment) -> None:
        """What it acknowledges, seen or unseen."""
        side, other = self.sides[seg.sender], self.sides[1 - seg.sender]
        if not side.seen & Seen.ACK:
            side.seen |= Seen.ACK
            side.highest_ack = seg.ack
        elif after(seg.ack, side.highest_ack):
            side.highest_ack = seg.ack
        self.count_sack(seg)
        ahead = (seg.ack - other.next_seq) & U32
        # While there are only SYNs, an odd acknowledgment belongs to an older connection.
        if 0 < ahead < MAX_UNSEEN_BYTES and other.seen & Seen.BEYOND_SYN:
            other.unseen_bytes = (other.unseen_bytes + ahead) & U32
            other.next_seq = seg.ack
        if (
            not self.seen & SeenTime.ACK
            and self.seen & SeenTime.SYN_ACK
            and not seg.flags & SYN
            and seg.sender == self.client
        ):
            self.seen |= SeenTime.ACK
            self.ack_ns = seg.time_ns

    def count_window(self, seg: Segment) -> None:
        """The window that it opens, and what only segments after a SYN say."""
        side = self.sides[seg.sender]
        side.seen |= Seen.WINDOW
        side.window_bytes = seg.window
        if seg.flags & SYN:
            return
        if self.has_window_scale:
            side.window_bytes <<= side.window_scale
        side.zero_windows += seg.window == 0
        side.seen |= Seen.BEYOND_SYN
        self.beyond_syn = True
        if seg.options & Option.TIMESTAMP:
            side.seen |= Seen.TIMESTAMPS

    def count_ip(self, seg: Segment) -> None:
        """TTL and IP ID, for a RST to be compared with."""
        side = self.sides[seg.sender]
        if not side.seen & Seen.ANY:
            side.ttl_first = side.ttl_min = side.ttl_max = seg.ttl
            side.ip_id_first = side.ip_id_last = seg.ip_id
        side.seen |= Seen.ANY
        side.ttl_last = seg.ttl
        side.ttl_min, side.ttl_max = min(side.ttl_min, seg.ttl), max(side.ttl_max, seg.ttl)
        if seg.v4:
            side.seen |= Seen.IP_ID
            side.ip_id_zero += seg.ip_id == 0
            side.ip_id_steps += 1 <= (seg.ip_id - side.ip_id_last) & 0xFFFF <= 100
            side.ip_id_last = seg.ip_id
            side.dont_fragment += seg.dont_fragment

    def count_other(self, seg: Segment) -> None:
        """Everything about a segment that is no RST."""
        side = self.sides[seg.sender]
        if seg.flags & SYN:
            self.count_syn(seg)
        self.count_sequence(seg)
        if seg.flags & ACK:
            self.count_ack(seg)
        self.count_window(seg)
        self.count_ip(seg)
        if seg.flags & FIN:
            side.fins += 1
            side.seen |= Seen.FIN
            side.fin_seq = (seg.seq + seg.payload_bytes) & U32
            self.fins |= 1 << seg.sender
        self.others += 1
        if self.closed == 1 + seg.sender:
            self.closed = 0

    def count_copy(self, seg: Segment) -> None:
        """Whether it is its end's last segment once more."""
        side = self.sides[seg.sender]
        now = (seg.seq, seg.ack, seg.payload_bytes, seg.flags, seg.ip_id)
        if (
            side.packets
            and side.last == now
            and (seg.ip_id or length_of(seg))
            and 0 <= seg.time_ns - side.last_ns <= DUPLICATE_NS
        ):
            side.duplicates += 1
        side.last = now

    def count_packet(self, seg: Segment) -> None:
        """What every segment adds."""
        side = self.sides[seg.sender]
        if side.packets == 0:
            side.first_ns = seg.time_ns
        side.packets += 1
        side.last_ns = seg.time_ns
        side.ip_bytes += seg.ip_bytes
        if seg.payload_bytes and not seg.flags & RST:
            side.data_packets += 1
            side.payload_bytes += seg.payload_bytes
            side.seen |= Seen.DATA
            side.last_data_ns = seg.time_ns


def length_of(seg: Segment) -> int:
    """How much sequence space it takes."""
    return (seg.payload_bytes + (seg.flags & SYN > 0) + (seg.flags & FIN > 0)) & U32

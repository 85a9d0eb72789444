"""The flow table: finds the flow of a segment, ends flows whose time is up, bounds what is remembered."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from holdfast.watch.capture.flow import RING_PACKETS, RST, SYN, ClientBy, EndedBy
from holdfast.watch.capture.portable import give, zeek
from holdfast.watch.capture.portable.evidence import Evidence
from holdfast.watch.capture.portable.flow import Flow
from holdfast.watch.capture.portable.segment import Counts, Key, Segment

LINGER_NS = 10 * 10**9
OPENING_NS = 130 * 10**9
CHUNK_PACKETS = 4
_CHUNK_BYTES = 256
_EVICT_SAMPLE = 16
_SEGMENT_ENDS = 4
_FINISH_FLOWS = 1024
_NOT, _CLOSED, _TOLD, _OPENING, _EVIDENCE = range(5)
_LIMIT_NS = {_CLOSED: LINGER_NS, _TOLD: LINGER_NS, _OPENING: OPENING_NS}
_HOW_OVER = {_CLOSED: EndedBy.CLOSED, _TOLD: EndedBy.CLOSED, _OPENING: EndedBy.IDLE}


class Table:
    """All flows that are open."""

    def __init__(
        self, counts: Counts, max_flows: int, ring_bytes: int, evidence_bytes: int, want_rows: bool
    ) -> None:
        self._counts = counts
        self._max_flows = max_flows
        self._max_chunks = ring_bytes // _CHUNK_BYTES
        self._chunks_held = 0
        self._max_evidence_bytes, self._evidence_bytes = evidence_bytes, 0
        self._want_rows = want_rows
        self._flows: dict[Key, Flow] = {}
        self._waiting: dict[int, OrderedDict[Key, Flow]] = {
            which: OrderedDict() for which in (_CLOSED, _TOLD, _OPENING, _EVIDENCE)
        }
        self._records: list[bytes] = []
        self._rows: list[bytes] = []

    def take(self, seg: Segment) -> None:
        """Count one segment into its flow."""
        self._expire(seg.time_ns)
        flow = self._flows.get(seg.key)
        if flow is not None and self._is_over(flow, seg.time_ns):
            self._end(flow, _HOW_OVER[flow.waiting])
            flow = None
        if seg.icmp_kind:
            if flow is not None:
                self._count_icmp(flow, seg)
            return
        if flow is not None and flow.is_reused(seg):
            self._end(flow, EndedBy.REUSED)
            flow = None
        if flow is None:
            flow = self._begin(seg)
        self._count(flow, seg)

    def finish(self) -> bool:
        """Give flows that are open, some at a time; whether there are more."""
        for flow in list(islice(self._flows.values(), _FINISH_FLOWS)):
            self._end(flow, EndedBy.CAPTURE)
        return bool(self._flows)

    def take_records(self) -> bytes:
        """Records of flows that ended, since the last call."""
        whole, self._records = b"".join(self._records), []
        return whole

    def take_rows(self) -> bytes:
        """Rows of flows that ended, since the last call."""
        whole, self._rows = b"".join(self._rows), []
        return whole

    # ---- one flow

    def _begin(self, seg: Segment) -> Flow:
        if len(self._flows) == self._max_flows:
            oldest = min(islice(self._flows.values(), _EVICT_SAMPLE), key=lambda flow: flow.last_ns)
            self._counts.evicted += 1
            self._end(oldest, EndedBy.EVICTED)
        flow = Flow(
            seg.key,
            seg.tunnel,
            seg.vlan,
            seg.origin[0],
            seg.number,
            first_ns=seg.time_ns,
            last_ns=seg.time_ns,
        )
        flow.guess_client(seg)
        zeek.begin(flow, seg)
        self._flows[seg.key] = flow
        self._counts.connections += 1
        return flow

    def _count(self, flow: Flow, seg: Segment) -> None:
        place = flow.places
        flow.places += 1
        self._remember(flow, seg, place)
        rst = bool(seg.flags & RST)
        if rst:
            evidence = flow.evidence = flow.evidence or Evidence()
            evidence.add_rst(seg, place, (flow.sides[0].moment(), flow.sides[1].moment()), flow.others)
        if seg.flags & SYN and not rst and flow.client_by > ClientBy.SYN_ACK:
            flow.guess_client(seg)
        zeek.count(flow, seg)
        if seg.time_ns < flow.last_ns:
            flow.backwards += 1
        else:
            flow.last_ns = seg.time_ns
        flow.count_copy(seg)
        flow.count_packet(seg)
        if rst:
            flow.count_rst(seg)
        else:
            flow.count_other(seg)
            if flow.fins == 3 and not flow.closed:
                flow.closed = 3
                if flow.evidence is None:
                    self._shrink_ring(flow)
        if flow.evidence is not None and flow.evidence.follows(rst):
            flow.evidence.keep(place, flow.ring)
            if rst:
                self._drop_ring(flow)
            self._charge(flow, flow.evidence.size_bytes)
        self._wait_on(flow)

    def _count_icmp(self, flow: Flow, seg: Segment) -> None:
        evidence = flow.evidence = flow.evidence or Evidence()
        if evidence.add_icmp(seg):
            evidence.keep(flow.places - 1, flow.ring)
        self._charge(flow, evidence.size_bytes)
        self._wait_on(flow)

    def _end(self, flow: Flow, ended_by: EndedBy) -> None:
        self._counts.reset_connections += any(side.rsts for side in flow.sides)
        if self._want_rows or flow.evidence is not None:
            row = give.row(flow, ended_by)
            if self._want_rows:
                self._rows.append(row)
            if flow.evidence is not None:
                self._records.append(give.record(flow, row))
        if flow.waiting:
            del self._waiting[flow.waiting][flow.key]
        self._charge(flow, 0)
        self._drop_ring(flow)
        del self._flows[flow.key]

    def _charge(self, flow: Flow, size: int) -> None:
        """Note how much room its evidence takes now."""
        self._evidence_bytes += size - flow.charged_bytes
        flow.charged_bytes = size

    # ---- rings

    def _remember(self, flow: Flow, seg: Segment, place: int) -> None:
        """Keep it as the flow's last packet; its place says where in a chunk it lies."""
        if not flow.chunks or (place % CHUNK_PACKETS == 0 and not flow.ring_goes_round):
            room = self._chunks_held < self._max_chunks
            if not flow.chunks or (room and flow.chunks < RING_PACKETS // CHUNK_PACKETS):
                flow.chunks += 1
                self._chunks_held += 1
            else:
                self._go_round(flow)
        if flow.ring_goes_round and len(flow.ring) == flow.chunks * CHUNK_PACKETS:
            flow.ring.popleft()
        flow.ring.append(seg)

    def _go_round(self, flow: Flow) -> None:
        flow.ring_goes_round = True
        if flow.chunks < RING_PACKETS // CHUNK_PACKETS and not flow.ring_is_short:
            flow.ring_is_short = True
            self._counts.without_packets += 1

    def _shrink_ring(self, flow: Flow) -> None:
        while len(flow.ring) > (flow.places - 1) % CHUNK_PACKETS + 1:
            flow.ring.popleft()
        self._chunks_held -= flow.chunks - 1
        flow.chunks, flow.ring_goes_round = 1, False

    def _drop_ring(self, flow: Flow) -> None:
        self._chunks_held -= flow.chunks
        flow.ring.clear()
        flow.chunks, flow.ring_goes_round = 0, False

    # ---- whose time is up

    def _wait_on(self, flow: Flow) -> None:
        if flow.closed:
            self._wait(flow, _CLOSED if flow.evidence is None else _TOLD)
        elif flow.evidence is not None:
            self._wait(flow, _EVIDENCE)
        elif not flow.beyond_syn:
            self._wait(flow, _OPENING)
        else:
            self._wait(flow, _NOT)

    def _wait(self, flow: Flow, which: int) -> None:
        if flow.waiting:
            del self._waiting[flow.waiting][flow.key]
        flow.waiting = which
        if which:
            self._waiting[which][flow.key] = flow

    def _is_over(self, flow: Flow, now_ns: int) -> bool:
        limit_ns = _LIMIT_NS.get(flow.waiting)
        return limit_ns is not None and limit_ns < now_ns - flow.last_ns < 1 << 63

    def _expire(self, now_ns: int) -> None:
        """Give flows whose time is up, a few of them, and those for which there is no room."""
        ends = 0
        for which, how_over in _HOW_OVER.items():
            waiting = self._waiting[which]
            while waiting and ends < _SEGMENT_ENDS:
                flow = next(iter(waiting.values()))
                if not self._is_over(flow, now_ns):
                    break
                self._end(flow, how_over)
                ends += 1
        while self._evidence_bytes > self._max_evidence_bytes:
            waiting = self._waiting[_TOLD] or self._waiting[_EVIDENCE]
            if not waiting:
                break
            self._relieve(next(iter(waiting.values())), now_ns)

    def _relieve(self, flow: Flow, now_ns: int) -> None:
        if self._is_over(flow, now_ns):
            self._end(flow, _HOW_OVER[flow.waiting])
        elif flow.waiting == _TOLD:
            self._counts.hurried += 1
            self._end(flow, EndedBy.HURRIED)
        else:
            self._counts.evicted += 1
            self._end(flow, EndedBy.EVICTED)

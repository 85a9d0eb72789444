"""One RST of a capture with what lies around it, as the rules ask for it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.watch.capture.flow import ACK, RST, SYN, Flow, Moment, Packet, Rst
from holdfast.watch.capture.flow import Side as Sent
from holdfast.watch.diagnose.explained import Side
from holdfast.watch.diagnose.serial import ahead

COPY_NS = 1_000_000
"""A segment seen twice within this time is one segment: a span port or an ``any`` interface shows it so."""

UNKNOWN_RTT_NS = 200_000_000
"""Taken for a round trip that the capture does not show: the smallest retransmission timeout of Linux."""


@dataclass(frozen=True, slots=True)
class Case:
    """A RST and its surroundings.

    Attributes:
        flow, rst: as the capture gives them.
        ttls: of every copy of the RST.
        before, after: segments around it in the order of the capture, copies left out.
        alike: every RST of the same direction, this one included, copies left out.
    """

    flow: Flow
    rst: Rst
    ttls: frozenset[int]
    before: tuple[Packet, ...]
    after: tuple[Packet, ...]
    alike: tuple[Rst, ...]

    @property
    def packet(self) -> Packet:
        """The segment itself."""
        return self.rst.packet

    @property
    def from_client(self) -> bool:
        """Whether it bears the client's address."""
        return self.rst.packet.from_client

    @property
    def claimed(self) -> Side:
        """The end whose address it bears."""
        return "client" if self.from_client else "server"

    @property
    def sender(self) -> Moment:
        """What the end whose address it bears had sent before."""
        return self.rst.sender

    @property
    def receiver(self) -> Moment:
        """What the end that it goes to had sent before."""
        return self.rst.receiver

    @property
    def sent(self) -> Sent:
        """All that the claimed sender sent."""
        return self.flow.sent_by(self.from_client)

    @property
    def received(self) -> Sent:
        """All that the receiver sent."""
        return self.flow.sent_by(not self.from_client)

    @property
    def trigger(self) -> Packet | None:
        """The receiver's last segment before it, which a passive reset would answer."""
        return next((one for one in reversed(self.before) if self.is_receivers(one)), None)

    @property
    def in_handshake(self) -> bool:
        """Whether the receiver had sent its SYN, and nothing that acknowledges anything."""
        return (
            self.receiver.last_ack is None
            and self.receiver.next_seq is not None
            and self.received.isn is not None
            and not self.received.syn_flags & ACK
        )

    @property
    def answers(self) -> bool:
        """Whether its numbers are those that a stack must give to an answer (RFC 9293 3.5.2)."""
        trigger, rst = self.trigger, self.packet
        if trigger is None:
            return False
        if trigger.flags & ACK:
            return not rst.flags & ACK and rst.seq == trigger.ack
        return bool(rst.flags & ACK) and rst.seq == 0 and rst.ack == trigger.after

    @property
    def lossy(self) -> bool:
        """Whether the capture missed segments of this connection: what it lacks proves nothing then."""
        # One or two segments of a side are a handshake, and what acknowledges more than they hold is stale.
        sides = (self.flow.sent_by_client, self.flow.sent_by_server)
        missed = any(one.unseen_bytes and one.packets - one.rsts > 2 for one in sides)
        return missed or self.flow.packets_left_out > 0

    @property
    def sender_rtt_ns(self) -> int | None:
        """From this vantage to the claimed sender and back, as the handshake shows it."""
        flow = self.flow
        if flow.syn_ack_ns is None:
            return None
        if self.from_client:
            return None if flow.ack_ns is None else max(0, flow.ack_ns - flow.syn_ack_ns)
        return None if flow.syn_ns is None else max(0, flow.syn_ack_ns - flow.syn_ns)

    def is_senders(self, packet: Packet) -> bool:
        """A segment other than a RST that bears the claimed sender's address."""
        return packet.from_client == self.from_client and not packet.flags & RST

    def is_receivers(self, packet: Packet) -> bool:
        """A segment other than a RST that bears the receiver's address."""
        return packet.from_client != self.from_client and not packet.flags & RST


def round_trip_ns(flow: Flow) -> int | None:
    """From end to end and back, as the handshake shows it at any vantage."""
    if flow.syn_ns is None or flow.ack_ns is None or flow.ack_ns <= flow.syn_ns:
        return None
    return flow.ack_ns - flow.syn_ns


def patience_ns(flow: Flow) -> int:
    """After this time, whatever was on its way when a RST came has arrived."""
    return (round_trip_ns(flow) or UNKNOWN_RTT_NS) * 3 // 2 + 2_000_000


def cases(flow: Flow) -> list[Case]:
    """Every RST of a connection that is described in detail, copies left out."""
    packets = without_copies(flow.packets)
    kept: list[tuple[Rst, set[int]]] = []
    for rst in flow.rsts:
        original = next((ttls for earlier, ttls in kept if is_copy(rst.packet, earlier.packet)), None)
        if original is None:
            kept.append((rst, {rst.packet.ttl}))
        else:
            original.add(rst.packet.ttl)
    return [
        Case(
            flow,
            rst,
            frozenset(ttls),
            tuple(one for one in packets if one.place < rst.packet.place),
            tuple(one for one in packets if one.place > rst.packet.place),
            tuple(one for one, _ in kept if one.packet.from_client == rst.packet.from_client),
        )
        for rst, ttls in kept
    ]


def is_copy(later: Packet, earlier: Packet) -> bool:
    """Whether both are one segment, seen twice on its way."""
    return (
        later.from_client == earlier.from_client
        and later.flags == earlier.flags
        and later.seq == earlier.seq
        and later.ack == earlier.ack
        and later.ip_id == earlier.ip_id
        and later.payload_bytes == earlier.payload_bytes
        and later.window == earlier.window
        and abs(later.time_ns - earlier.time_ns) <= COPY_NS
    )


def without_copies(packets: Sequence[Packet]) -> list[Packet]:
    """The same segments, each once."""
    kept: list[Packet] = []
    for packet in packets:
        if not any(is_copy(packet, earlier) for earlier in kept[-4:]):
            kept.append(packet)
    return kept


def acks_of(packets: Iterable[Packet]) -> set[int]:
    """The acknowledgment numbers that they carry."""
    return {one.ack for one in packets if one.flags & ACK}


def is_new_handshake(packet: Packet) -> bool:
    """Whether another connection begins here."""
    return packet.flags & (SYN | ACK) == SYN


def unacked_bytes(sender: Moment, receiver: Moment) -> int | None:
    """Payload that ``sender`` had sent and ``receiver`` had not acknowledged; None if that cannot be told."""
    if sender.next_seq is None:
        return 0
    if receiver.last_ack is None:
        return sender.payload_bytes
    return max(0, min(sender.payload_bytes, ahead(sender.next_seq, receiver.last_ack) - sender.fin))

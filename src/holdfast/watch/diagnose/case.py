"""One RST of a capture with what lies around it, as the rules ask for it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import filterfalse
from operator import attrgetter

from holdfast.watch.capture.flow import ACK, RST, SYN, Flow, Moment, Packet, Rst
from holdfast.watch.capture.flow import Side as Sent
from holdfast.watch.diagnose.explained import Side
from holdfast.watch.diagnose.serial import ahead

COPY_NS = 1_000_000
"""A segment seen twice within this time is one segment: a span port or an ``any`` interface shows it so."""

_place, _from_client = attrgetter("place"), attrgetter("from_client")
_numbers = attrgetter("seq", "ack", "flags")

UNKNOWN_RTT_NS = 200_000_000
"""Taken for a round trip that the capture does not show: the smallest retransmission timeout of Linux."""


class Case:
    """A RST and its surroundings.

    Attributes:
        flow, rst: as the capture gives them. packet: the segment itself.
        ttls: of the RST and each of its copies.
        before, after: segments around it in the order of the capture, copies left out.
        said, heard: of those before it, the claimed sender's and the receiver's, RSTs aside; said_later,
            heard_later: of those after it.
        alike: every RST of the same direction, this one included, copies left out.
        from_client: whether it bears the client's address. claimed: the same in words.
        sender, receiver: what the end whose address it bears, and the other one, had sent before.
        sender_unacked, receiver_unacked: payload that each of them had sent and the other had not
            acknowledged; None if that cannot be told.
        sent, received: all that they sent in the whole capture.
        trigger: the receiver's last segment before it, which a passive reset would answer.
        in_handshake: the receiver had sent its SYN, and nothing that acknowledges anything.
        lossy: the capture missed segments of this connection: what it lacks proves nothing then.
        patience_ns: after this time, whatever was on its way when a RST came has arrived.
    """

    __slots__ = (
        *("flow", "rst", "packet", "ttls", "before", "after", "alike", "from_client", "claimed", "sender"),
        *("receiver", "sent", "received", "trigger", "in_handshake", "lossy", "patience_ns"),
        *("said", "heard", "said_later", "heard_later", "sender_unacked", "receiver_unacked"),
    )

    def __init__(
        self, flow: Flow, rst: Rst, ttls: Sequence[int], packets: Sequence[Packet], alike: Sequence[Rst]
    ) -> None:
        self.flow, self.rst, self.packet = flow, rst, rst.packet
        self.ttls, self.alike = ttls, alike
        self.patience_ns = (round_trip_ns(flow) or UNKNOWN_RTT_NS) * 3 // 2 + 2_000_000
        place, client = rst.packet.place, rst.packet.from_client
        at = bisect_left(packets, place, key=_place)
        self.before, self.after = (
            packets[:at],
            packets[at + (at < len(packets) and packets[at].place == place) :],
        )
        self.from_client = client
        self.claimed: Side = "client" if client else "server"
        self.sender, self.receiver = rst.sender, rst.receiver
        self.sender_unacked = unacked_bytes(rst.sender, rst.receiver)
        self.receiver_unacked = unacked_bytes(rst.receiver, rst.sender)
        self.sent, self.received = flow.sent_by(client), flow.sent_by(not client)
        earlier = rst.sender.rsts or rst.receiver.rsts
        self.said, self.heard = _apart(_plain(self.before) if earlier else self.before, client)
        self.said_later, self.heard_later = _apart(_plain(self.after), client)
        self.trigger = self.heard[-1] if self.heard else None
        received = self.received
        self.in_handshake = (
            rst.receiver.last_ack is None
            and rst.receiver.next_seq is not None
            and received.isn is not None
            and not received.syn_flags & ACK
        )
        # One or two segments of a side are a handshake, and what acknowledges more than they hold is stale.
        self.lossy = flow.packets_left_out > 0 or _misses_some(self.sent) or _misses_some(received)

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
    def seen_once(self) -> bool:
        """Whether it has no copy, though the capture has one of every segment, as ``-i any`` on a router.

        Then it began, or ended, between the two places. The segment that it answers may have no copy either.
        """
        copies = self.sent.duplicates + self.received.duplicates
        if not copies or len(self.ttls) > 1:
            return False
        plain = self.sent.packets - self.sent.rsts + self.received.packets - self.received.rsts
        return copies * 2 + 1 >= plain >= 5

    @property
    def sender_rtt_ns(self) -> int | None:
        """From this vantage to the claimed sender and back, as the handshake shows it."""
        flow = self.flow
        if flow.syn_ack_ns is None:
            return None
        if self.from_client:
            return None if flow.ack_ns is None else max(0, flow.ack_ns - flow.syn_ack_ns)
        return None if flow.syn_ns is None else max(0, flow.syn_ack_ns - flow.syn_ns)


def _misses_some(side: Sent) -> bool:
    return side.unseen_bytes > 0 and side.packets - side.rsts > 2


def _apart(packets: Sequence[Packet], client: bool) -> tuple[list[Packet], list[Packet]]:
    """What the client, or the server, sent, and what the other end sent."""
    of_client = list(filter(_from_client, packets))
    of_server = list(filterfalse(_from_client, packets))
    return (of_client, of_server) if client else (of_server, of_client)


def _plain(packets: Sequence[Packet]) -> list[Packet]:
    """The same, RSTs aside."""
    return [one for one in packets if not one.flags & RST]


def round_trip_ns(flow: Flow) -> int | None:
    """From end to end and back, as the handshake shows it at any vantage."""
    if flow.syn_ns is None or flow.ack_ns is None or flow.ack_ns <= flow.syn_ns:
        return None
    return flow.ack_ns - flow.syn_ns


def cases(flow: Flow) -> list[Case]:
    """Every RST of a connection that is described in detail, copies left out."""
    packets = without_copies(flow.packets)
    kept: list[tuple[Rst, list[int]]] = []
    for rst in flow.rsts:
        original = next((ttls for earlier, ttls in kept if is_copy(rst.packet, earlier.packet)), None)
        if original is None:
            kept.append((rst, [rst.packet.ttl]))
        else:
            original.append(rst.packet.ttl)
    by_side: dict[bool, list[Rst]] = {True: [], False: []}
    for rst, _ in kept:
        by_side[rst.packet.from_client].append(rst)
    return [Case(flow, rst, ttls, packets, by_side[rst.packet.from_client]) for rst, ttls in kept]


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
    if len(set(map(_numbers, packets))) == len(packets):
        return list(packets)  # no two are alike
    kept: list[Packet] = []
    latest: dict[tuple[int, int, int], Packet] = {}
    for packet in packets:
        key = (packet.seq, packet.ack, packet.flags)
        earlier = latest.get(key)
        if earlier is None or not is_copy(packet, earlier):
            if packet.flags & RST:
                # A challenge ACK repeats the ACK before it, and on IPv6 no IP ID tells them apart.
                latest.clear()
            latest[key] = packet
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

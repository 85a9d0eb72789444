"""What a capture says of its connections: frozen facts, before any conclusion.

Everything is as the wire showed it at this vantage. ``client`` opened the connection (see
:class:`ClientBy`), ``server`` answered. Sequence numbers are the wire's own 32-bit numbers, so compare
them in serial arithmetic. Times are nanoseconds since 1970-01-01 UTC (``*_ns``), as the capture gives
them: not always in order. None is "not seen", never a guess.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

from holdfast.events import Endpoint

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))
"""Bits of :attr:`Packet.flags`; AE is what was NS (accurate ECN)."""

RING_PACKETS = 32
"""How many packets of a live flow are remembered, at most; those before its RST become its evidence."""

AFTER_RST_PACKETS = 16
"""How many packets after each RST are kept."""

MAX_PACKETS = 128
"""How many packets one flow keeps as evidence, at most."""

MAX_RSTS = 8
"""How many RSTs of one flow are described in detail; the rest is in ``Side.rsts``."""

MAX_ICMP_ERRORS = 4
"""How many ICMP errors of one flow are kept."""

RST_PAYLOAD_BYTES = 64
"""How much of a RST's payload is kept, at most."""


class ClientBy(IntEnum):
    """How it was decided which end is the client."""

    SYN = 1  # it sent the SYN
    SYN_ACK = 2  # the other end sent a SYN with ACK
    PORT = 3  # the other port is below 1024 (or the lower one), and no handshake was captured
    FIRST = 4  # it sent the first packet seen


class EndedBy(IntEnum):
    """Why tracking of the flow stopped; it says nothing about how the connection ended."""

    CAPTURE = 0  # the capture ended (or was stopped)
    CLOSED = 1  # it was silent for 10 s after a RST or after FINs both ways
    REUSED = 2  # a new SYN began another connection between the same addresses and ports
    IDLE = 3  # silent for 130 s while only SYNs were seen
    EVICTED = 4  # there was no room for more open flows: what came later is not in this record
    HURRIED = 5  # it was closed, and there was no room to wait 10 s for packets that come late


class Tunnel(IntEnum):
    """The innermost wrapping that the flow was found in."""

    NONE = 0
    IPIP = 1  # IP in IP, 6in4
    GRE = 2
    VXLAN = 3
    GENEVE = 4


class Option(IntFlag):
    """TCP options that a segment carried."""

    MSS = 1
    WINDOW_SCALE = 2
    SACK_PERMITTED = 4
    SACK = 8
    TIMESTAMP = 16
    MPTCP = 32
    MPTCP_RST = 64  # MP_TCPRST, RFC 8684 3.6
    MPTCP_FASTCLOSE = 128
    FAST_OPEN = 256
    MD5 = 512
    AO = 1024
    OTHER = 2048
    MALFORMED = 4096  # a length that does not fit
    CUT = 8192  # the capture cut the options off


class Content(IntEnum):
    """What the first payload bytes of a segment look like."""

    NONE = 0  # no payload
    OTHER = 1
    TLS_CLIENT_HELLO = 2
    TLS_ALERT = 3
    TLS_OTHER = 4
    HTTP_REQUEST = 5
    HTTP_RESPONSE = 6
    CUT = 7  # there was payload, but the capture did not keep it


class Packet(NamedTuple):
    """One segment of a flow. A named tuple, since a capture holds very many.

    Attributes:
        time_ns: when, as the capture says. number: its place in its capture, from 1.
        offset: of its record in the (decompressed) file, in bytes, None if it came from a live interface.
        source: index of its file in ``paths``. interface: index in the file (pcapng), else 0.
        place: its position in the flow, from 0; a jump says that packets between were not kept.
        from_client: its direction.
        flags: see FIN ... AE above. window: as on the wire, not scaled.
        payload_bytes: from the IP header, or from the length on the wire where that is 0.
        ttl: or hop limit. ip_id: None on IPv6. dont_fragment: False on IPv6.
        options: present. options_bytes: their length. ts_val, ts_ecr: None without timestamps.
        sack_right: highest right edge of its SACK blocks, None without any.
        payload_content: what its payload looks like.
    """

    time_ns: int
    number: int
    offset: int | None
    source: int
    interface: int
    place: int
    from_client: bool
    flags: int
    seq: int
    ack: int
    window: int
    payload_bytes: int
    ttl: int
    ip_id: int | None
    dont_fragment: bool
    options: int
    options_bytes: int
    ts_val: int | None
    ts_ecr: int | None
    sack_right: int | None
    payload_content: int

    @property
    def length(self) -> int:
        """How much sequence space it takes: payload, SYN and FIN."""
        return self.payload_bytes + (self.flags & SYN > 0) + (self.flags & FIN > 0)

    @property
    def after(self) -> int:
        """The sequence number that follows it."""
        return (self.seq + self.length) & 0xFFFFFFFF


class Moment(NamedTuple):
    """What was known of one direction just before a RST.

    Attributes:
        next_seq: after the highest segment that was not a RST; None if it had sent nothing else.
        last_ack: the highest acknowledgment it had sent, None without one.
        window_bytes: the last window it had advertised, scaled; None without one.
        sack_right: the highest right edge that it had SACKed since its last_ack advanced, None without.
        packets, data_packets, payload_bytes: what it had sent.
        fin: it had sent a FIN. rsts: how many RSTs it had sent.
        last_ns, last_data_ns: its last segment, and its last with payload; None without.
        ttl, ip_id: of its last segment that was not a RST; None without (ip_id: also on IPv6).
    """

    next_seq: int | None
    last_ack: int | None
    window_bytes: int | None
    sack_right: int | None
    packets: int
    data_packets: int
    payload_bytes: int
    fin: bool
    rsts: int
    last_ns: int | None
    last_data_ns: int | None
    ttl: int | None
    ip_id: int | None


class Rst(NamedTuple):
    """One RST, with what was known when it came.

    Attributes:
        packet: the segment itself (also one of ``Flow.packets``, unless MAX_PACKETS cut it).
        sender, receiver: the two directions just before it (``sender``: whose address it carries).
        payload: its first RST_PAYLOAD_BYTES bytes: some stacks say the reason there; hostile text.
        mptcp_reason: the code in its MP_TCPRST option, None without one.
        after_packets: how many segments of either direction followed it in the flow, RSTs aside.
    """

    packet: Packet
    sender: Moment
    receiver: Moment
    payload: bytes
    mptcp_reason: int | None
    after_packets: int


class IcmpError(NamedTuple):
    """An ICMP or ICMPv6 error that quotes a segment of this flow.

    Attributes:
        kind, code: the numbers of its type and code. v6: whether they are ICMPv6's.
        reporter: the address that sent it. mtu: next-hop MTU it names, 0 without.
        about_client: it quotes a segment that the client sent. quoted_seq: the sequence number of that.
    """

    time_ns: int
    number: int
    offset: int | None
    source: int
    kind: int
    code: int
    v6: bool
    reporter: str
    mtu: int
    about_client: bool
    quoted_seq: int


class Side(NamedTuple):
    """Everything about what one end sent.

    Attributes:
        packets, payload_bytes, ip_bytes: all it sent (RST payload aside in payload_bytes).
        data_packets: with payload. syns, fins, rsts: with this bit; a SYN with ACK counts as a SYN.
        isn: initial sequence number, None if its SYN was not captured.
        syn_flags, syn_options, syn_window, syn_payload_bytes: of its first SYN; 0 without one.
        mss, window_scale: from its SYN; None if it had none.
        timestamps: it used the option on a segment that was no SYN.
        next_seq: after its highest segment that was not a RST; None if there was none.
        first_seq: of its first segment that was not a RST.
        highest_ack: None without one. window_bytes: last advertised, scaled by the agreed scale.
        fin_seq: the sequence number of its FIN, None without one.
        retransmits: data segments below next_seq that brought nothing new. duplicates: among them (or
            without data) exact copies (same IP ID, seq, ack, flags) of its previous packet within 1 ms,
            as a span port makes.
        ahead: segments that began beyond next_seq: loss before this vantage, reordering, or capture loss.
        unseen_bytes: acknowledged by the other end although the capture never showed them: capture loss.
        keep_alives: probes: at most 1 byte, at next_seq - 1. zero_windows: segments that closed the window.
        ttl_first, ttl_last, ttl_min, ttl_max: of its segments that were no RSTs; None without any.
        ip_id_first, ip_id_last: likewise; None on IPv6. ip_id_zero: how many had 0.
        ip_id_steps: how many followed the previous one by 1 to 100: a counter.
        dont_fragment: how many had DF.
        first_ns, last_ns, last_data_ns: None without such a segment.
    """

    packets: int
    payload_bytes: int
    ip_bytes: int
    data_packets: int
    syns: int
    fins: int
    rsts: int
    isn: int | None
    syn_flags: int
    syn_options: int
    syn_window: int
    syn_payload_bytes: int
    mss: int | None
    window_scale: int | None
    timestamps: bool
    first_seq: int | None
    next_seq: int | None
    highest_ack: int | None
    window_bytes: int | None
    fin_seq: int | None
    retransmits: int
    duplicates: int
    ahead: int
    unseen_bytes: int
    keep_alives: int
    zero_windows: int
    ttl_first: int | None
    ttl_last: int | None
    ttl_min: int | None
    ttl_max: int | None
    ip_id_first: int | None
    ip_id_last: int | None
    ip_id_zero: int
    ip_id_steps: int
    dont_fragment: int
    first_ns: int | None
    last_ns: int | None
    last_data_ns: int | None


class Flow(NamedTuple):
    """One connection that had a RST (or an ICMP error), as far as the capture shows it.

    Attributes:
        client, server: the ends. client_by: how they were told apart.
        tunnel, tunnel_id: what it was wrapped in, and the VNI or GRE key (0 without).
        vlan: the innermost VLAN id of its first packet, 0 without.
        sent_by_client, sent_by_server: each direction.
        first_ns, last_ns: of the flow. first_number: its first packet's number. source: of its first packet.
        syn_ns, syn_ack_ns, ack_ns: first SYN, first SYN with ACK, the client's first ACK after it; None
            without. syn_ack_ns - syn_ns is the RTT at the client's vantage, ack_ns - syn_ack_ns at the
            server's.
        backwards: how often time ran backwards between two of its packets.
        simultaneous: both ends sent a SYN without ACK.
        ended_by: why tracking stopped.
        zeek_state: ``conn_state`` by Zeek's rules, for example ``RSTR``.
        zeek_history: ``history`` by Zeek's rules (checksums not verified, as with ``zeek -C``).
        packets: up to RING_PACKETS before the first RST, and after each RST AFTER_RST_PACKETS, in the
            order of the capture; MAX_PACKETS at most. packets_left_out: how many a RST storm displaced.
        rsts: the first MAX_RSTS RSTs.
        icmp_errors: the first MAX_ICMP_ERRORS.
    """

    client: Endpoint
    server: Endpoint
    client_by: ClientBy
    tunnel: Tunnel
    tunnel_id: int
    vlan: int
    sent_by_client: Side
    sent_by_server: Side
    first_ns: int
    last_ns: int
    first_number: int
    source: int
    syn_ns: int | None
    syn_ack_ns: int | None
    ack_ns: int | None
    backwards: int
    simultaneous: bool
    ended_by: EndedBy
    zeek_state: str
    zeek_history: str
    packets: tuple[Packet, ...]
    packets_left_out: int
    rsts: tuple[Rst, ...]
    icmp_errors: tuple[IcmpError, ...]

    def sent_by(self, client: bool) -> Side:
        """The direction of the client (True) or of the server."""
        return self.sent_by_client if client else self.sent_by_server

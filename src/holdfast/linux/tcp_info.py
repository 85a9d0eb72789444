"""``struct tcp_info``: what the kernel tells of one connection, decoded by the length it returned."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntFlag
from itertools import accumulate

# include/uapi/linux/tcp.h up to Linux 6.18. The struct only ever grows at its end.
_CODES = (
    8 * "B"
    + 24 * "I"
    + 4 * "Q"
    + 6 * "I"
    + 4 * "Q"
    + 2 * "I"
    + 2 * "Q"
    + 6 * "I"
    + 2 * "H"
    + 8 * "I"
    + 2 * "H"
)
_FIELDS = struct.Struct(f"={_CODES}")
SIZE_BYTES = _FIELDS.size

# What the kernel writes where it has nothing to tell: net/ipv4/tcp.c, include/net/tcp.h.
NEVER_MEASURED_MIN_RTT = 0xFFFFFFFF
INFINITE_SSTHRESH = 0x7FFFFFFF
UNLIMITED_RATE = 0xFFFFFFFFFFFFFFFF


class Options(IntFlag):
    """What the two ends agreed on (``TCPI_OPT_*``); a bit without a name here is kept as it is."""

    TIMESTAMPS = 1  # RFC 7323: round trips of every segment, and PAWS
    SACK = 2  # RFC 2018: selective acknowledgement
    WINDOW_SCALE = 4  # RFC 7323
    ECN = 8  # RFC 3168, agreed on in the handshake
    ECN_SEEN = 16  # at least one segment came with an ECN mark
    SYN_DATA = 32  # data in the SYN was acknowledged (Fast Open)
    MICROSECOND_TIMESTAMPS = 64  # since Linux 6.7
    FAST_OPEN_CHILD = 128  # accepted from a SYN with a Fast Open cookie; since Linux 6.15


CA_STATES = ("open", "disorder", "cwr", "recovery", "loss")
"""Names of ``TcpInfo.ca_state``: no trouble; duplicate ACKs; slowed by ECN; repairing; after a timeout."""


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One connection's figures; a field is None where this kernel is too old to have it.

    The fields hold what the kernel wrote. Where it writes a number for "nothing to tell", the field's
    entry names it and a property gives None instead.

    Attributes:
        state: kernel number; :mod:`holdfast.linux.states` names it.
        ca_state: congestion control state, see :data:`CA_STATES`.
        retransmits: retransmission timeouts in a row without an answer.
        probes: unanswered zero-window or keep-alive probes.
        backoff: how often the timeout was doubled.
        options: bits agreed on, see :class:`Options` and ``negotiated``.
        snd_wscale, rcv_wscale: shifts of the window field: the peer's windows, ours.
        app_limited: 1 if the delivery rate was limited by the application.
        fastopen_client_fail: why the client did not use Fast Open (0 unspecified).
        rto_us: retransmission timeout (RFC 6298), doublings included.
        ato_us: delayed-ACK estimate: how long an ACK may wait for data to travel with. It follows the
            times between arrivals and starts at 40 ms (0 before the first data: ``delayed_ack_us``).
        snd_mss_bytes, rcv_mss_bytes, advmss_bytes: payload of the segments sent; of those received, as
            the kernel estimates it; as we announced it.
        pmtu_bytes: largest datagram the path is known to take.
        unacked, sacked, lost, retrans, fackets: segments in these states now. For a listener
            ``unacked`` is the length of its accept queue and ``sacked`` its limit.
        last_data_sent_ms, last_data_recv_ms, last_ack_recv_ms: how long ago; since the handshake, if
            it never happened.
        last_ack_sent_ms: always 0, the kernel does not remember.
        rcv_ssthresh_bytes: what our window may grow to at this moment.
        rcv_space_bytes: what the application read in its last round trip: the receive buffer follows it.
        rtt_us, rttvar_us: SRTT and RTTVAR of Jacobson's estimator (RFC 6298): the smoothed round trip
            and its mean deviation. The timeout is SRTT plus four times the deviation, of which Linux
            takes the largest of a round trip and at least 200 ms (``tcp_rto_min``). ``rtt_us`` is 0
            until the first measurement and ``rttvar_us`` then means nothing: ``smoothed_rtt_us``,
            ``rtt_deviation_us``.
        min_rtt_us: smallest round trip of the last minutes (4294967295 before the first:
            ``smallest_rtt_us``).
        rcv_rtt_us: round trip as the receiver estimates it from arriving data (0 before the first:
            ``receiver_rtt_us``).
        snd_ssthresh: slow start ends here, in segments (2147483647 before the first loss:
            ``slow_start_threshold``).
        snd_cwnd: congestion window, in segments.
        reordering: how many segments may be overtaken before one is thought lost.
        total_retrans: segments retransmitted in all.
        pacing_rate_bytes_per_s, max_pacing_rate_bytes_per_s: how fast segments leave; its limit
            (18446744073709551615 for none: ``pacing_bytes_per_s``, ``pacing_limit_bytes_per_s``).
        delivery_rate_bytes_per_s: how fast the peer confirmed lately.
        bytes_acked, bytes_received: payload confirmed by the peer (the SYN counts as one byte);
            received in order (the peer's FIN counts as one).
        segs_out, segs_in, data_segs_in, data_segs_out: segments, of them with payload.
        notsent_bytes: written by the application and never sent.
        busy_us, rwnd_limited_us, sndbuf_limited_us: time with data to send; limited by the peer's
            window; by the send buffer.
        delivered, delivered_ce: segments delivered; with a congestion mark.
        bytes_sent, bytes_retrans: payload sent, including retransmissions; retransmitted.
        dsack_dups, reord_seen, rcv_ooopack: duplicates reported by the peer; times that it saw our
            segments out of order; segments that reached us out of order.
        snd_wnd_bytes, rcv_wnd_bytes: the peer's window; ours, as last announced, whatever arrived since.
        rehash: how often another path was tried.
        total_rto, total_rto_recoveries, total_rto_time_ms: timeouts; recoveries; time spent in them.
        received_ce, delivered_e1_bytes, delivered_e0_bytes, delivered_ce_bytes, received_e1_bytes,
            received_e0_bytes, received_ce_bytes, accecn_fail_mode, accecn_opt_seen: accurate ECN.
    """

    state: int | None = None
    ca_state: int | None = None
    retransmits: int | None = None
    probes: int | None = None
    backoff: int | None = None
    options: int | None = None
    snd_wscale: int | None = None
    rcv_wscale: int | None = None
    app_limited: int | None = None
    fastopen_client_fail: int | None = None
    rto_us: int | None = None
    ato_us: int | None = None
    snd_mss_bytes: int | None = None
    rcv_mss_bytes: int | None = None
    unacked: int | None = None
    sacked: int | None = None
    lost: int | None = None
    retrans: int | None = None
    fackets: int | None = None
    last_data_sent_ms: int | None = None
    last_ack_sent_ms: int | None = None
    last_data_recv_ms: int | None = None
    last_ack_recv_ms: int | None = None
    pmtu_bytes: int | None = None
    rcv_ssthresh_bytes: int | None = None
    rtt_us: int | None = None
    rttvar_us: int | None = None
    snd_ssthresh: int | None = None
    snd_cwnd: int | None = None
    advmss_bytes: int | None = None
    reordering: int | None = None
    rcv_rtt_us: int | None = None
    rcv_space_bytes: int | None = None
    total_retrans: int | None = None
    pacing_rate_bytes_per_s: int | None = None
    max_pacing_rate_bytes_per_s: int | None = None
    bytes_acked: int | None = None
    bytes_received: int | None = None
    segs_out: int | None = None
    segs_in: int | None = None
    notsent_bytes: int | None = None
    min_rtt_us: int | None = None
    data_segs_in: int | None = None
    data_segs_out: int | None = None
    delivery_rate_bytes_per_s: int | None = None
    busy_us: int | None = None
    rwnd_limited_us: int | None = None
    sndbuf_limited_us: int | None = None
    delivered: int | None = None
    delivered_ce: int | None = None
    bytes_sent: int | None = None
    bytes_retrans: int | None = None
    dsack_dups: int | None = None
    reord_seen: int | None = None
    rcv_ooopack: int | None = None
    snd_wnd_bytes: int | None = None
    rcv_wnd_bytes: int | None = None
    rehash: int | None = None
    total_rto: int | None = None
    total_rto_recoveries: int | None = None
    total_rto_time_ms: int | None = None
    received_ce: int | None = None
    delivered_e1_bytes: int | None = None
    delivered_e0_bytes: int | None = None
    delivered_ce_bytes: int | None = None
    received_e1_bytes: int | None = None
    received_e0_bytes: int | None = None
    received_ce_bytes: int | None = None
    accecn_fail_mode: int | None = None
    accecn_opt_seen: int | None = None

    @property
    def negotiated(self) -> Options | None:
        """The options agreed on, by name."""
        return None if self.options is None else Options(self.options)

    @property
    def smoothed_rtt_us(self) -> int | None:
        """SRTT; None if no round trip was measured."""
        return self.rtt_us or None

    @property
    def rtt_deviation_us(self) -> int | None:
        """RTTVAR; None if no round trip was measured: what the field holds then is a starting value."""
        return self.rttvar_us if self.rtt_us else None

    @property
    def smallest_rtt_us(self) -> int | None:
        """Smallest round trip; None if none was measured."""
        return _unless(self.min_rtt_us, NEVER_MEASURED_MIN_RTT)

    @property
    def receiver_rtt_us(self) -> int | None:
        """Round trip as the receiver estimates it; None if too little has arrived."""
        return self.rcv_rtt_us or None

    @property
    def delayed_ack_us(self) -> int | None:
        """Delayed-ACK estimate; None before the first data."""
        return self.ato_us or None

    @property
    def slow_start_threshold(self) -> int | None:
        """Where slow start ends, in segments; None before the first loss."""
        return _unless(self.snd_ssthresh, INFINITE_SSTHRESH)

    @property
    def pacing_bytes_per_s(self) -> int | None:
        """How fast segments leave; None if they are not held back."""
        return _unless(self.pacing_rate_bytes_per_s, UNLIMITED_RATE)

    @property
    def pacing_limit_bytes_per_s(self) -> int | None:
        """``SO_MAX_PACING_RATE``; None if there is no limit."""
        return _unless(self.max_pacing_rate_bytes_per_s, UNLIMITED_RATE)

    def known(self) -> dict[str, int | None]:
        """Every field by name, None where the kernel has nothing to tell or is too old for the field."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "last_ack_sent_ms": None,
            "ato_us": self.delayed_ack_us,
            "rtt_us": self.smoothed_rtt_us,
            "rttvar_us": self.rtt_deviation_us,
            "min_rtt_us": self.smallest_rtt_us,
            "rcv_rtt_us": self.receiver_rtt_us,
            "snd_ssthresh": self.slow_start_threshold,
            "pacing_rate_bytes_per_s": self.pacing_bytes_per_s,
            "max_pacing_rate_bytes_per_s": self.pacing_limit_bytes_per_s,
        }


def _unless(value: int | None, sentinel: int) -> int | None:
    return None if value == sentinel else value


# Where each unpacked value ends in the struct.
_ENDS = tuple(accumulate(struct.calcsize(f"={code}") for code in _CODES))


def decode(data: bytes) -> TcpInfo:
    """The figures in ``data``: a ``TCP_INFO`` option value or an ``INET_DIAG_INFO`` attribute.

    Older kernels return fewer bytes, newer ones more; what is not there is None, what is not known is
    ignored. Any bytes are accepted.
    """
    values: list[int | None] = list(_FIELDS.unpack_from(data.ljust(SIZE_BYTES, b"\0")))
    for at, end in enumerate(_ENDS):
        if end > len(data):
            values[at] = None
    scales, limits = values[6], values[7]
    # Bit fields as compilers for little-endian machines lay them out.
    values[6:8] = [
        None if scales is None else scales & 0xF,
        None if scales is None else scales >> 4,
        None if limits is None else limits & 1,
        None if limits is None else limits >> 1 & 3,
    ]
    return TcpInfo(*values)


def of_socket(sock: socket.socket) -> TcpInfo:
    """The figures of a TCP socket of this process.

    Raises:
        OSError: not a TCP socket, or closed.
    """
    return decode(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE_BYTES))

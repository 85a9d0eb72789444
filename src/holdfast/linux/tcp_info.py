"""``struct tcp_info``: what the kernel tells of one connection, decoded by the length it returned."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """One connection's figures; a field is None where this kernel is too old to have it.

    Attributes:
        state: kernel number; :mod:`holdfast.linux.states` names it.
        ca_state: congestion control state (0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss).
        retransmits: retransmission timeouts in a row without an answer.
        probes: unanswered zero-window or keep-alive probes.
        backoff: how often the timeout was doubled.
        options: bits negotiated (1 timestamps, 2 SACK, 4 window scale, 8 ECN, 16 ECN seen, 32 SYN data).
        snd_wscale, rcv_wscale: window scale shifts.
        app_limited: the delivery rate was limited by the application.
        fastopen_client_fail: why the client did not use Fast Open (0 unspecified).
        rto_us, ato_us: retransmission timeout; delayed-ACK timeout.
        snd_mss_bytes, rcv_mss_bytes, advmss_bytes, pmtu_bytes: segment sizes and path MTU.
        unacked, sacked, lost, retrans, fackets: segments in these states now. For a listener
            ``unacked`` is the length of its accept queue and ``sacked`` its limit.
        last_data_sent_ms, last_ack_sent_ms, last_data_recv_ms, last_ack_recv_ms: how long ago
            (``last_ack_sent_ms`` is always 0).
        rcv_ssthresh_bytes, rcv_space_bytes: receive window clamp; receive buffer tuning.
        rtt_us, rttvar_us, min_rtt_us, rcv_rtt_us: smoothed (0 if never measured), deviation, smallest
            (4294967295 if never measured), receiver's estimate.
        snd_ssthresh, snd_cwnd, reordering: segments.
        total_retrans: segments retransmitted in all.
        pacing_rate_bytes_per_s, max_pacing_rate_bytes_per_s, delivery_rate_bytes_per_s: rates.
        bytes_acked, bytes_received: payload confirmed by the peer; received in order.
        segs_out, segs_in, data_segs_in, data_segs_out: segments.
        notsent_bytes: written by the application and never sent.
        busy_us, rwnd_limited_us, sndbuf_limited_us: time with data to send; limited by the peer's
            window; by the send buffer.
        delivered, delivered_ce: segments delivered; with a congestion mark.
        bytes_sent, bytes_retrans: payload sent, including retransmissions; retransmitted.
        dsack_dups, reord_seen, rcv_ooopack: duplicates reported; reorderings; segments out of order.
        snd_wnd_bytes, rcv_wnd_bytes: the peer's window; ours.
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

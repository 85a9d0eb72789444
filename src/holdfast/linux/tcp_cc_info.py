"""What a congestion control algorithm tells of itself: ``TCP_CC_INFO``, and the same from ``sock_diag``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

TCP_CC_INFO = 26
_ROOM_BYTES = 64  # the union has 20 on Linux 6.18
_NAME_BYTES = 16

_VEGAS = struct.Struct("=4I")
_DCTCP = struct.Struct("=2H3I")
_BBR = struct.Struct("=5I")
_NO_RTT = 0x7FFFFFFF
_GAIN_UNIT = 256
_ALPHA_UNIT = 1024


@dataclass(frozen=True, slots=True)
class VegasInfo:
    """``struct tcpvegas_info``, which ``vegas``, ``westwood``, ``illinois``, ``veno`` and ``nv`` fill.

    Attributes:
        enabled: whether the delay decides at the moment.
        rtt_count: round trips measured in the current one.
        rtt_us: round trip in use, None if not measured.
        min_rtt_us: smallest (``vegas``) or base round trip, None if not measured.
    """

    enabled: bool
    rtt_count: int
    rtt_us: int | None
    min_rtt_us: int | None


@dataclass(frozen=True, slots=True)
class DctcpInfo:
    """``struct tcp_dctcp_info``.

    Attributes:
        enabled: False where ECN was refused: it then works as Reno.
        ce_state: whether the last data arrived with a congestion mark.
        marked_share: smoothed share of marked bytes, 0 to 1 (``alpha``).
        marked_bytes, acked_bytes: since the window began (``dctcp_ab_ecn``, ``dctcp_ab_tot``).
    """

    enabled: bool
    ce_state: bool
    marked_share: float
    marked_bytes: int
    acked_bytes: int


@dataclass(frozen=True, slots=True)
class BbrInfo:
    """``struct tcp_bbr_info``.

    Attributes:
        bandwidth_bytes_per_s: the bottleneck as BBR estimates it.
        min_rtt_us: smallest round trip of the last ten seconds, None if not measured.
        pacing_gain, window_gain: factors in use now.
    """

    bandwidth_bytes_per_s: int
    min_rtt_us: int | None
    pacing_gain: float
    window_gain: float


CcInfo = VegasInfo | DctcpInfo | BbrInfo


def decode_vegas(data: bytes) -> VegasInfo | None:
    """The figures in an ``INET_DIAG_VEGASINFO`` attribute; None if it is too short."""
    if len(data) < _VEGAS.size:
        return None
    enabled, count, rtt_us, min_rtt_us = _VEGAS.unpack_from(data)
    return VegasInfo(bool(enabled), count, _measured(rtt_us), _measured(min_rtt_us))


def decode_dctcp(data: bytes) -> DctcpInfo | None:
    """The figures in an ``INET_DIAG_DCTCPINFO`` attribute; None if it is too short."""
    if len(data) < _DCTCP.size:
        return None
    enabled, ce_state, alpha, marked_bytes, acked_bytes = _DCTCP.unpack_from(data)
    return DctcpInfo(bool(enabled), bool(ce_state), alpha / _ALPHA_UNIT, marked_bytes, acked_bytes)


def decode_bbr(data: bytes) -> BbrInfo | None:
    """The figures in an ``INET_DIAG_BBRINFO`` attribute; None if it is too short."""
    if len(data) < _BBR.size:
        return None
    low, high, min_rtt_us, pacing, window = _BBR.unpack_from(data)
    never = min_rtt_us == 0xFFFFFFFF
    return BbrInfo(high << 32 | low, None if never else min_rtt_us, pacing / _GAIN_UNIT, window / _GAIN_UNIT)


def decode(algorithm: str, data: bytes) -> CcInfo | None:
    """What ``TCP_CC_INFO`` returned for a socket with this algorithm.

    The value does not say which struct it is, so the name decides. None for an algorithm that tells
    nothing (``cubic``, ``reno``) and for a value that is too short.
    """
    if algorithm == "bbr":
        return decode_bbr(data)
    if algorithm.startswith("dctcp"):
        return decode_dctcp(data)
    return decode_vegas(data)


def algorithm_of(sock: socket.socket) -> str:
    """Name of the congestion control algorithm of a TCP socket (``TCP_CONGESTION``).

    Raises:
        OSError: not a TCP socket, or closed.
    """
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES)
    return name.partition(b"\0")[0].decode("ascii", "replace")


def of_socket(sock: socket.socket) -> CcInfo | None:
    """What the algorithm of a TCP socket of this process tells; None if it tells nothing.

    Raises:
        OSError: not a TCP socket, or closed.
    """
    data = sock.getsockopt(socket.IPPROTO_TCP, TCP_CC_INFO, _ROOM_BYTES)
    return decode(algorithm_of(sock), data)


def _measured(rtt_us: int) -> int | None:
    return None if rtt_us in (0, _NO_RTT) else rtt_us

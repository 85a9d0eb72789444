# SPDX-License-Identifier: Apache-2.0
"""``tcp_info`` is decoded by the length that the kernel returned; any bytes are accepted."""

from __future__ import annotations

import socket
import struct
from dataclasses import asdict, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.linux.tcp_info import SIZE_BYTES, TcpInfo, decode, of_socket

# Name and C type of each field as include/uapi/linux/tcp.h lists them: eight bytes, then these.
AFTER_THE_BYTES = [
    *[(name, "I") for name in ("rto_us", "ato_us", "snd_mss_bytes", "rcv_mss_bytes")],
    *[(name, "I") for name in ("unacked", "sacked", "lost", "retrans", "fackets")],
    *[(name, "I") for name in ("last_data_sent_ms", "last_ack_sent_ms")],
    *[(name, "I") for name in ("last_data_recv_ms", "last_ack_recv_ms")],
    *[(name, "I") for name in ("pmtu_bytes", "rcv_ssthresh_bytes", "rtt_us", "rttvar_us")],
    *[(name, "I") for name in ("snd_ssthresh", "snd_cwnd", "advmss_bytes", "reordering")],
    *[(name, "I") for name in ("rcv_rtt_us", "rcv_space_bytes", "total_retrans")],
    *[(name, "Q") for name in ("pacing_rate_bytes_per_s", "max_pacing_rate_bytes_per_s")],
    *[(name, "Q") for name in ("bytes_acked", "bytes_received")],
    *[(name, "I") for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt_us")],
    *[(name, "I") for name in ("data_segs_in", "data_segs_out")],
    ("delivery_rate_bytes_per_s", "Q"),
    *[(name, "Q") for name in ("busy_us", "rwnd_limited_us", "sndbuf_limited_us")],
    *[(name, "I") for name in ("delivered", "delivered_ce")],
    *[(name, "Q") for name in ("bytes_sent", "bytes_retrans")],
    *[(name, "I") for name in ("dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd_bytes")],
    *[(name, "I") for name in ("rcv_wnd_bytes", "rehash")],
    *[(name, "H") for name in ("total_rto", "total_rto_recoveries")],
    ("total_rto_time_ms", "I"),
    *[(name, "I") for name in ("received_ce", "delivered_e1_bytes", "delivered_e0_bytes")],
    *[(name, "I") for name in ("delivered_ce_bytes", "received_e1_bytes", "received_e0_bytes")],
    ("received_ce_bytes", "I"),
    *[(name, "H") for name in ("accecn_fail_mode", "accecn_opt_seen")],
]
BYTES = ("state", "ca_state", "retransmits", "probes", "backoff", "options")
BITS = ("snd_wscale", "rcv_wscale", "app_limited", "fastopen_client_fail")


def whole() -> tuple[bytes, dict[str, int]]:
    """A full struct in which every field has a value of its own, and those values."""
    expected = {name: place + 1 for place, name in enumerate(BYTES)}
    expected |= {"snd_wscale": 7, "rcv_wscale": 9, "app_limited": 1, "fastopen_client_fail": 3}
    data = bytes([*range(1, 7), 9 << 4 | 7, 3 << 1 | 1])
    for place, (name, code) in enumerate(AFTER_THE_BYTES):
        expected[name] = 1000 + place
        data += struct.pack(f"={code}", 1000 + place)
    return data, expected


def test_every_field_has_its_place() -> None:
    data, expected = whole()
    assert len(data) == SIZE_BYTES == 280
    assert asdict(decode(data)) == expected
    assert [field.name for field in fields(TcpInfo)] == [*BYTES, *BITS, *(n for n, _ in AFTER_THE_BYTES)]


def test_a_newer_kernels_extra_bytes_are_ignored() -> None:
    data, _ = whole()
    assert decode(data + b"\xff" * 40) == decode(data)


def test_every_shorter_struct_has_the_fields_that_fit() -> None:
    data, expected = whole()
    ends = dict(zip((*BYTES, "scales", "limits"), range(1, 9), strict=True))
    ends |= dict.fromkeys(BITS[:2], ends.pop("scales")) | dict.fromkeys(BITS[2:], ends.pop("limits"))
    end = 8
    for name, code in AFTER_THE_BYTES:
        ends[name] = end = end + struct.calcsize(f"={code}")
    for length in range(SIZE_BYTES + 1):
        fitting = {name: value if ends[name] <= length else None for name, value in expected.items()}
        assert asdict(decode(data[:length])) == fitting


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_accepted(data: bytes) -> None:
    assert isinstance(decode(data), TcpInfo)


def test_a_living_socket_tells_what_it_carried() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname(), timeout=5) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(b"12345")
            assert server.recv(5, socket.MSG_WAITALL) == b"12345"
            info = of_socket(server)
            assert (info.state, info.bytes_received, info.data_segs_in) == (1, 5, 1)


def test_another_kind_of_socket_is_an_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(OSError):
        of_socket(sock)

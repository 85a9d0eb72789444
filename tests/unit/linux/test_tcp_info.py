# SPDX-License-Identifier: Apache-2.0
"""``tcp_info`` is decoded by the length that the kernel returned; any bytes are accepted."""

from __future__ import annotations

import socket
import struct
from dataclasses import asdict, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.linux.btf import Btf
from holdfast.linux.tcp_info import CA_STATES, SIZE_BYTES, Options, TcpInfo, decode, of_socket

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


# The kernel's name without ``tcpi_``, where ours is not that name with a unit behind it.
RENAMED = {
    "delivery_rate_app_limited": "app_limited",
    "busy_time": "busy_us",
    "rwnd_limited": "rwnd_limited_us",
    "sndbuf_limited": "sndbuf_limited_us",
}
UNITS = ("", "_us", "_ms", "_bytes", "_bytes_per_s")


def ours(kernel_name: str) -> str:
    """Our name of a kernel's field."""
    plain = kernel_name.removeprefix("tcpi_")
    names = {field.name for field in fields(TcpInfo)}
    return next(name for unit in UNITS if (name := RENAMED.get(plain, f"{plain}{unit}")) in names)


def test_every_field_is_where_the_running_kernel_has_it() -> None:
    try:
        offsets = Btf.of_kernel().bit_offsets("tcp_info")
    except KernelUnavailable as error:
        pytest.skip(str(error))
    assert offsets is not None
    known = {name: bits for name, bits in offsets.items() if bits < 8 * SIZE_BYTES}
    # Each bit pattern has one bit, at the start of a field: only that field may see it.
    expected = {ours(name): {ours(name): 1} for name in known}
    found = {}
    for name, bits in known.items():
        data = bytearray(SIZE_BYTES)
        data[bits // 8] = 1 << bits % 8
        found[ours(name)] = {field: value for field, value in asdict(decode(bytes(data))).items() if value}
    assert found == expected


def test_options_have_names_and_unknown_bits_survive() -> None:
    assert TcpInfo(options=7).negotiated == Options.TIMESTAMPS | Options.SACK | Options.WINDOW_SCALE
    assert TcpInfo(options=0xFF).negotiated == Options(0xFF)
    assert [one.name for one in Options(0xFF)][-2:] == ["MICROSECOND_TIMESTAMPS", "FAST_OPEN_CHILD"]
    assert TcpInfo().negotiated is None


NOTHING_TO_TELL = TcpInfo(
    rtt_us=0,
    rttvar_us=250_000,
    min_rtt_us=0xFFFFFFFF,
    rcv_rtt_us=0,
    ato_us=0,
    snd_ssthresh=0x7FFFFFFF,
    pacing_rate_bytes_per_s=0xFFFFFFFFFFFFFFFF,
    max_pacing_rate_bytes_per_s=0xFFFFFFFFFFFFFFFF,
    last_ack_sent_ms=0,
)


def test_what_the_kernel_has_nothing_to_tell_of_is_none() -> None:
    assert set(NOTHING_TO_TELL.known().values()) == {None}


def test_what_was_measured_is_told_as_it_is() -> None:
    info = TcpInfo(
        rtt_us=50,
        rttvar_us=0,
        min_rtt_us=0,
        rcv_rtt_us=70,
        ato_us=40_000,
        snd_ssthresh=2,
        pacing_rate_bytes_per_s=0,
        max_pacing_rate_bytes_per_s=9,
    )
    assert info.known() == asdict(info)
    assert (info.smoothed_rtt_us, info.rtt_deviation_us, info.smallest_rtt_us) == (50, 0, 0)
    assert (info.receiver_rtt_us, info.delayed_ack_us, info.slow_start_threshold) == (70, 40_000, 2)
    assert (info.pacing_bytes_per_s, info.pacing_limit_bytes_per_s) == (0, 9)


def test_an_older_kernel_tells_none_of_it() -> None:
    assert set(TcpInfo().known().values()) == {None}


def test_congestion_states_have_the_kernels_order() -> None:
    try:
        enum = Btf.of_kernel().enum("tcp_ca_state")
    except KernelUnavailable as error:
        pytest.skip(str(error))
    assert {name.removeprefix("TCP_CA_").lower(): number for name, number in enum.items()} == {
        name: number for number, name in enumerate(CA_STATES)
    }

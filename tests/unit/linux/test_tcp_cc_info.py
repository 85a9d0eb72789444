# SPDX-License-Identifier: Apache-2.0
"""What congestion control algorithms tell is decoded by their name; any bytes are accepted."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.linux.btf import Btf
from holdfast.linux.tcp_cc_info import (
    BbrInfo,
    CcInfo,
    DctcpInfo,
    VegasInfo,
    algorithm_of,
    decode,
    of_socket,
)

BBR = struct.pack("=5I", 7, 1, 30, 739, 512)
DCTCP = struct.pack("=2H3I", 1, 1, 1024, 5, 6)
VEGAS = struct.pack("=4I", 1, 2, 30, 20)
CASES: dict[str, tuple[bytes, CcInfo]] = {
    "bbr": (BBR, BbrInfo(1 << 32 | 7, 30, 739 / 256, 2.0)),
    "dctcp": (DCTCP, DctcpInfo(True, True, 1.0, 5, 6)),
    "dctcp-reno": (DCTCP, DctcpInfo(True, True, 1.0, 5, 6)),
    "vegas": (VEGAS, VegasInfo(True, 2, 30, 20)),
    "westwood": (VEGAS, VegasInfo(True, 2, 30, 20)),
}


@pytest.mark.parametrize("algorithm", CASES)
def test_each_algorithm_whole_cut_and_with_junk(algorithm: str) -> None:
    data, told = CASES[algorithm]
    assert decode(algorithm, data) == decode(algorithm, data + b"\xff" * 9) == told
    assert {decode(algorithm, data[:length]) for length in range(len(data))} == {None}


@pytest.mark.parametrize("algorithm", ["cubic", "reno"])
def test_an_algorithm_that_tells_nothing(algorithm: str) -> None:
    assert decode(algorithm, b"") is None


def test_round_trips_never_measured_are_none() -> None:
    assert decode("bbr", struct.pack("=5I", 0, 0, 0xFFFFFFFF, 256, 256)) == BbrInfo(0, None, 1.0, 1.0)
    assert decode("vegas", struct.pack("=4I", 0, 0, 0, 0x7FFFFFFF)) == VegasInfo(False, 0, None, None)


@settings(deadline=None)
@given(st.sampled_from([*CASES, "cubic", "", "unheard-of"]), st.binary(max_size=60))
def test_any_bytes_are_accepted(algorithm: str, data: bytes) -> None:
    assert decode(algorithm, data) is None or len(data) >= 16


@pytest.mark.parametrize(
    ("struct_name", "names"),
    [
        ("tcp_bbr_info", ("bbr_bw_lo", "bbr_bw_hi", "bbr_min_rtt", "bbr_pacing_gain", "bbr_cwnd_gain")),
        ("tcpvegas_info", ("tcpv_enabled", "tcpv_rttcnt", "tcpv_rtt", "tcpv_minrtt")),
        (
            "tcp_dctcp_info",
            ("dctcp_enabled", "dctcp_ce_state", "dctcp_alpha", "dctcp_ab_ecn", "dctcp_ab_tot"),
        ),
    ],
)
def test_the_running_kernel_has_the_same_order(struct_name: str, names: tuple[str, ...]) -> None:
    try:
        members = Btf.of_kernel().members(struct_name)
    except KernelUnavailable as error:
        pytest.skip(str(error))
    assert members == names


def test_a_living_socket_tells_what_its_algorithm_tells() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as client,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        assert (algorithm_of(client), of_socket(client)) == ("reno", None)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        except OSError as error:
            pytest.skip(f"this kernel has no bbr for us: {error}")
        assert isinstance(of_socket(client), BbrInfo)

"""Sockets to judge: one that is well, to be changed by what a test is about."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from holdfast.linux.sock_diag import Socket
from holdfast.linux.socket_queues import SocketMemory
from holdfast.linux.states import NUMBERS
from holdfast.linux.tcp_info import SIZE_BYTES, TcpInfo, decode

INFO = TcpInfo(
    state=1,
    ca_state=0,
    retransmits=0,
    probes=0,
    options=7,
    snd_wscale=7,
    rcv_wscale=7,
    app_limited=1,
    rto_us=204_000,
    ato_us=40_000,
    snd_mss_bytes=1448,
    rcv_mss_bytes=536,
    lost=0,
    retrans=0,
    last_data_sent_ms=20,
    last_data_recv_ms=10,
    last_ack_recv_ms=10,
    pmtu_bytes=1500,
    rcv_ssthresh_bytes=65_536,
    rtt_us=50,
    rttvar_us=25,
    min_rtt_us=30,
    rcv_rtt_us=70,
    snd_ssthresh=0x7FFFFFFF,
    snd_cwnd=10,
    reordering=3,
    total_retrans=0,
    bytes_acked=101,
    bytes_received=2048,
    data_segs_in=4,
    data_segs_out=1,
    notsent_bytes=0,
    busy_us=1000,
    rwnd_limited_us=0,
    sndbuf_limited_us=0,
    bytes_sent=100,
    bytes_retrans=0,
    rcv_ooopack=0,
    snd_wnd_bytes=65_536,
    rcv_wnd_bytes=65_536,
    total_rto=0,
)
MEMORY = SocketMemory(0, 131_072, 0, 16_384, 0, 0, 0, 0, 0)
WELL = Socket("192.0.2.1", 443, "198.51.100.7", 50000, "ESTABLISHED", 9, 0, 77, 5, info=INFO, memory=MEMORY)
LISTENER = replace(
    WELL, peer_ip="0.0.0.0", peer_port=0, state="LISTEN", send_queue=128, info=TcpInfo(state=10)
)


def socket_with(
    base: Socket = WELL,
    *,
    info: dict[str, Any] | None = None,
    memory: dict[str, Any] | None = None,
    **of: Any,
) -> Socket:
    """A socket that is well but for these figures."""
    changed = replace(base, **of)
    if info and changed.info:
        changed = replace(changed, info=replace(changed.info, **info))
    if memory and changed.memory:
        changed = replace(changed, memory=replace(changed.memory, **memory))
    return changed


def any_socket() -> st.SearchStrategy[Socket]:
    """Any figures that the kernel could send, and some that it never would."""
    number = st.none() | st.integers(0, 0xFFFFFFFF)
    info = st.binary(max_size=SIZE_BYTES).map(decode)
    rest: dict[str, Any] = {
        "receive_queue": st.integers(0, 0xFFFFFFFF),
        "send_queue": st.integers(0, 0xFFFFFFFF),
        "inode": st.integers(0, 1),
        "timer": st.sampled_from([None, "retransmit", "keep_alive", "time_wait", "window_probe"]),
        "timer_ms": number,
        "timer_tries": number,
        "state": st.sampled_from([None, *NUMBERS]),
        "info": st.none() | info,
        "memory": st.sampled_from([None, WELL.memory]),
    }
    return st.builds(lambda **of: Socket("::", 1, "::", 2, cookie=0, uid=0, **of), **rest)

"""A socket's figures in plain sentences: how it receives, how it sends, its path, its congestion control."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.linux.findings import Moved, fin_arrived, unread_bytes
from holdfast.linux.quantities import counted, rate, size, time_ms, time_s, time_us
from holdfast.linux.sock_diag import Socket
from holdfast.linux.socket_queues import SocketMemory
from holdfast.linux.tcp_cc_info import BbrInfo, DctcpInfo, VegasInfo
from holdfast.linux.tcp_info import Options, TcpInfo

_TIMERS = {
    "retransmit": "Retransmission",
    "keep_alive": "Keep-alive",
    "time_wait": "Closing",
    "window_probe": "Window probe",
}


def receiving(sock: Socket, since: Moved | None = None) -> list[str]:
    """What the receive path has done with what arrived, and what it holds."""
    info, memory = sock.info, sock.memory
    if sock.state == "LISTEN":
        return _listening(sock)
    if info is None:
        return []
    lines = [_received(sock, info)]
    if since and since.received_bytes is not None and since.read_bytes is not None:
        arrived, read = (rate(count / since.elapsed_s) for count in (since.received_bytes, since.read_bytes))
        lines.append(f"In the last {time_s(since.elapsed_s)}: {arrived} arrived, {read} read.")
    lines.append(_own_window(info))
    if memory:
        lines.append(_buffer(memory))
    if info.delayed_ack_us:
        lines.append(f"Delayed ACK estimate {time_us(info.delayed_ack_us)}.")
    if info.rcv_ooopack:
        lines.append(f"{counted(info.rcv_ooopack, 'segment')} arrived out of order.")
    if memory and memory.drops:
        lines.append(f"{counted(memory.drops, 'segment')} thrown away here since it opened.")
    return lines


def _listening(sock: Socket) -> list[str]:
    lines = [f"Accept queue {sock.receive_queue:,} of {sock.send_queue:,}."]
    if sock.memory and sock.memory.drops:
        lines.append(f"{counted(sock.memory.drops, 'segment')} thrown away here since it opened.")
    return lines


def _received(sock: Socket, info: TcpInfo) -> str:
    received = None if info.bytes_received is None else max(0, info.bytes_received - fin_arrived(sock))
    words = _amount(received, info.data_segs_in)
    if info.data_segs_in and info.last_data_recv_ms is not None:
        words += f", the last {time_ms(info.last_data_recv_ms)} ago"
    unread = unread_bytes(sock)
    if unread is not None:
        words += f"; {size(unread) if unread else 'nothing'} unread"
    return f"{words}."


def _amount(count_bytes: int | None, segments: int | None) -> str:
    words = "Bytes not told by this kernel" if count_bytes is None else size(count_bytes)
    return words if segments is None else f"{words} in {counted(segments, 'segment')}"


def _own_window(info: TcpInfo) -> str:
    scaled = Options.WINDOW_SCALE in (info.negotiated or Options(0))
    scale = f", scale {info.rcv_wscale} (units of {counted(1 << (info.rcv_wscale or 0), 'byte')})"
    words = "Own window not told by this kernel"
    if info.rcv_wnd_bytes is not None:
        words = f"Own window {size(info.rcv_wnd_bytes) if info.rcv_wnd_bytes else 'closed'}"
    words += scale if scaled else ", not scaled"
    if info.rcv_ssthresh_bytes:
        words += f"; may grow to {size(info.rcv_ssthresh_bytes)}"
    return f"{words}."


def _buffer(memory: SocketMemory) -> str:
    words = f"Buffer {size(memory.receive_bytes or 0)} of {size(memory.receive_limit_bytes or 0)}"
    if memory.backlog_bytes:
        words += f", and {size(memory.backlog_bytes)} in the backlog of a socket in use"
    return f"{words}."


def sending(sock: Socket, since: Moved | None = None) -> list[str]:
    """What was sent, what is on its way, what holds the rest back."""
    info = sock.info
    if info is None or sock.state == "LISTEN":
        return []
    lines = [_sent(sock, info)]
    if since and since.acked_bytes is not None:
        lines.append(
            f"In the last {time_s(since.elapsed_s)}: {rate(since.acked_bytes / since.elapsed_s)} confirmed."
        )
    if info.snd_wnd_bytes is not None:
        lines.append(f"The peer's window {size(info.snd_wnd_bytes) if info.snd_wnd_bytes else 'is closed'}.")
    if info.total_retrans:
        again = f" ({size(info.bytes_retrans)})" if info.bytes_retrans else ""
        lines.append(f"{counted(info.total_retrans, 'segment')} sent again{again}.")
    if info.total_rto:
        lines.append(
            f"{counted(info.total_rto, 'timeout')}, {time_ms(info.total_rto_time_ms or 0)} spent in them."
        )
    if sock.timer:
        lines.append(_timer(sock))
    return lines


def _sent(sock: Socket, info: TcpInfo) -> str:
    total = info.bytes_sent if info.bytes_sent is not None else info.bytes_acked
    words = _amount(total, info.data_segs_out)
    if info.total_retrans:
        words += " with repeats"
    if info.data_segs_out and info.last_data_sent_ms is not None:
        words += f", the last {time_ms(info.last_data_sent_ms)} ago"
    unsent = info.notsent_bytes or 0
    on_its_way = max(0, sock.send_queue - unsent)
    words += f"; {size(on_its_way) if on_its_way else 'nothing'} unconfirmed"
    return f"{words}, {size(unsent)} not sent yet." if unsent else f"{words}."


def _timer(sock: Socket) -> str:
    words = _TIMERS.get(sock.timer or "", "Unknown")
    tries = f", tried {counted(sock.timer_tries, 'time')} in vain" if sock.timer_tries else ""
    return f"{words} timer: {time_ms(sock.timer_ms or 0)} left{tries}."


def path(sock: Socket) -> list[str]:
    """Round trip, timeout, reordering and sizes."""
    info = sock.info
    if info is None or sock.state == "LISTEN":
        return []
    lines = [_round_trip(info)]
    if info.reordering is not None:
        seen = f"; the peer saw it {counted(info.reord_seen, 'time')}" if info.reord_seen else ""
        lines.append(f"Reordering of {counted(info.reordering, 'segment')} is tolerated{seen}.")
    lines.append(
        f"Segments of {info.snd_mss_bytes or 0:,} bytes out, about {info.rcv_mss_bytes or 0:,} in; "
        f"path MTU {info.pmtu_bytes or 0:,}."
    )
    names = [one.name.lower().replace("_", " ") for one in info.negotiated or () if one.name]
    lines.append(f"Agreed on: {', '.join(names) or 'no options'}.")
    return lines


def _round_trip(info: TcpInfo) -> str:
    if info.smoothed_rtt_us is None:
        words = "Round trip not measured"
    else:
        words = f"Round trip {time_us(info.smoothed_rtt_us)} ± {time_us(info.rtt_deviation_us or 0)}"
        if info.smallest_rtt_us is not None:
            words += f", at least {time_us(info.smallest_rtt_us)}"
    if info.receiver_rtt_us:
        words += f"; {time_us(info.receiver_rtt_us)} as the receiver sees it"
    return f"{words}; timeout {time_us(info.rto_us or 0)}."


def congestion(sock: Socket) -> list[str]:
    """The algorithm, its window and what it tells of itself."""
    info = sock.info
    if info is None or sock.state == "LISTEN":
        return []
    words = f"{sock.congestion or 'Unknown algorithm'}: window {counted(info.snd_cwnd or 0, 'segment')}"
    threshold = info.slow_start_threshold
    words += f", slow start until {threshold:,}" if threshold is not None else ", no threshold yet"
    lines = [f"{words}."]
    if info.delivery_rate_bytes_per_s:
        limited = " (the application offered no more)" if info.app_limited else ""
        lines.append(f"Delivered {rate(info.delivery_rate_bytes_per_s)} lately{limited}.")
    told = sock.cc_info
    if isinstance(told, BbrInfo) and told.bandwidth_bytes_per_s:
        lines.append(f"Bottleneck estimated at {rate(told.bandwidth_bytes_per_s)}.")
    elif isinstance(told, DctcpInfo):
        lines.append(
            f"{told.marked_share:.1%} of the bytes marked." if told.enabled else "ECN refused: Reno."
        )
    elif isinstance(told, VegasInfo) and told.rtt_us:
        lines.append(f"Its round trip {time_us(told.rtt_us)}, at least {time_us(told.min_rtt_us or 0)}.")
    return lines

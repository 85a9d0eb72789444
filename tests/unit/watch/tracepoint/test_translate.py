# SPDX-License-Identifier: Apache-2.0
"""Samples become events with exactly what they show: layouts old and new, and no innocent process."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.events import Endpoint, Event, Kind, Process
from holdfast.watch.tracepoint.formats import Field, Format
from holdfast.watch.tracepoint.records import Sample
from holdfast.watch.tracepoint.translate import (
    ERROR,
    EXIT,
    RECEIVED,
    SENT,
    STATE,
    Names,
    Translator,
    endpoints,
)

SK = 0xFFFF888000001000
NEW = {"NOT_SPECIFIED": 0, "NO_SOCKET": 1, "TCP_ABORT_ON_CLOSE": 11}

# Kernel functions by made-up addresses.
FUNCTIONS = dict(
    enumerate(
        (
            "tcp_send_active_reset",
            "__tcp_close",
            "do_syscall_64",
            "do_exit",
            "tcp_v4_send_reset",
            "tcp_v4_rcv",
            "handle_softirqs",
            "tcp_reset",
            "tcp_validate_incoming",
            "tcp_rcv_state_process",
            "__traceiter_tcp_send_reset",
            "tcp_disconnect",
            "inet_child_forget",
            "tcp_keepalive_timer",
            "mptcp_close",
            "kthread",
        ),
        100,
    )
)
NUMBERS = {name: number for number, name in FUNCTIONS.items()}


def layout(name: str, number: int, *fields: tuple[str, int]) -> Format:
    places, at = {}, 8
    for field, size in fields:
        places[field] = Field(at, size, False)
        at += size
    symbols = {"reason": {value: word for word, value in NEW.items()}} if "reason" in places else {}
    return Format(name, number, {"common_type": Field(0, 2, False), **places}, symbols)


TUPLE = (("sport", 2), ("dport", 2), ("family", 2))
ADDRESSES = (("saddr", 4), ("daddr", 4), ("saddr_v6", 16), ("daddr_v6", 16))
SENT_NEW = layout(
    SENT, 1, ("skbaddr", 8), ("skaddr", 8), ("state", 4), ("reason", 4), ("saddr", 28), ("daddr", 28)
)
SENT_OLD = layout(SENT, 2, ("skbaddr", 8), ("skaddr", 8), ("state", 4), *TUPLE[:2], *ADDRESSES)
RECEIVED_NEW = layout(RECEIVED, 3, ("skaddr", 8), *TUPLE, *ADDRESSES, ("sock_cookie", 8))
STATE_NEW = layout(
    STATE, 4, ("skaddr", 8), ("oldstate", 4), ("newstate", 4), *TUPLE, ("protocol", 2), *ADDRESSES
)
ERROR_NEW = layout(ERROR, 5, ("error", 4), *TUPLE, ("protocol", 2), *ADDRESSES)
EXIT_NEW = layout(EXIT, 6, ("comm", 16), ("pid", 4))
FORMATS = (SENT_NEW, SENT_OLD, RECEIVED_NEW, STATE_NEW, ERROR_NEW, EXIT_NEW)


def mapped(ip: str) -> bytes:
    if ":" in ip:
        return socket.inet_pton(socket.AF_INET6, ip)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(ip)


def sockaddr(ip: str, port: int) -> bytes:
    if ":" in ip:
        return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + mapped(ip) + bytes(4)
    return (struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(ip)).ljust(
        28, b"\0"
    )


def ends(local: Endpoint, peer: Endpoint) -> dict[str, bytes | int]:
    v4 = ":" not in local.ip
    return {
        "sport": local.port,
        "dport": peer.port,
        "family": socket.AF_INET if v4 else socket.AF_INET6,
        "saddr": socket.inet_aton(local.ip) if v4 else bytes(4),
        "daddr": socket.inet_aton(peer.ip) if v4 else bytes(4),
        "saddr_v6": mapped(local.ip),
        "daddr_v6": mapped(peer.ip),
    }


def raw(form: Format, **values: bytes | int) -> bytes:
    size = max(place.offset + place.size for place in form.fields.values())
    data = bytearray(size)
    for name, value in {"common_type": form.id, **values}.items():
        place = form.fields.get(name)
        if place is not None:
            encoded = value if isinstance(value, bytes) else value.to_bytes(place.size, "little")
            data[place.offset : place.offset + len(encoded)] = encoded
    return bytes(data)


class Hit(NamedTuple):
    """A sample in few words."""

    data: bytes
    stack: tuple[str, ...] = ()
    pid: int = 7
    at_ns: int = 1000

    def sample(self) -> Sample:
        kernel = tuple(NUMBERS[name] for name in self.stack)
        return Sample(self.pid, self.pid, self.at_ns, 0, kernel, (0x401000, 0), self.data)


OURS = Process(7, "nginx", 33)


def translator(process: Callable[[int], Process | None] = {7: OURS}.get) -> Translator:
    names = Names(
        reasons={14: "TCP_STATE"},
        kernel=lambda address: FUNCTIONS[address],
        user=lambda pid, address: f"{pid}+0x{address:x}",
        process=process,
        validates=True,
    )
    return Translator(FORMATS, names)


def events(*hits: Hit) -> list[Event]:
    return translator().events([hit.sample() for hit in hits])


LOCAL, PEER = Endpoint("192.0.2.1", 80), Endpoint("192.0.2.2", 5000)
LOCAL6, PEER6 = Endpoint("2001:db8::1", 80), Endpoint("2001:db8::2", 5000)
BOTH = {"saddr": sockaddr(*LOCAL), "daddr": sockaddr(*PEER)}
CLOSE_STACK = ("tcp_send_active_reset", "__tcp_close", "do_syscall_64")
SOFTIRQ_STACK = ("tcp_v4_send_reset", "tcp_v4_rcv", "handle_softirqs", "__tcp_close", "do_syscall_64")


def closed(before: int = 1, at_ns: int = 900, sk: int = SK) -> Hit:
    data = raw(STATE_NEW, skaddr=sk, oldstate=before, newstate=7, protocol=6, **ends(LOCAL, PEER))
    return Hit(data, at_ns=at_ns)


def dialled(at_ns: int = 500) -> Hit:
    data = raw(STATE_NEW, skaddr=SK, oldstate=7, newstate=2, protocol=6, **ends(LOCAL, PEER))
    return Hit(data, at_ns=at_ns)


def test_an_active_reset_has_its_process_and_the_state_before() -> None:
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH), CLOSE_STACK)
    assert events(closed(), sent) == [
        Event(
            Kind.RESET_SENT,
            1000,
            LOCAL,
            PEER,
            reason="TCP_ABORT_ON_CLOSE",
            state="CLOSED",
            state_before="ESTABLISHED",
            closer=OURS,
            in_process=True,
            exiting=False,
            closing=True,
            kernel_stack=CLOSE_STACK,
            user_stack=("7+0x401000",),
        )
    ]


def test_a_passive_reset_blames_nobody_and_ends_its_path_at_the_softirq() -> None:
    sent = Hit(raw(SENT_NEW, skbaddr=5, reason=1, **BOTH), SOFTIRQ_STACK)
    assert events(sent) == [
        Event(
            Kind.RESET_SENT,
            1000,
            LOCAL,
            PEER,
            reason="NO_SOCKET",
            in_process=False,
            kernel_stack=SOFTIRQ_STACK[:3],
        )
    ]


def test_a_second_listener_on_the_tracepoint_does_not_lengthen_the_path() -> None:
    stack = ("__traceiter_tcp_send_reset", *CLOSE_STACK)
    (found,) = events(Hit(raw(SENT_NEW, skaddr=SK, state=1, reason=11, **BOTH), stack))
    assert found.kernel_stack == CLOSE_STACK


def test_an_active_reset_from_a_timer_blames_nobody() -> None:
    sent = Hit(
        raw(SENT_NEW, skaddr=SK, state=1, reason=11, **BOTH), ("tcp_send_active_reset", "handle_softirqs")
    )
    assert [(e.closer, e.user_stack, e.state) for e in events(sent)] == [(None, (), "ESTABLISHED")]


def test_a_kernel_thread_that_closes_for_somebody_is_not_blamed() -> None:
    path = (*CLOSE_STACK[:-1], "kthread")
    data = raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH)
    assert [e.closer for e in events(closed(1), Hit(data, path))] == [None]


def sent_by(*path: str, state: int = 7, reason: int = 14, before: int = 1) -> Event:
    data = raw(SENT_NEW, skaddr=SK, state=state, reason=reason, **BOTH)
    return events(closed(before), Hit(data, ("tcp_send_active_reset", *path)))[-1]


def test_the_path_tells_what_the_reason_lumps_together() -> None:
    """SO_LINGER, connect(AF_UNSPEC), a listener's children and FIN_WAIT_2 all come as TCP_STATE."""
    paths = (
        sent_by("tcp_disconnect", "__tcp_close", "do_syscall_64"),
        sent_by("tcp_disconnect", "do_syscall_64"),
        sent_by("tcp_disconnect", "inet_child_forget", "__tcp_close", "do_syscall_64"),
        sent_by("tcp_keepalive_timer", "handle_softirqs", state=5),
        sent_by("__tcp_close", "mptcp_close", "do_exit"),
    )
    told = [(e.linger_zero, e.closing, e.unaccepted, e.orphaned, e.mptcp, e.exiting) for e in paths]
    assert told == [
        (True, True, None, None, None, False),
        (None, False, None, None, None, False),
        (None, True, True, None, None, False),
        (None, None, None, True, None, None),
        (None, True, None, None, True, True),
    ]


def test_without_names_nobody_is_blamed() -> None:
    machine = translator()
    machine._names = machine._names._replace(kernel=hex)
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH), CLOSE_STACK)
    (found,) = machine.events([sent.sample()])
    assert (found.closer, found.in_process, found.exiting, found.closing) == (None, None, None, None)


def test_ipv6_and_unknown_reasons() -> None:
    both = {"saddr": sockaddr(*LOCAL6), "daddr": sockaddr(*PEER6)}
    found = events(Hit(raw(SENT_NEW, reason=14, **both)), Hit(raw(SENT_NEW, reason=99, **both)))
    assert [(e.local, e.peer, e.reason) for e in found] == [
        (LOCAL6, PEER6, "TCP_STATE"),
        (LOCAL6, PEER6, "99"),
    ]


def test_kernels_before_6_10_have_no_reason_and_another_layout() -> None:
    for local, peer in ((LOCAL, PEER), (LOCAL6, PEER6)):
        sent = Hit(raw(SENT_OLD, skaddr=SK, state=4, **ends(local, peer)))
        assert events(sent) == [Event(Kind.RESET_SENT, 1000, local, peer, state="FIN_WAIT_1")]


def test_a_listener_has_no_peer() -> None:
    nobody = {"saddr": sockaddr("0.0.0.0", 80), "daddr": bytes(28)}
    (found,) = events(Hit(raw(SENT_NEW, skbaddr=5, skaddr=SK, state=10, reason=1, **nobody)))
    assert (found.local, found.peer, found.state) == (
        Endpoint("0.0.0.0", 80),
        Endpoint("0.0.0.0", 0),
        "LISTEN",
    )


def test_an_old_close_is_not_taken_for_this_ones() -> None:
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH), at_ns=2_000_000_000)
    assert [e.state_before for e in events(closed(at_ns=1), sent)] == [None]


def test_who_dialled_is_remembered_until_the_reset() -> None:
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH))
    found = events(dialled(), closed(), sent, Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH)))
    assert [e.opener for e in found] == [OURS, None]


def received(*stack: str, at_ns: int = 800) -> Hit:
    data = raw(RECEIVED_NEW, skaddr=SK, sock_cookie=42, **ends(LOCAL, PEER))
    return Hit(data, ("tcp_reset", *stack, "handle_softirqs"), at_ns=at_ns)


def test_a_received_reset_takes_its_state_from_the_close_that_follows() -> None:
    assert events(dialled(), received("tcp_validate_incoming"), closed()) == [
        Event(
            Kind.RESET_RECEIVED,
            800,
            LOCAL,
            PEER,
            cookie=42,
            state="ESTABLISHED",
            state_before="ESTABLISHED",
            opener=OURS,
            kernel_stack=("tcp_reset", "tcp_validate_incoming", "handle_softirqs"),
        )
    ]


def test_a_reset_that_nobody_sent_is_our_own() -> None:
    found = events(received("tcp_rcv_state_process"), closed(before=5))
    assert [(e.kind, e.state) for e in found] == [(Kind.SELF_RESET, "FIN_WAIT_2")]


def test_a_refused_connection_looks_alike_but_was_received() -> None:
    found = events(received("tcp_rcv_state_process"), closed(before=2))
    assert [(e.kind, e.state) for e in found] == [(Kind.RESET_RECEIVED, "SYN_SENT")]


@pytest.mark.parametrize("reset_first", [True, False])
def test_data_after_shutdown_is_told_from_data_after_close(reset_first: bool) -> None:
    own = [received("tcp_rcv_state_process")] if reset_first else []
    form = Format(SENT, SENT_NEW.id, SENT_NEW.fields, {"reason": {8: "TCP_ABORT_ON_DATA"}})
    machine = Translator((form, RECEIVED_NEW, STATE_NEW), translator()._names)
    sent = Hit(raw(SENT_NEW, skbaddr=5, skaddr=SK, state=7, reason=8, **BOTH))
    found = machine.events([hit.sample() for hit in (*own, closed(before=4), sent)])
    assert found[-1].orphaned is not reset_first


def test_a_received_reset_waits_for_one_call_only() -> None:
    machine = translator()
    assert machine.events([received("tcp_validate_incoming").sample()]) == []
    (late,) = machine.events([closed().sample()])
    assert late.state_before == "ESTABLISHED"

    assert machine.events([received("tcp_validate_incoming").sample()]) == []
    (never,) = machine.events([])
    assert (never.kind, never.state_before) == (Kind.RESET_RECEIVED, None)

    machine.events([received("tcp_validate_incoming").sample()])
    assert [e.kind for e in machine.flush()] == [Kind.RESET_RECEIVED]
    assert machine.flush() == []


def test_errors_without_a_reset() -> None:
    hits = [
        Hit(raw(ERROR_NEW, error=e, protocol=p, **ends(LOCAL, PEER))) for e, p in ((110, 6), (0, 6), (5, 132))
    ]
    assert events(*hits) == [Event(Kind.ERROR, 1000, LOCAL, PEER, error=110)]


def error(number: int, peer: Endpoint = PEER) -> Hit:
    return Hit(raw(ERROR_NEW, error=number, protocol=6, **ends(LOCAL, peer)))


def test_the_error_of_a_socket_that_was_just_closed_has_its_state_and_cookie() -> None:
    found = events(received("tcp_validate_incoming"), closed(), error(104))
    assert found[-1] == Event(
        Kind.ERROR, 1000, LOCAL, PEER, cookie=42, state="CLOSED", state_before="ESTABLISHED", error=104
    )
    assert events(closed(before=2), error(110))[-1].state_before == "SYN_SENT"
    elsewhere = Endpoint("192.0.2.3", 5000)
    assert events(closed(), error(113, elsewhere)) == [Event(Kind.ERROR, 1000, LOCAL, elsewhere, error=113)]


def test_a_killed_process_keeps_its_name() -> None:
    gone = Hit(raw(EXIT_NEW, comm=b"worker\0junk", pid=9), pid=9)
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH), ("do_exit",), pid=9)
    assert [e.closer for e in events(gone, sent)] == [Process(9, "worker")]
    assert [e.closer for e in events(sent)] == [None]


def test_sockets_of_other_protocols_are_left_alone() -> None:
    data = raw(STATE_NEW, skaddr=SK, oldstate=1, newstate=7, protocol=132, **ends(LOCAL, PEER))
    sent = Hit(raw(SENT_NEW, skaddr=SK, state=7, reason=11, **BOTH))
    assert [e.state_before for e in events(Hit(data), sent)] == [None]


def test_every_cut_record_is_survived() -> None:
    for form in FORMATS:
        whole = raw(form, state=7, newstate=7, error=1)
        for length in range(len(whole)):
            events(Hit(whole[:length]))


@settings(deadline=None)
@given(st.sampled_from(FORMATS), st.binary(max_size=120))
def test_any_record_is_survived(form: Format, data: bytes) -> None:
    events(Hit(form.id.to_bytes(2, "little") + data), Hit(data))
    endpoints(form, data)

# SPDX-License-Identifier: Apache-2.0
"""Bytes of the ring buffer become events: every field in its place, and counts judged as their events are."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.watch.record_fields import EVENT, FIELDS, NAMES, packed
from unit.watch.samples import ENUM_6_18

from holdfast.errors import KernelUnavailable
from holdfast.events import Earlier, Endpoint, Event, Kind, Process, Segment
from holdfast.linux import states
from holdfast.watch.diagnose.endings import error_cause
from holdfast.watch.diagnose.ignored import ignored_cause
from holdfast.watch.diagnose.sent import sent_cause
from holdfast.watch.kernel import wire
from holdfast.watch.kernel.wire import Names, Shape, TallyKey

KEY = TallyKey(netns=1, shape=0, kind=1, state=7, state_before=1, family=4, reason=-1, error=0)


def decoded(record: bytes, names: Names = NAMES) -> Event:
    [only] = wire.decode(record, names)
    return only


def test_every_field_is_read_from_its_place() -> None:
    assert decoded(packed()) == EVENT


def test_every_value_of_the_sample_is_its_own() -> None:
    values = [field.value for field in FIELDS if field.value not in (0, b"")]
    small = [value for value in values if isinstance(value, int) and value < 256]
    large = [value for value in values if value not in small]
    assert len(set(large)) == len(large), "two fields of one value cannot be told apart"


def test_records_come_one_after_the_other() -> None:
    found = list(wire.decode(packed() + packed(cookie=1) + packed(cookie=2), NAMES))
    assert [event.cookie for event in found] == [1 << 40, 1, 2]
    assert list(wire.decode(b"", NAMES)) == []


@pytest.mark.parametrize("cut", [1, 7, len(packed()) - 1])
def test_a_cut_record_is_refused(cut: int) -> None:
    with pytest.raises(struct.error):
        list(wire.decode(packed()[:-cut], NAMES))


@pytest.mark.parametrize("abi", [0, 1, 3, 255])
def test_another_format_is_refused(abi: int) -> None:
    with pytest.raises(KernelUnavailable, match=f"speaks event format {abi}, this program 2"):
        list(wire.decode(packed(abi=abi), NAMES))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1, Kind.RESET_SENT),
        (2, Kind.RESET_RECEIVED),
        (3, Kind.RST_ARRIVED),
        (4, Kind.RST_LEFT),
        (5, Kind.REJECTED),
        (6, Kind.SELF_RESET),
        (7, Kind.ERROR),
    ],
)
def test_kinds(number: int, kind: Kind) -> None:
    assert decoded(packed(key_kind=number)).kind is kind


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        (Shape.LINGER_ZERO, "linger_zero"),
        (Shape.LINGER2_NEGATIVE, "linger2_negative"),
        (Shape.ORPHANED, "orphaned"),
        (Shape.UNACCEPTED, "unaccepted"),
        (Shape.EXITING, "exiting"),
        (Shape.SHUTDOWN, "closing"),
        (Shape.MPTCP, "mptcp"),
        (Shape.USER_TIMEOUT, "user_timeout"),
        (Shape.UNACKED, "unacked"),
        (Shape.ESTABLISHED, "established"),
    ],
)
def test_a_bit_about_the_socket_is_a_fact_and_without_a_socket_it_is_unknown(
    shape: Shape, field: str
) -> None:
    facts = [
        getattr(decoded(packed(key_shape=bits)), field)
        for bits in (Shape.SOCKET, Shape.SOCKET | shape, shape)
    ]
    assert facts == [False, True, None]


@pytest.mark.parametrize("shape", [Shape.OWNED, Shape.UNACCEPTED])
def test_a_socket_locked_by_a_process_or_never_accepted_is_reset_in_that_process(shape: Shape) -> None:
    assert decoded(packed(key_shape=Shape.SOCKET | shape)).in_process is True
    assert decoded(packed(key_shape=Shape.SOCKET)).in_process is False


@pytest.mark.parametrize(
    ("shape", "field", "kind"),
    [
        (Shape.IN_WINDOW, "in_window", 3),
        (Shape.EXACT, "exact", 3),
        (Shape.FORWARDED, "forwarded", 5),
    ],
)
def test_a_bit_about_one_kind_is_unknown_for_the_others(shape: Shape, field: str, kind: int) -> None:
    for number in range(1, 8):
        facts = [getattr(decoded(packed(key_kind=number, key_shape=bits)), field) for bits in (0, shape)]
        assert facts == ([False, True] if number == kind else [None, None]), number


@pytest.mark.parametrize(
    ("shape", "field", "state"), [(Shape.QUEUE_FULL, "queue_full", 10), (Shape.ACKS_US, "acks_us", 2)]
)
def test_a_bit_about_one_state_is_unknown_in_the_others(shape: Shape, field: str, state: int) -> None:
    for number in range(14):
        facts = [getattr(decoded(packed(key_state=number, key_shape=bits)), field) for bits in (0, shape)]
        assert facts == ([False, True] if number == state else [None, None]), number


@pytest.mark.parametrize(
    ("number", "name"), [(15, "TCP_KEEPALIVE_TIMEOUT"), (-1, None), (99, "REASON_99"), (0, "REASON_0")]
)
def test_a_reason_is_named_kept_or_absent_never_guessed(number: int, name: str | None) -> None:
    assert decoded(packed(key_reason=number)).reason == name
    assert decoded(packed(key_reason=number, key_kind=2)).reason is None


@pytest.mark.parametrize("state", [0, 10])
@pytest.mark.parametrize("shape", [0, Shape.SOCKET])
def test_a_listener_and_no_socket_have_no_bytes_clocks_or_numbers(state: int, shape: Shape) -> None:
    if shape and state == 0:
        return
    found = decoded(packed(key_state=state, key_shape=shape))
    assert {
        key: value
        for key, value in dataclasses.asdict(found).items()
        if value is not None
        and key in ("bytes_sent", "bytes_received", "send_ago_ns", "receive_ago_ns", "rcv_nxt", "rcv_wnd",
                    "snd_una", "snd_nxt", "shutdown", "user_timeout_ms", "retransmits", "probes")
    } == {}  # fmt: skip
    assert dataclasses.astuple(found.harm) == (None, None, None)


def test_what_never_was_is_unknown() -> None:
    found = decoded(
        packed(
            opener_pid=0, closer_pid=0, baseline_ttl=0, srtt_us=0, min_rtt_us=wire.NEVER, opened_ns=0,
            established_ns=0, send_ago_ticks=wire.NEVER, receive_ago_ticks=wire.NEVER, segment_version=0,
            earlier_closed_ns=0, key_netns=0, key_state=0, key_state_before=0,
        )
    )  # fmt: skip
    assert found == dataclasses.replace(
        EVENT, opener=None, closer=None, baseline_ttl=None, rtt_us=None, min_rtt_us=None, lifetime_ns=None,
        send_ago_ns=None, receive_ago_ns=None, segment=None, earlier=None, netns=None, state=None,
        state_before=None, user_stack=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("opened", "established", "lifetime"),
    [
        (1_000_000_000, 0, 8_000_000_000),  # dialled, never established
        (0, 2_000_000_000, 7_000_000_000),
        (1_000_000_000, 9_000_000_001, None),  # a clock of the future is no lifetime
    ],
)
def test_lifetime(opened: int, established: int, lifetime: int | None) -> None:
    assert decoded(packed(opened_ns=opened, established_ns=established)).lifetime_ns == lifetime


def test_ipv6_has_no_ip_id_and_a_mapped_address_is_ipv4() -> None:
    found = decoded(packed(segment_version=6, peer=bytes(10) + b"\xff\xff\x0a\x00\x00\x07"))
    assert found.segment is not None and found.segment.ip_id is None
    assert found.peer == Endpoint("10.0.0.7", 51_000)


@pytest.mark.parametrize(
    ("comm", "text"),
    [
        (b"a\x1b[31m\n", "a\x1b[31m\n"),  # hostile, but as it came: whoever shows it must escape it
        (b"\xff\xfeok", "\\xff\\xfeok"),
        ("häst".encode(), "häst"),
        (b"nul\0hidden", "nul"),
        (b"", ""),
    ],
)
def test_a_name_is_kept_as_it_came_up_to_the_first_nul(comm: bytes, text: str) -> None:
    assert decoded(packed(opener_comm=comm)).opener == Process(1001, text, 1002, 1003)


def test_a_payload_longer_than_the_record_keeps_is_cut() -> None:
    found = decoded(packed(segment_payload_bytes=1460, segment_payload=b"x" * 32)).segment
    assert found is not None
    assert (found.payload_bytes, found.payload) == (1460, b"x" * 32)


def test_the_event_of_a_count_has_the_facts_of_its_key_and_no_others() -> None:
    key = KEY._replace(shape=Shape.PROVOKED | Shape.SYN | Shape.ACK | Shape.FIN | Shape.DATA | Shape.EARLIER)
    nowhere = Endpoint("::", 0)
    assert wire.event_of_key(key._replace(state=0, state_before=0, error=110), NAMES) == Event(
        kind=Kind.RESET_SENT, mono_ns=0, local=nowhere, peer=nowhere, netns=1, error=110,
        segment=Segment(0x13, 0, 0, 0, 0, None, 0, False, 1),
        earlier=Earlier(0, bytes_sent=0, bytes_received=0),
    )  # fmt: skip


REASONS = dict(enumerate(ENUM_6_18))
keys = st.builds(
    TallyKey,
    netns=st.integers(0, 2**32 - 1),
    shape=st.integers(0, 2 * max(Shape) - 1),
    kind=st.integers(1, 7),
    state=st.integers(0, 13),
    state_before=st.integers(0, 13),
    family=st.sampled_from([4, 6]),
    reason=st.integers(-1, 30),
    error=st.sampled_from([0, 32, 74, 104, 103, 110, 111, 113]),
)
words = st.integers(0, 2**32 - 1)


@st.composite
def details(draw: st.DrawFn) -> tuple[TallyKey, bytes]:
    """A key, and a record as the kernel writes one with that key: the detail agrees with the shape."""
    key = draw(keys)
    shape = key.shape
    flags = draw(st.sampled_from([0, 0x08, 0x20, 0xC0]))  # PSH, URG, ECN: they decide nothing
    for bit, flag in ((Shape.SYN, 0x02), (Shape.ACK, 0x10), (Shape.FIN, 0x01)):
        flags |= flag if shape & bit else 0
    served, provoked = bool(shape & Shape.EARLIER_SERVED), bool(shape & Shape.PROVOKED)
    record = packed(
        **{f"key_{name}": value for name, value in key._asdict().items()},
        **{f"kernel_stack_{n}": 0 for n in range(14)},  # known to detail only, on kernels without reasons
        segment_version=key.family if provoked else 0,
        segment_flags=flags if provoked else 0,
        segment_payload_bytes=draw(st.integers(1, 1460)) if provoked and shape & Shape.DATA else 0,
        segment_seq=draw(words),
        segment_window=draw(st.integers(0, 65535)),
        earlier_closed_ns=draw(st.integers(1, 2**63)) if shape & Shape.EARLIER else 0,
        earlier_bytes_sent=draw(st.integers(1, 2**40)) if served else 0,
        earlier_bytes_received=draw(st.integers(1, 2**40)),
        unsent_bytes=draw(words),
        shutdown=draw(st.integers(0, 3)),
    )
    return key, record


@given(details())
def test_a_count_is_called_what_its_events_are_called(both: tuple[TallyKey, bytes]) -> None:
    key, record = both
    names = Names(REASONS, 4_000_000)
    counted, told = wire.event_of_key(key, names), decoded(record, names)
    assert (counted.kind, counted.netns, counted.reason) == (told.kind, told.netns, told.reason)
    if told.kind is Kind.RESET_SENT:
        # But for the evidence: how an earlier connection ended only the detail knows.
        of_count, of_event = (sent_cause(one)._replace(evidence=()) for one in (counted, told))
        assert of_count == of_event
    elif told.kind is Kind.RST_ARRIVED:
        assert ignored_cause(counted) == ignored_cause(told)


@given(keys.filter(lambda key: key.error != 110))
def test_a_counted_error_is_called_what_its_events_are_called(key: TallyKey) -> None:
    """All but ETIMEDOUT: whether a window was shut (bytes unsent) only the detail knows."""
    names = Names(REASONS, 4_000_000)
    key = key._replace(kind=7)
    told = decoded(packed(**{f"key_{name}": value for name, value in key._asdict().items()}), names)
    assert error_cause(wire.event_of_key(key, names)) == error_cause(told)


@given(keys)
def test_a_key_comes_back_from_its_bytes(key: TallyKey) -> None:
    assert TallyKey(*wire.TALLY_KEY.unpack(wire.TALLY_KEY.pack(*key))) == key
    assert wire.event_of_key(key, NAMES).state == states.name(key.state)

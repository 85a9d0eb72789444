# SPDX-License-Identifier: Apache-2.0
"""The table of causes keeps its own rules."""

from __future__ import annotations

import re

import pytest

from holdfast.causes import (
    CAUSES,
    IETF_CODES,
    MPTCP_CODES,
    NOISE,
    SLOTS,
    Cause,
    Family,
    Severity,
    at_least,
    cause,
    causes_for_reason,
)

# `enum sk_rst_reason` of Linux 6.18, values 0 to 24, without the prefix.
KERNEL_REASONS = (
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_RFC7323_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ACK_UNSENT_DATA",
    "TCP_FLAGS",
    "TCP_OLD_ACK",
    "TCP_ABORT_ON_DATA",
    "TCP_TIMEWAIT_SOCKET",
    "INVALID_SYN",
    "TCP_ABORT_ON_CLOSE",
    "TCP_ABORT_ON_LINGER",
    "TCP_ABORT_ON_MEMORY",
    "TCP_STATE",
    "TCP_KEEPALIVE_TIMEOUT",
    "TCP_DISCONNECT_WITH_DATA",
    "MPTCP_RST_EUNSPEC",
    "MPTCP_RST_EMPTCP",
    "MPTCP_RST_ERESOURCE",
    "MPTCP_RST_EPROHIBIT",
    "MPTCP_RST_EWQ2BIG",
    "MPTCP_RST_EBADPERF",
    "MPTCP_RST_EMIDDLEBOX",
    "ERROR",
)

# The first words that a remedy may start with: an order, not an observation.
ORDERS = """
Accept Capture Check Clear Close Do Find Fix Handle Ignore Keep Let Look Make Raise Read Remove Report
Retry Run Send Set Start Stop Update Use Wait Watch Widen
"""

# An identifier keeps its meaning for ever; taking one away breaks users' filters and dashboards.
RELEASED = """
closed_port late_segment unknown_connection unexpected_syn_ack data_after_close keepalive_race syn_after_close
linger2_on_ack closed_while_receiving data_after_shutdown closed_with_unread_data exited_with_unread_data
mptcp_fastclose linger2_negative orphan_memory linger_zero connect_af_unspec listener_closed socket_destroyed
fin_wait2_timeout aborted_while_closing keepalive_timeout segment_to_listener duplicate_syn
accept_queue_overflow stale_handshake_answer handshake_timestamp_mismatch bad_handshake_ack mptcp_unspecified
mptcp_protocol_error mptcp_no_resources mptcp_prohibited mptcp_too_much_data mptcp_bad_performance
mptcp_middlebox mptcp_unknown_code unspecified unknown
retransmission_timeout user_timeout connect_timeout zero_window_timeout fastopen_timeout
unreachable_after_retries icmp_refused icmp_error written_after_close tls_record_error orderly_end
peer_aborted peer_had_no_connection peer_closed_then_reset connection_refused path_firewall_reject
local_firewall_reject not_sent_by_tcp injected unrecognised_sender handshake_option_refused
ignored_in_window ignored_out_of_window handshake_abandoned
"""


def each_row() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", CAUSES.values(), ids=CAUSES.keys())


def test_the_identifiers_are_the_released_ones() -> None:
    assert list(CAUSES) == RELEASED.split()


def test_no_row_hides_another() -> None:
    from holdfast import causes

    rows = (*causes._SENT, *causes._ENDINGS, *causes._RECEIVED)
    assert len(rows) == len(CAUSES)
    assert len(NOISE) == 7


@each_row()
def test_identifier_is_snake_case(row: Cause) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", row.id)


@each_row()
def test_sentence_is_one_sentence_with_known_slots(row: Cause) -> None:
    assert set(re.findall(r"\{([^}]*)\}", row.sentence)) <= set(SLOTS)
    assert re.fullmatch(r"[A-Z{][^.]*(?:\d\.\d[^.]*)*\.", row.sentence)
    filled = row.describe("nginx (pid 812)", "192.0.2.7:443", "192.0.2.1:5000", "512 unread bytes")
    assert "{" not in filled and "}" not in filled


@each_row()
def test_remedy_orders_something(row: Cause) -> None:
    assert 1 <= len(row.remedy) <= 2
    for sentence in row.remedy:
        assert sentence.split()[0] in ORDERS.split(), f"not an order: {sentence}"
        assert sentence.endswith(".")


@each_row()
def test_row_says_why_and_why_not_made(row: Cause) -> None:
    assert row.why.endswith(".")
    assert row.not_made is None or row.not_made.endswith(".")


@each_row()
def test_only_resets_sent_have_a_kernel_reason(row: Cause) -> None:
    if row.family is Family.SENT:
        assert row.kernel_reasons or row.not_made
    else:
        assert row.kernel_reasons == ()


@each_row()
def test_standards_exist(row: Cause) -> None:
    assert row.rfc == "" or re.fullmatch(r"RFC \d{4}( \d+(\.\d+)*)?", row.rfc)
    assert row.ietf_code is None or row.ietf_code in IETF_CODES


@each_row()
def test_noise_is_never_alarming(row: Cause) -> None:
    assert not row.noise or row.severity is Severity.INFO


@pytest.mark.parametrize("reason", KERNEL_REASONS)
def test_every_kernel_reason_is_known(reason: str) -> None:
    rows = causes_for_reason(reason)
    assert rows and CAUSES["unknown"] not in rows
    assert causes_for_reason("SK_RST_REASON_" + reason) == rows


def test_no_row_invents_a_kernel_reason() -> None:
    used = {name for row in CAUSES.values() for name in row.kernel_reasons}
    assert used == set(KERNEL_REASONS)


def test_a_reason_of_a_later_kernel_is_unknown() -> None:
    assert causes_for_reason("TCP_MOON_PHASE") == (CAUSES["unknown"],)


def test_the_kernels_lumps_are_listed_in_full() -> None:
    ids = [row.id for row in causes_for_reason("TCP_STATE")]
    assert ids == [
        "linger_zero",
        "connect_af_unspec",
        "listener_closed",
        "socket_destroyed",
        "fin_wait2_timeout",
    ]
    assert [row.id for row in causes_for_reason("INVALID_SYN")] == ["duplicate_syn", "accept_queue_overflow"]


def test_a_wrong_identifier_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="closed_port"):
        cause("close_port")
    with pytest.raises(KeyError, match="zzz"):
        cause("zzz")


def test_lookup_returns_the_row() -> None:
    assert cause("closed_port") is CAUSES["closed_port"]


def test_unseen_slots_are_said_in_words() -> None:
    text = CAUSES["closed_with_unread_data"].describe()
    assert text == (
        "An unknown process closed its connection to an unknown peer without reading everything "
        "and threw away an unknown number of bytes."
    )


def test_a_hostile_name_stays_a_name() -> None:
    name = "{peer}{0.__class__}%s\\1"
    text = CAUSES["closed_with_unread_data"].describe(who=name, peer="192.0.2.7:443", bytes_="{who}")
    assert text == (
        f"{name} closed its connection to 192.0.2.7:443 without reading everything and threw away {{who}}."
    )


def test_severities_are_ordered() -> None:
    order = [Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL]
    for rank, severity in enumerate(order):
        for floor_rank, floor in enumerate(order):
            assert at_least(severity, floor) is (rank >= floor_rank)


def test_noise_classes_are_whole_sentences() -> None:
    for key, row in NOISE.items():
        assert row.id == key
        for sentence in (row.sentence, row.harmless, row.unless):
            assert sentence[0].isupper() and sentence.endswith(".")


def test_code_tables_have_no_holes() -> None:
    assert list(IETF_CODES) == list(range(1, 18))
    assert list(MPTCP_CODES) == list(range(7))

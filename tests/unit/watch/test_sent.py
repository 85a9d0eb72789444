# SPDX-License-Identifier: Apache-2.0
"""Every reason the kernel can give, with every circumstance that splits it, and the same without a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from unit.watch.samples import ACK, EARLIER, ENUM_6_18, FIN, PSH, SYN, segment, sent

from holdfast.causes import CAUSES, Basis, Family, Trigger, causes_for_reason
from holdfast.events import Event, Evidence
from holdfast.watch.diagnose.sent import Verdict, sent_cause
from holdfast.watch.kernel.abilities import UNTOLD_WITHOUT_REASON

SEEN, DEDUCED, UNKNOWN = Basis.OBSERVED, Basis.INFERRED, Basis.NONE
SERVED_IDLE = dataclasses.replace(EARLIER, served=True, was_idle=True)
GONE: dict[str, Any] = {"state": None, "cookie": 0}
TIME_WAIT: dict[str, Any] = {"state": "TIME_WAIT", "cookie": 0}
CLOSE: dict[str, Any] = {"closing": True, "orphaned": False, "in_process": True}


def to(flags: int, data: int = 0) -> dict[str, Any]:
    """The segment that provoked it."""
    return {"segment": segment(flags, data=data)}


#  the kernel's reason          what was seen                                       cause, how it is known
WITH_REASON: list[tuple[str, dict[str, Any], str, Basis]] = [
    # Nobody has such a connection here: the segment tells what it was meant for.
    ("NO_SOCKET", GONE | to(SYN), "closed_port", SEEN),
    ("NO_SOCKET", GONE | to(SYN) | {"earlier": EARLIER}, "closed_port", SEEN),
    ("NO_SOCKET", GONE | to(SYN | ACK), "unexpected_syn_ack", SEEN),
    ("NO_SOCKET", GONE | to(ACK), "unknown_connection", DEDUCED),
    ("NO_SOCKET", GONE | to(ACK | PSH, 9), "unknown_connection", DEDUCED),
    ("NO_SOCKET", GONE | to(FIN | ACK), "unknown_connection", DEDUCED),
    ("NO_SOCKET", GONE | to(ACK) | {"earlier": EARLIER}, "late_segment", DEDUCED),
    ("NO_SOCKET", GONE | to(FIN | ACK) | {"earlier": SERVED_IDLE}, "late_segment", DEDUCED),
    # The connection is over, and a remnant answers.
    ("TCP_TIMEWAIT_SOCKET", TIME_WAIT | to(ACK, 9), "data_after_close", SEEN),
    ("TCP_TIMEWAIT_SOCKET", TIME_WAIT | to(ACK, 9) | {"earlier": EARLIER}, "data_after_close", SEEN),
    ("TCP_TIMEWAIT_SOCKET", TIME_WAIT | to(ACK, 9) | {"earlier": SERVED_IDLE}, "keepalive_race", DEDUCED),
    ("TCP_TIMEWAIT_SOCKET", TIME_WAIT | to(SYN) | {"earlier": SERVED_IDLE}, "syn_after_close", SEEN),
    (
        "TCP_TIMEWAIT_SOCKET",
        TIME_WAIT | to(ACK, 9) | {"earlier": dataclasses.replace(EARLIER, served=True)},
        "data_after_close",
        SEEN,
    ),
    (
        "TCP_TIMEWAIT_SOCKET",
        TIME_WAIT | to(ACK, 9) | {"earlier": dataclasses.replace(EARLIER, was_idle=True)},
        "data_after_close",
        SEEN,
    ),
    # Data for a socket that takes none.
    (
        "TCP_ABORT_ON_DATA",
        to(ACK) | {"orphaned": True, "linger2_negative": True, "state_before": "FIN_WAIT_1"},
        "linger2_on_ack",
        SEEN,
    ),
    (
        "TCP_ABORT_ON_DATA",
        to(ACK, 9) | {"orphaned": True, "linger2_negative": True},
        "closed_while_receiving",
        SEEN,
    ),
    ("TCP_ABORT_ON_DATA", to(ACK, 9) | {"orphaned": True}, "closed_while_receiving", SEEN),
    ("TCP_ABORT_ON_DATA", to(ACK, 9) | {"orphaned": False}, "data_after_shutdown", SEEN),
    (
        "TCP_ABORT_ON_DATA",
        to(ACK) | {"orphaned": False, "linger2_negative": True},
        "data_after_shutdown",
        SEEN,
    ),
    # Closing with bytes unread: by close(), by the end of the process, or a Multipath subflow.
    ("TCP_ABORT_ON_CLOSE", CLOSE, "closed_with_unread_data", SEEN),
    ("TCP_ABORT_ON_CLOSE", CLOSE | {"exiting": True}, "exited_with_unread_data", SEEN),
    ("TCP_ABORT_ON_CLOSE", CLOSE | {"mptcp": True}, "mptcp_fastclose", SEEN),
    ("TCP_ABORT_ON_CLOSE", CLOSE | {"mptcp": True, "exiting": True}, "mptcp_fastclose", SEEN),
    # Six causes share this one.
    ("TCP_STATE", CLOSE | {"linger_zero": True}, "linger_zero", SEEN),
    ("TCP_STATE", CLOSE | {"linger_zero": True, "exiting": True}, "linger_zero", SEEN),
    ("TCP_STATE", {"closing": False, "linger_zero": False}, "connect_af_unspec", SEEN),
    ("TCP_STATE", {"closing": False, "linger_zero": True}, "connect_af_unspec", SEEN),
    ("TCP_STATE", {"unaccepted": True, "closing": False}, "listener_closed", SEEN),
    ("TCP_STATE", {"unaccepted": True, "linger_zero": True, "closing": True}, "listener_closed", SEEN),
    ("TCP_STATE", {"state": "ESTABLISHED"}, "socket_destroyed", SEEN),
    ("TCP_STATE", {"state": "CLOSE_WAIT", "linger_zero": True, "closing": True}, "socket_destroyed", SEEN),
    ("TCP_STATE", {"state": "FIN_WAIT_2", "orphaned": False}, "socket_destroyed", SEEN),
    ("TCP_STATE", {"state": "FIN_WAIT_2", "orphaned": True}, "fin_wait2_timeout", SEEN),
    # A handshake that cannot go on.
    ("INVALID_SYN", {"state": "LISTEN"} | to(SYN), "duplicate_syn", SEEN),
    ("INVALID_SYN", {"state": "LISTEN"} | to(ACK), "accept_queue_overflow", SEEN),
    ("INVALID_SYN", {"state": "LISTEN"} | to(ACK, 9), "accept_queue_overflow", SEEN),
    ("TCP_FLAGS", {"state": "LISTEN"} | to(ACK), "segment_to_listener", SEEN),
    ("TCP_FLAGS", {"state": "LISTEN"} | to(ACK) | {"earlier": EARLIER}, "late_segment", DEDUCED),
    ("TCP_INVALID_ACK_SEQUENCE", {"state": "SYN_SENT"} | to(SYN | ACK), "stale_handshake_answer", SEEN),
    ("TCP_RFC7323_PAWS", {"state": "SYN_SENT"} | to(SYN | ACK), "handshake_timestamp_mismatch", SEEN),
    ("TCP_OLD_ACK", {"state": "SYN_RECEIVED"} | to(ACK), "bad_handshake_ack", SEEN),
    ("TCP_TOO_OLD_ACK", {"state": "SYN_RECEIVED"} | to(ACK), "bad_handshake_ack", SEEN),
    ("TCP_ACK_UNSENT_DATA", {"state": "SYN_RECEIVED"} | to(ACK), "bad_handshake_ack", SEEN),
    # One reason, one cause.
    ("TCP_ABORT_ON_LINGER", {"orphaned": True, "state_before": "FIN_WAIT_2"}, "linger2_negative", SEEN),
    ("TCP_ABORT_ON_MEMORY", {"orphaned": True}, "orphan_memory", SEEN),
    ("TCP_DISCONNECT_WITH_DATA", CLOSE | {"state_before": "LAST_ACK"}, "aborted_while_closing", SEEN),
    ("TCP_KEEPALIVE_TIMEOUT", {"state": "ESTABLISHED"}, "keepalive_timeout", SEEN),
    ("MPTCP_RST_EUNSPEC", {}, "mptcp_unspecified", SEEN),
    ("MPTCP_RST_EMPTCP", to(SYN), "mptcp_protocol_error", SEEN),
    ("MPTCP_RST_ERESOURCE", {}, "mptcp_no_resources", SEEN),
    ("MPTCP_RST_EPROHIBIT", {}, "mptcp_prohibited", SEEN),
    ("MPTCP_RST_EWQ2BIG", {}, "mptcp_too_much_data", SEEN),
    ("MPTCP_RST_EBADPERF", {}, "mptcp_bad_performance", SEEN),
    ("MPTCP_RST_EMIDDLEBOX", {}, "mptcp_middlebox", SEEN),
    ("ERROR", {"mptcp": True}, "mptcp_unknown_code", SEEN),
    ("NOT_SPECIFIED", {"mptcp": True}, "unspecified", SEEN),
    # A kernel newer than we are.
    ("TCP_MOON_PHASE", {}, "unknown", UNKNOWN),
    ("REASON_99", to(ACK), "unknown", UNKNOWN),
]

#  call path                 what was seen                                       cause
ACTIVE_WITHOUT_REASON: list[tuple[str, dict[str, Any], str]] = [
    ("__tcp_close tcp_close", CLOSE, "closed_with_unread_data"),
    ("__tcp_close do_exit", CLOSE | {"exiting": True}, "exited_with_unread_data"),
    ("mptcp_do_fastclose", CLOSE | {"mptcp": True}, "mptcp_fastclose"),
    ("__tcp_close", CLOSE | {"orphaned": True, "state_before": "FIN_WAIT_2"}, "linger2_negative"),
    ("tcp_out_of_resources tcp_write_timer", {"orphaned": True}, "orphan_memory"),
    ("tcp_check_oom __tcp_close", CLOSE | {"orphaned": True}, "orphan_memory"),
    ("tcp_disconnect __tcp_close", CLOSE | {"linger_zero": True}, "linger_zero"),
    ("tcp_disconnect __inet_stream_connect", {"closing": False}, "connect_af_unspec"),
    ("tcp_disconnect inet_child_forget", {"unaccepted": True}, "listener_closed"),
    ("tcp_disconnect __tcp_close", CLOSE | {"state_before": "LAST_ACK"}, "aborted_while_closing"),
    ("tcp_disconnect __tcp_close", CLOSE | {"state_before": "CLOSING"}, "aborted_while_closing"),
    ("tcp_abort inet_diag_cmd", {"state": "ESTABLISHED"}, "socket_destroyed"),
    ("tcp_keepalive_timer", {"state": "ESTABLISHED"}, "keepalive_timeout"),
    ("tcp_keepalive_timer", {"state": "FIN_WAIT_2", "orphaned": True}, "fin_wait2_timeout"),
]

PASSIVE_WITHOUT_REASON: list[tuple[dict[str, Any], str]] = [
    (GONE | to(SYN), "closed_port"),
    (GONE | to(SYN | ACK), "unexpected_syn_ack"),
    (GONE | to(ACK), "unknown_connection"),
    (GONE | to(ACK) | {"earlier": EARLIER}, "late_segment"),
    (TIME_WAIT | to(ACK, 9), "data_after_close"),
    (TIME_WAIT | to(ACK, 9) | {"earlier": SERVED_IDLE}, "keepalive_race"),
    (TIME_WAIT | to(SYN), "syn_after_close"),
    ({"state": "LISTEN"} | to(SYN), "duplicate_syn"),
    ({"state": "LISTEN"} | to(ACK), "segment_to_listener"),
    ({"state": "LISTEN"} | to(ACK) | {"earlier": EARLIER}, "late_segment"),
    ({"state": "LISTEN", "queue_full": False} | to(ACK), "segment_to_listener"),
    ({"state": "LISTEN", "queue_full": True} | to(ACK), "accept_queue_overflow"),
    ({"state": "LISTEN", "queue_full": True} | to(SYN), "duplicate_syn"),
    ({"state": "SYN_SENT"} | to(SYN | ACK), "stale_handshake_answer"),
    ({"state": "SYN_SENT", "acks_us": False} | to(SYN | ACK), "stale_handshake_answer"),
    ({"state": "SYN_SENT", "acks_us": True} | to(SYN | ACK), "handshake_timestamp_mismatch"),
    ({"state": "SYN_RECEIVED"} | to(ACK), "bad_handshake_ack"),
    ({"state": "NEW_SYN_RECV"} | to(ACK), "bad_handshake_ack"),
    ({"state": "CLOSED", "orphaned": True, "linger2_negative": True} | to(ACK), "linger2_on_ack"),
    ({"state": "CLOSED", "orphaned": True} | to(ACK, 9), "closed_while_receiving"),
    ({"state": "CLOSED", "orphaned": False} | to(ACK, 9), "data_after_shutdown"),
]


def numbered(rows: list[Any]) -> list[str]:
    return [f"{n}-{row[0]}-{row[2]}" if len(row) > 2 else f"{n}-{row[1]}" for n, row in enumerate(rows)]


@pytest.mark.parametrize(("reason", "facts", "cause", "basis"), WITH_REASON, ids=numbered(WITH_REASON))
def test_reason(reason: str, facts: dict[str, Any], cause: str, basis: Basis) -> None:
    verdict = sent_cause(sent(reason, **facts))
    passive = "segment" in facts
    assert (verdict.cause, verdict.basis, verdict.trigger) == (
        cause,
        basis,
        Trigger.PASSIVE if passive else Trigger.ACTIVE,
    )
    assert verdict.evidence and all(one.weight > 0 for one in verdict.evidence)


@pytest.mark.parametrize(
    ("path", "facts", "cause"), ACTIVE_WITHOUT_REASON, ids=numbered(ACTIVE_WITHOUT_REASON)
)
@pytest.mark.parametrize("reason", [None, "NOT_SPECIFIED"])
def test_active_without_reason(reason: str | None, path: str, facts: dict[str, Any], cause: str) -> None:
    """Linux before 6.10 gives none; 6.10 and 6.11 call every active reset NOT_SPECIFIED."""
    if reason and facts.get("mptcp"):
        return  # there the kernel means it
    verdict = sent_cause(sent(reason, kernel_stack=("tcp_send_active_reset", *path.split()), **facts))
    assert (verdict.cause, verdict.basis, verdict.trigger) == (cause, DEDUCED, Trigger.ACTIVE)


@pytest.mark.parametrize(("facts", "cause"), PASSIVE_WITHOUT_REASON, ids=numbered(PASSIVE_WITHOUT_REASON))
def test_passive_without_reason(facts: dict[str, Any], cause: str) -> None:
    verdict = sent_cause(sent(None, **facts))
    assert (verdict.cause, verdict.basis, verdict.trigger) == (cause, DEDUCED, Trigger.PASSIVE)


@pytest.mark.parametrize("reason", ["TCP_STATE", None])
def test_a_process_that_ends_did_not_choose_to_abort(reason: str | None) -> None:
    facts = CLOSE | {"linger_zero": True, "kernel_stack": ("__tcp_close", "tcp_disconnect")}
    ended, chosen = (sent_cause(sent(reason, exiting=exiting, **facts)).evidence for exiting in (True, False))
    said = Evidence("the process was exiting: its end closed the socket", 5)
    assert ended == (*chosen, said)


def test_closed_while_receiving_says_whether_the_process_had_ended() -> None:
    facts = to(ACK, 9) | {"orphaned": True}
    told = [sent_cause(sent("TCP_ABORT_ON_DATA", exiting=e, **facts)).evidence[0].fact for e in (False, True)]
    assert told == ["the process had closed the socket", "the process had ended"]


def test_without_reason_path_or_circumstance_nothing_is_claimed() -> None:
    assert sent_cause(sent(None)) == Verdict("unspecified", UNKNOWN, (), Trigger.ACTIVE)


def test_every_reason_of_the_enum_is_in_the_table() -> None:
    known = {reason for reason, *_ in WITH_REASON} - {"TCP_MOON_PHASE", "REASON_99"}
    assert known == set(ENUM_6_18)


def test_every_cause_that_a_reason_can_mean_is_reached_and_no_other() -> None:
    reached: dict[str, set[str]] = {}
    for reason, _, cause, _ in WITH_REASON:
        reached.setdefault(reason, set()).add(cause)
    for reason in ENUM_6_18:
        listed = {cause.id for cause in causes_for_reason(reason)}
        # TCP_FLAGS: a listener also answers for connections that were closed here.
        extra = {"late_segment"} if reason == "TCP_FLAGS" else set()
        assert reached[reason] - extra == listed - extra, reason


def test_every_cause_of_the_sent_family_is_reached() -> None:
    reached = {row[2] for row in WITH_REASON}
    assert reached == {cause.id for cause in CAUSES.values() if cause.family is Family.SENT}


def test_each_class_is_reached_without_a_reason_too() -> None:
    """All but what only the kernel can know: which Multipath error it was, and its own silence."""
    silent = {row[1] for row in PASSIVE_WITHOUT_REASON} | {row[2] for row in ACTIVE_WITHOUT_REASON}
    reached = {row[2] for row in WITH_REASON}
    assert reached - silent == {*UNTOLD_WITHOUT_REASON, "mptcp_unspecified", "unspecified", "unknown"}
    assert set(UNTOLD_WITHOUT_REASON.values()) == {"mptcp_unspecified"}


def test_a_multipath_reset_without_reason_is_not_guessed_at() -> None:
    active = sent(None, mptcp=True, kernel_stack=("tcp_send_active_reset", "mptcp_worker"))
    refused = sent(None, mptcp=True, state="LISTEN", segment=segment(SYN))
    for event in (active, refused):
        verdict = sent_cause(event)
        assert (verdict.cause, verdict.basis) == ("mptcp_unspecified", UNKNOWN)


@pytest.mark.parametrize(
    ("path", "trigger"),
    [
        (("tcp_v4_send_reset", "tcp_v4_rcv"), Trigger.PASSIVE),
        (("tcp_v6_send_reset", "tcp_v6_rcv"), Trigger.PASSIVE),
        (("tcp_send_active_reset", "tcp_v4_send_reset"), Trigger.ACTIVE),
        ((), Trigger.ACTIVE),
    ],
)
def test_where_segments_are_not_seen_the_path_tells_whether_one_was_answered(
    path: tuple[str, ...], trigger: Trigger
) -> None:
    verdict = sent_cause(sent("NO_SOCKET", state=None, kernel_stack=path))
    assert (verdict.cause, verdict.basis, verdict.trigger) == ("unknown_connection", UNKNOWN, trigger)


def test_an_unknown_reason_is_kept_by_name() -> None:
    [evidence] = sent_cause(sent("TCP_MOON_PHASE")).evidence
    assert evidence.fact == "the kernel gives the reason TCP_MOON_PHASE"


@pytest.mark.parametrize("state", [None, "CLOSED", "LISTEN", "TIME_WAIT", "ESTABLISHED", "FIN_WAIT_2"])
@pytest.mark.parametrize("reason", [*ENUM_6_18, None, "REASON_99"])
def test_no_combination_breaks_it(reason: str | None, state: str | None) -> None:
    bare: list[Event] = [sent(reason, state=state), sent(reason, state=state, segment=segment())]
    assert all(sent_cause(event).cause in CAUSES for event in bare)

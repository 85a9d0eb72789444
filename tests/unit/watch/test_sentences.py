# SPDX-License-Identifier: Apache-2.0
"""The sentence of every cause reads well of a captured connection, whichever end it is about."""

from __future__ import annotations

import itertools

import pytest

from holdfast.causes import CAUSES, Basis, Severity
from holdfast.events import Endpoint
from holdfast.watch.diagnose.explained import Explained, Side
from holdfast.watch.diagnose.judge import lost_words

CLIENT, SERVER = Endpoint("192.0.2.10", 50000), Endpoint("2001:db8::80", 443)
SIDES: tuple[Side, ...] = ("client", "server")


def record(cause: str, claimed: Side, sender: str, lost: str | None = None) -> Explained:
    return Explained(
        "capture", 1, 0, CLIENT, SERVER, True, claimed, sender, cause,
        Basis.INFERRED, Severity.INFO, False, "yes", lost,
    )  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_it_is_about_both_ends_and_names_neither_thrice(cause: str) -> None:
    for claimed, sender, lost in itertools.product(SIDES, (*SIDES, "path", "unknown"), (None, 0, 1, 29)):
        said = record(cause, claimed, sender, lost_words(lost)).sentence
        assert said[0].isupper() and said.endswith(".") and "  " not in said
        assert str(CLIENT) in said and str(SERVER) in said
        assert max(said.count(str(CLIENT)), said.count(str(SERVER))) <= 2, said


@pytest.mark.parametrize("cause", CAUSES)
def test_it_speaks_from_no_host_of_its_own(cause: str) -> None:
    said = record(cause, "server", "server").sentence
    assert "this host" not in said.lower() and "{" not in said
    assert f"{SERVER}'s" not in said and f"{CLIENT}'s" not in said  # whose settings: a host's, no port's


@pytest.mark.parametrize("cause", CAUSES)
def test_nobody_must_guess_who_the_peer_is(cause: str) -> None:
    """The table speaks from one host; a capture lies beside both."""
    one = record(cause, "server", "server")
    said = " ".join([one.sentence, one.why, *one.remedy])
    assert "the peer" not in said.lower() and "this side" not in said


@pytest.mark.parametrize(
    ("cause", "claimed", "words"),
    [
        ("peer_aborted", "server", "Look at the server: it closed with unread data"),
        ("peer_aborted", "client", "Look at the client: it closed with unread data"),
        ("closed_while_receiving", "server", "while the client was still sending."),
        ("fin_wait2_timeout", "server", "Fix the client that leaves sockets in CLOSE_WAIT."),
        ("syn_after_close", "server", "reuses a port while the server still waits for its FIN."),
        ("injected", "server", "a forged RST is missing at the server."),
        ("peer_had_no_connection", "server", "keep idle limits shorter on the client than at the server."),
    ],
)
def test_each_end_is_called_by_its_part(cause: str, claimed: Side, words: str) -> None:
    one = record(cause, claimed, claimed)
    assert words in " ".join([one.sentence, one.why, *one.remedy])

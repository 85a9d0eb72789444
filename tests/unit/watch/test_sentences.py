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


def sentence(cause: str, claimed: Side, sender: str, lost: str | None) -> str:
    return Explained(
        "capture", 1, 0, CLIENT, SERVER, True, claimed, sender, cause,
        Basis.INFERRED, Severity.INFO, False, "yes", lost,
    ).sentence  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_it_is_about_both_ends_and_names_neither_thrice(cause: str) -> None:
    for claimed, sender, lost in itertools.product(SIDES, (*SIDES, "path", "unknown"), (None, 0, 1, 29)):
        said = sentence(cause, claimed, sender, lost_words(lost))
        assert said[0].isupper() and said.endswith(".") and "  " not in said
        assert str(CLIENT) in said and str(SERVER) in said
        assert max(said.count(str(CLIENT)), said.count(str(SERVER))) <= 2, said


@pytest.mark.parametrize("cause", CAUSES)
def test_it_speaks_from_no_host_of_its_own(cause: str) -> None:
    said = sentence(cause, "server", "server", None)
    assert "this host" not in said.lower() and "{" not in said
    assert f"{SERVER}'s" not in said and f"{CLIENT}'s" not in said  # whose settings: a host's, no port's

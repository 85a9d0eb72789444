# SPDX-License-Identifier: Apache-2.0
"""A RST that was not obeyed: by the state it met and where it lay in the window."""

from __future__ import annotations

import pytest
from unit.watch.samples import arrived, passive_rst

from holdfast.causes import Basis
from holdfast.watch.diagnose.ignored import ignored_cause

OPEN = ("ESTABLISHED", "SYN_SENT", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK")


@pytest.mark.parametrize(
    ("state", "in_window", "cause"),
    [
        *((state, True, "ignored_in_window") for state in OPEN),
        *((state, False, "ignored_out_of_window") for state in OPEN),
        *((state, None, "ignored_out_of_window") for state in OPEN[:1]),
        *(
            (state, inside, "handshake_abandoned")
            for state in ("LISTEN", "NEW_SYN_RECV", "SYN_RECEIVED")
            for inside in (True, False)
        ),
    ],
)
def test_ignored(state: str, in_window: bool | None, cause: str) -> None:
    verdict = ignored_cause(arrived(passive_rst(), state=state, in_window=in_window))
    assert verdict is not None
    assert (verdict.cause, verdict.basis) == (cause, Basis.INFERRED)
    assert verdict.evidence


@pytest.mark.parametrize(
    ("state", "in_window"),
    [
        ("CLOSED", True),
        ("CLOSED", False),
        ("TIME_WAIT", True),
        ("TIME_WAIT", None),
        (None, False),
        (None, None),
    ],
)
def test_where_nothing_is_left_to_end_nothing_is_told(state: str | None, in_window: bool | None) -> None:
    assert ignored_cause(arrived(passive_rst(), state=state, in_window=in_window)) is None

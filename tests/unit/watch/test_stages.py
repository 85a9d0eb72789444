# SPDX-License-Identifier: Apache-2.0
"""Every signature of the table of SIGCOMM 2023, and nothing where there is none."""

from __future__ import annotations

import pytest
from captured_flows import Seg, flow_of

from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN
from holdfast.watch.diagnose.case import cases
from holdfast.watch.diagnose.stages import SIGNATURES, signature

RST_ACK = RST | ACK
LATER = [Seg(9000, False, ACK, 1, 1)]  # the other end is still there after the silence


def sent(*what: tuple[int, int, int]) -> list[Seg]:
    """Segments of the client: flags, data, acknowledgment; each has its own number: none is a copy."""
    return [Seg(at * 5, True, flags, 100 + at, ack, data) for at, (flags, data, ack) in enumerate(what)]


SYN_, ACK_, PSH_ = (SYN, 0, 0), (ACK, 0, 1), (PSH | ACK, 50, 1)
R, RA = (RST, 0, 0), (RST_ACK, 0, 1)

EXPECTED = [
    ([SYN_], 1),
    ([SYN_, R], 2),
    ([SYN_, R, R], 2),
    ([SYN_, RA], 3),
    ([SYN_, R, RA], 4),
    ([SYN_, ACK_], 5),
    ([SYN_, ACK_, R], 6),
    ([SYN_, ACK_, R, R], 7),
    ([SYN_, ACK_, RA], 8),
    ([SYN_, ACK_, RA, RA], 9),
    ([SYN_, ACK_, PSH_], 10),
    ([SYN_, ACK_, PSH_, R], 11),
    ([SYN_, ACK_, PSH_, RA], 12),
    ([SYN_, ACK_, PSH_, R, RA], 13),
    ([SYN_, ACK_, PSH_, RA, RA], 14),
    ([SYN_, ACK_, PSH_, (RST, 0, 7), (RST, 0, 7)], 15),
    ([SYN_, ACK_, PSH_, (RST, 0, 7), (RST, 0, 8)], 16),
    ([SYN_, ACK_, PSH_, (RST, 0, 7), (RST, 0, 0)], 17),
    ([SYN_, ACK_, PSH_, PSH_, R], 18),
    ([SYN_, ACK_, PSH_, PSH_, RA], 19),
]


@pytest.mark.parametrize(("what", "number"), EXPECTED)
def test_each_signature(what: list[tuple[int, int, int]], number: int) -> None:
    flow = flow_of([*sent(*what), *LATER])
    assert signature(flow, cases(flow), True) == SIGNATURES[number - 1]


def test_every_signature_is_tested() -> None:
    assert {number for _, number in EXPECTED} == set(range(1, len(SIGNATURES) + 1))


@pytest.mark.parametrize(
    "what", [[SYN_, ACK_, ACK_, R], [SYN_, ACK_, (FIN | ACK, 0, 1)], [SYN_, ACK_, R, RA]]
)
def test_other_stages_have_none(what: list[tuple[int, int, int]]) -> None:
    flow = flow_of([*sent(*what), *LATER])
    assert signature(flow, cases(flow), True) is None


def test_a_short_silence_is_none() -> None:
    flow = flow_of([*sent(SYN_), Seg(2000, False, ACK, 1, 1)])
    assert signature(flow, cases(flow), True) is None

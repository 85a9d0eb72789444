# SPDX-License-Identifier: Apache-2.0
"""What a receiver did with a RST: by its number, and by what the receiver did next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from captured_flows import Seg, flow_of

from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN
from holdfast.watch.diagnose.case import cases
from holdfast.watch.diagnose.validity import Place, Validity, validity

C, S = 1_000, 0xFFFFFF00  # the server's numbers wrap on the way
WINDOW = 10_000

HANDSHAKE = [
    Seg(0, True, SYN, C, scale=0),
    Seg(10, False, SYN | ACK, S, C + 1, scale=0),
    Seg(20, True, ACK, C + 1, S + 1, window=WINDOW),
]
TALK = [
    *HANDSHAKE,
    Seg(30, True, PSH | ACK, C + 1, S + 1, 100, window=WINDOW),
    Seg(45, False, PSH | ACK, S + 1, C + 101, 400),
    Seg(46, True, ACK, C + 101, S + 401, window=WINDOW),
]
RST_NEXT = Seg(60, False, RST | ACK, S + 401, C + 101)


def judged(*segments: Seg) -> Validity:
    return validity(cases(flow_of(segments))[0])


def outcome(*segments: Seg) -> tuple[str, Place]:
    found = judged(*segments)
    return found.obeyed, found.place


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0, ("yes", Place.EXACT)),
        (1, ("unknown", Place.IN_WINDOW)),
        (WINDOW - 1, ("unknown", Place.IN_WINDOW)),
        (WINDOW, ("no", Place.OUTSIDE)),
        (-1, ("no", Place.OUTSIDE)),
        (-401, ("no", Place.OUTSIDE)),
        (1 << 30, ("no", Place.OUTSIDE)),
    ],
)
def test_the_place_of_its_number_decides(ahead: int, expected: tuple[str, Place]) -> None:
    assert outcome(*TALK, replace(RST_NEXT, seq=S + 401 + ahead)) == expected


def test_a_challenge_shows_that_it_was_not_obeyed() -> None:
    near = replace(RST_NEXT, seq=S + 501)
    challenge = Seg(60.1, True, ACK, C + 101, S + 401, window=WINDOW)
    found = judged(*TALK, near, challenge)
    assert (found.obeyed, found.place) == ("no", Place.IN_WINDOW)
    assert found.facts[1] == "the receiver answered with a challenge ACK 100 µs later"
    assert found.shown_by is not None and found.shown_by.place == len(TALK) + 1


def test_a_challenge_that_looks_like_a_copy_is_none() -> None:
    """On IPv6 no IP ID tells it from the ACK just before the RST."""
    talk = [*TALK[:-1], replace(TALK[-1], ms=59.5, ip_id=None)]
    challenge = replace(talk[-1], ms=60.1)
    near = replace(RST_NEXT, seq=S + 501, ip_id=None)
    assert outcome(*talk, near, challenge) == ("no", Place.IN_WINDOW)


def test_a_dialler_obeys_only_what_acknowledges_its_syn() -> None:
    syn = HANDSHAKE[0]
    assert outcome(syn, Seg(5, False, RST | ACK, 0, C + 1, window=0)) == ("yes", Place.ANSWERS_SYN)
    assert outcome(syn, Seg(5, False, RST | ACK, 0, C, window=0)) == ("no", Place.MISSES_SYN)
    assert outcome(syn, Seg(5, False, RST, 0, 0, window=0)) == ("no", Place.MISSES_SYN)


def test_what_it_acknowledges_later_shows_that_it_lives() -> None:
    """Even an exact number: somebody changed it on the way to the capture, or the receiver's stack is odd."""
    more = Seg(65, False, PSH | ACK, S + 401, C + 101, 50)
    heard = Seg(66, True, ACK, C + 101, S + 451, window=WINDOW)
    assert outcome(*TALK, RST_NEXT, more, heard) == ("no", Place.EXACT)


def test_what_was_under_way_shows_nothing() -> None:
    """A segment that left before the RST arrived comes within a round trip."""
    request = Seg(61, True, PSH | ACK, C + 101, S + 401, 10, window=WINDOW)
    assert outcome(*TALK, RST_NEXT, request) == ("yes", Place.EXACT)
    assert outcome(*TALK, RST_NEXT, replace(request, ms=160)) == ("no", Place.EXACT)


def test_an_answer_as_from_a_stranger_shows_that_it_was_obeyed() -> None:
    more = Seg(65, False, PSH | ACK, S + 401, C + 101, 50)
    gone = Seg(66, True, RST, C + 101, 0, window=0, options_bytes=0, ip_id=0)
    assert outcome(*TALK, replace(RST_NEXT, seq=S + 402), more, gone) == ("yes", Place.IN_WINDOW)


def test_the_number_of_the_fin_before_it_is_accepted() -> None:
    fin = Seg(50, False, FIN | ACK, S + 401, C + 101)
    seen = Seg(51, True, ACK, C + 101, S + 402, window=WINDOW)
    assert outcome(*TALK, fin, seen, replace(RST_NEXT, seq=S + 401)) == ("yes", Place.AFTER_FIN)


def test_the_edge_of_what_was_sacked_is_accepted() -> None:
    lost = Seg(47, False, PSH | ACK, S + 501, C + 101, 100)
    sack = Seg(48, True, ACK, C + 101, S + 401, window=WINDOW, sack_right=(S + 601) % (1 << 32))
    beyond = Seg(49, False, PSH | ACK, S + 601, C + 101, 100)
    assert outcome(*TALK, lost, sack, beyond, replace(RST_NEXT, seq=S + 601)) == ("yes", Place.SACK_EDGE)


def test_without_the_receivers_side_nothing_is_known() -> None:
    assert outcome(Seg(0, False, RST, 77)) == ("unknown", Place.UNKNOWN)

# SPDX-License-Identifier: Apache-2.0
"""Each sign for another sender, and for each what would make it lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
from captured_flows import Seg, flow_of

from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN, Content
from holdfast.watch.diagnose.case import cases
from holdfast.watch.diagnose.received import INJECTED_SCORE
from holdfast.watch.diagnose.signs import score, signs

C, S = 5_000, 900_000
REMOTE = 52  # the server's TTL at the capture, which is at the client


def client(ms: float, flags: int, seq: int, ack: int, data: int = 0, **more: int) -> Seg:
    return Seg(ms, True, flags, seq, ack, data, ts=(int(ms), int(ms)), ip_id=100 + int(ms), **more)  # type: ignore[arg-type]


def server(ms: float, flags: int, seq: int, ack: int, data: int = 0, **more: int) -> Seg:
    fields = {"ttl": REMOTE, "ip_id": 7000 + int(ms), **more}
    return Seg(ms, False, flags, seq, ack, data, ts=(int(ms), int(ms)), **fields)  # type: ignore[arg-type]


TALK = [
    client(0, SYN, C, 0),
    server(40, SYN | ACK, S, C + 1),
    client(40.1, ACK, C + 1, S + 1),
    client(41, PSH | ACK, C + 1, S + 1, 100, content=Content.HTTP_REQUEST),
    server(81, ACK, S + 1, C + 101),
    server(82, PSH | ACK, S + 1, C + 101, 300),
    client(82.1, ACK, C + 101, S + 301),
    client(90, PSH | ACK, C + 101, S + 301, 100, content=Content.HTTP_REQUEST),
]
OWN = server(132, RST | ACK, S + 301, C + 201)  # the server's own abort, one round trip after the request
ANSWER = Seg(132, False, RST, S + 301, 0, window=0, ttl=REMOTE, ip_id=0, options_bytes=0)


def facts(*segments: Seg) -> dict[str, int]:
    """Each sign of the first RST by its first words, with its weight."""
    return {one.fact: one.weight for one in signs(cases(flow_of(segments))[0])}


def weight(words: str, *segments: Seg) -> int | None:
    """The weight of the sign that has these words, None if there is none."""
    return next((points for fact, points in facts(*segments).items() if words in fact), None)


def points(*segments: Seg) -> int:
    return score(signs(cases(flow_of(segments))[0]))


@pytest.mark.parametrize("rst", [OWN, ANSWER])
def test_an_honest_reset_has_no_sign_against_it(rst: Seg) -> None:
    assert max(facts(*TALK, rst).values()) <= 0


def test_an_answer_comes_at_once() -> None:
    words = "after the last segment that it could answer"
    assert weight(words, *TALK, replace(ANSWER, ms=289)) is None
    assert weight(words, *TALK, replace(ANSWER, ms=1132)) == 2
    assert weight(words, *TALK, replace(OWN, ms=1132)) is None  # an abort answers nothing, and need not


@pytest.mark.parametrize(("ttl", "expected"), [(52, -1), (53, 1), (51, 1), (54, 3), (128, 3)])
def test_the_distance_of_its_sender(ttl: int, expected: int) -> None:
    assert weight("TTL", *TALK, replace(OWN, ttl=ttl)) == expected


def test_a_distance_that_varies_by_itself_says_little() -> None:
    detour = [replace(one, ttl=49) if one is TALK[1] else one for one in TALK]
    assert weight("TTL", *detour, replace(OWN, ttl=60)) == 1
    assert weight("TTL", *detour, replace(OWN, ttl=50)) == 0


def test_a_copy_one_hop_further_is_no_other_distance() -> None:
    copies = (replace(OWN, ms=132.0001, ttl=REMOTE - 1), OWN)
    assert weight("TTL", *TALK, *copies) == -1


def test_a_counter_that_jumps() -> None:
    assert weight("IP ID", *TALK, replace(OWN, ip_id=40_000)) == 2
    assert weight("IP ID", *TALK, replace(OWN, ip_id=7_140)) == -1
    assert weight("IP ID", *TALK, replace(OWN, ip_id=0)) is None


def test_a_segment_turned_around_on_the_way() -> None:
    assert weight("turned around", *TALK, replace(OWN, ip_id=TALK[-1].ip_id)) == 3
    assert weight("window 777", *TALK, replace(OWN, window=777)) is None
    mirrored = [*TALK[:-1], replace(TALK[-1], window=777)]
    assert weight("window 777", *mirrored, replace(OWN, window=777)) == 2


def test_who_goes_on_did_not_reset() -> None:
    more = server(150, PSH | ACK, S + 301, C + 201, 50)
    assert weight("new data", *TALK, OWN, more) == 4
    assert weight("a segment", *TALK, OWN, replace(more, data=0, flags=ACK)) == 4


def test_data_that_the_reset_overtook_is_no_new_data() -> None:
    """The network changed their places: the data's own clock, or its number, says that it is older."""
    overtaken = server(131, PSH | ACK, S + 301, C + 201, 50)
    rst = replace(OWN, seq=S + 351)
    assert weight("came from there", *TALK, rst, replace(overtaken, ms=133)) is None


def test_a_new_connection_is_not_the_old_one_going_on() -> None:
    syn = client(140, SYN, C + 90_000, 0)
    again = server(180, SYN | ACK, S + 77, C + 90_001)
    assert (
        weight("came from there", *TALK, OWN, syn, again, server(181, PSH | ACK, S + 78, C + 90_002, 9))
        is None
    )


def test_two_answers_to_one_syn() -> None:
    forged = Seg(5, False, RST | ACK, 0, C + 1, window=0, ttl=REMOTE, ip_id=0, options_bytes=0)
    assert weight("two answers", TALK[0], forged, TALK[1]) == 4
    assert weight("two answers", TALK[0], forged, client(20, SYN, C, 0), replace(TALK[1], ms=60)) is None


def test_a_number_that_was_passed_long_ago() -> None:
    assert weight("behind", *TALK, replace(ANSWER, seq=S + 150)) == 2
    assert weight("behind", *TALK, replace(ANSWER, seq=S + 1)) is None  # an acknowledgment of the client's
    assert weight("behind", *TALK, replace(ANSWER, seq=S + 300)) is None  # as a keep-alive has it


def test_a_number_that_was_never_reached() -> None:
    assert weight("ahead of all", *TALK, replace(ANSWER, seq=S + 400)) == 3


def test_growing_numbers() -> None:
    second = replace(ANSWER, ms=132.5, seq=S + 301 + 1460)
    assert weight("growing numbers", *TALK, ANSWER, second) == 4
    late = replace(second, ms=5000)
    assert weight("growing numbers", *TALK, ANSWER, late) is None
    heard = client(132.2, ACK, C + 201, S + 301 + 1460)
    assert weight("growing numbers", *TALK, ANSWER, heard, second) is None


def test_numbers_that_come_down_from_beyond() -> None:
    high = replace(ANSWER, ms=131, seq=S + 301 + 2920)
    assert weight("different numbers", *TALK, high, ANSWER) == 4


def test_acknowledgments_of_what_was_never_sent() -> None:
    first = replace(OWN, ack=C + 50_000)
    assert weight("none that was ever sent", *TALK, first, replace(OWN, ms=133, ack=C + 60_000)) == 3
    assert weight("none that was ever sent", *TALK, first, replace(OWN, ms=133, ack=C + 201)) is None


def test_both_ends_at_once() -> None:
    back = Seg(133, True, RST | ACK, C + 201, S + 301, ttl=50)
    assert weight("both ends", *TALK, OWN, back) == 3
    assert weight("both ends", *TALK, OWN, replace(back, ms=140)) is None


def test_an_answer_that_came_too_early() -> None:
    assert weight("away and back", *TALK, replace(OWN, ms=92)) == 3
    assert weight("one round trip", *TALK, OWN) == -1
    old = replace(ANSWER, ms=92)  # its number was known before: no answer to this segment in particular
    assert weight("away and back", *TALK, old) is None


def test_losses_of_the_capture_make_doubtful_what_it_lacks() -> None:
    unseen = client(100, ACK, C + 201, S + 901)
    second = replace(ANSWER, ms=132.5, seq=S + 301 + 1460)
    assert (
        weight("growing numbers", *TALK, unseen, replace(ANSWER, seq=S + 901), replace(second, seq=S + 2361))
        == 2
    )


def test_no_sign_alone_suffices() -> None:
    alone = [
        (replace(OWN, ttl=128),),
        (replace(OWN, ip_id=40_000),),
        (OWN, server(150, PSH | ACK, S + 301, C + 201, 50)),
        (replace(ANSWER, seq=S + 150),),
        (ANSWER, replace(ANSWER, ms=132.5, seq=S + 301 + 1460)),
        (replace(OWN, ms=92),),
        (OWN, Seg(133, True, RST | ACK, C + 201, S + 301)),
    ]
    assert [points(*TALK, *rsts) >= INJECTED_SCORE for rsts in alone] == [False] * len(alone)


def test_two_signs_suffice() -> None:
    forged = replace(ANSWER, ttl=128)
    assert points(*TALK, forged, server(150, PSH | ACK, S + 301, C + 201, 50)) >= INJECTED_SCORE


def test_a_goodbye_before_makes_growing_numbers_harmless() -> None:
    fin = server(100, FIN | ACK, S + 301, C + 201)
    pair = (replace(ANSWER, seq=S + 302), replace(ANSWER, ms=133, seq=S + 1762))
    assert weight("growing numbers", *TALK, fin, *pair) is None

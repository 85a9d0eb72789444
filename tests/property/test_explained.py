# SPDX-License-Identifier: Apache-2.0
"""However a capture is disturbed, nobody is accused who was not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from captured_flows import Seg, flow_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.cli import explained as explained_text
from holdfast.events import Endpoint
from holdfast.lab.capture_file import pcap
from holdfast.lab.segment import build
from holdfast.lab.traffic import KINDS, Connection, Harshness, connections, disturbed
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.judge import judge
from holdfast.watch.diagnose.summary import SENDERS
from holdfast.watch.explain import Explaining
from holdfast.watch.report.diagram import sequence
from holdfast.watch.report.markup import html

BY_ENDS = tuple(
    name
    for name in KINDS
    if name not in {"firewall", "ladder", "spoofed", "two_answers", "both_ways", "blind"}
)
"""Kinds in which nobody but the two ends had a hand."""

HONEST = {"peer_aborted", "unrecognised_sender", "late_segment"}

share = st.floats(0, 0.3)
harshness = st.builds(Harshness, lost=share, swapped=share, copied=share, detoured=share)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def explained(path: Path, made: Sequence[Connection], harsh: Harshness, seed: int) -> list[Explained]:
    """What is said of these connections by a capture that is so harsh."""
    chance = Random(seed)
    rows = [
        (one.time_ns, build(one.segment)) for each in made for one in disturbed(each.segments, harsh, chance)
    ]
    rows.sort(key=lambda row: row[0])
    path.write_bytes(pcap(rows))
    return Explaining([[str(path)]]).run().found


@quick
@given(harshness, st.integers(0, 1 << 30))
def test_no_capture_makes_an_injector_of_an_honest_end(tmp_path: Path, harsh: Harshness, seed: int) -> None:
    made = list(connections(seed, 2, BY_ENDS))
    accused = [one for one in explained(tmp_path / "x.pcap", made, harsh, seed) if one.cause == "injected"]
    assert accused == []


@quick
@given(st.integers(0, 1 << 30))
def test_connections_that_only_say_goodbye_are_not_told_of(tmp_path: Path, seed: int) -> None:
    made = list(connections(seed, 5, ("closed",)))
    assert explained(tmp_path / "x.pcap", made, Harshness(0.1, 0.1, 0.1, 0.1), seed) == []


@quick
@given(st.integers(0, 1 << 30), st.booleans())
def test_a_port_used_again_accuses_nobody(tmp_path: Path, seed: int, lost_syn: bool) -> None:
    """The same addresses and ports, right after a reset; the capture may even have missed the new SYN."""
    first, second = connections(seed, 1, ("aborted", "aborted"))
    ends = {second.client: first.client, second.server: first.server}
    later_ns = first.segments[-1].time_ns + 1_000_000 - second.segments[0].time_ns
    again = [
        one._replace(time_ns=one.time_ns + later_ns, segment=moved(one.segment, ends))
        for one in second.segments
    ]
    both = Connection(
        "reused", "server", (), first.client, first.server, (*first.segments, *again[lost_syn:])
    )
    found = explained(tmp_path / "x.pcap", [both], Harshness(), seed)
    assert {one.cause for one in found} <= {*HONEST, "ignored_in_window", "ignored_out_of_window"}
    assert {one.sender for one in found} <= {"server", "unknown"}


def moved(segment: object, ends: dict[Endpoint, Endpoint]) -> object:
    import dataclasses

    return dataclasses.replace(segment, src=ends[segment.src], dst=ends[segment.dst])  # type: ignore[attr-defined, type-var]


@pytest.mark.slow
@pytest.mark.parametrize(
    "harsh", [Harshness(), *(Harshness(lost=s, swapped=s, copied=s) for s in (0.01, 0.05))], ids=str
)
def test_recall_is_what_the_documentation_says(tmp_path: Path, harsh: Harshness) -> None:
    """Of each kind at least nine of ten senders are named, and no honest end is called an injector."""
    made = {(one.client, one.server): one for one in connections(1, 50)}
    found = {
        (one.client, one.server): one for one in explained(tmp_path / "x.pcap", list(made.values()), harsh, 8)
    }
    found |= {(ends[1], ends[0]): one for ends, one in list(found.items())}
    for kind in KINDS:
        ends = [key for key, one in made.items() if one.kind == kind and one.sender is not None]
        right = sum(key in found and found[key].sender == made[key].sender for key in ends)
        assert right >= (0.65 if harsh.lost >= 0.05 else 0.9) * len(ends), kind
    honest = [one for key, one in found.items() if key in made and made[key].sender != "path"]
    assert [one for one in honest if one.cause == "injected"] == []


number = st.one_of(st.integers(0, (1 << 32) - 1), st.integers(0, 40))
any_segment = st.builds(
    Seg,
    ms=st.floats(-50, 20_000),
    client=st.booleans(),
    flags=st.integers(0, 511),
    seq=number,
    ack=number,
    data=st.sampled_from((0, 1, 30, 1448, 65_000)),
    window=st.integers(0, 65_535),
    ttl=st.integers(0, 255),
    ip_id=st.one_of(st.none(), st.integers(0, 65_535)),
    options_bytes=st.integers(0, 40),
    ts=st.one_of(st.none(), st.tuples(number, number)),
    content=st.integers(0, 7),
    payload=st.binary(max_size=64),
    mptcp_reason=st.one_of(st.none(), st.integers(0, 255)),
    sack_right=st.one_of(st.none(), number),
)


@given(st.lists(any_segment, min_size=1, max_size=40))
def test_whatever_is_captured_is_told_in_every_face(segments: list[Seg]) -> None:
    """Hostile segments: nothing raises, and every word can be written, wherever it goes."""
    flow = flow_of(segments)
    one = judge(flow, ["x"])
    if one is None:
        assert not flow.rsts
        return
    record = one.explained
    json.dumps(record.as_json())
    assert record.obeyed in ("yes", "no", "unknown") and record.sender in SENDERS
    assert isinstance(explained_text.block(record).plain, str)
    assert len(list(explained_text.table([record]))) == 2
    assert html(sequence(record)).encode()

# SPDX-License-Identifier: Apache-2.0
"""The committed captures of the lab are explained as well as each place can know, and never wrongly."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from lab_known import KNOWN, agrees

from holdfast.watch.capture import read_captures
from holdfast.watch.diagnose.judge import judge, judge_all
from holdfast.watch.explain import Explaining

FOLDER = Path(__file__).resolve().parents[2] / "captures/lab"
LABELS: dict[str, dict[str, str]] = json.loads((FOLDER / "labels.json").read_text())
CAPTURES = sorted(FOLDER.glob("*.pcap"))

# The RST of the label never passes this place; the one that does is the client's honest answer to what the
# server says next.
ANOTHER_RST = {("injected", "server"), ("injected_ladder", "server")}


def parts(capture: Path) -> tuple[str, str]:
    scenario, place, _ = capture.name.split(".")
    return scenario, place


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.stem)
def test_each_place_says_what_it_can_know(capture: Path) -> None:
    scenario, place = parts(capture)
    found = Explaining([[str(capture)]]).run().found
    assert agrees(KNOWN[scenario].at(place), found), [(one.cause, one.sender) for one in found]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.stem)
def test_the_sender_is_right_or_unverifiable(capture: Path) -> None:
    for one in Explaining([[str(capture)]]).run().found:
        if parts(capture) not in ANOTHER_RST:
            assert one.sender in (LABELS[parts(capture)[0]]["sender"], "unknown")


def merged(captures: Iterable[Path]) -> bytes:
    """One file with the packets of several, in the order of time, as mergecap makes it."""
    head, records = b"", []
    for capture in captures:
        data = capture.read_bytes()
        head, at = data[:24], 24
        while at < len(data):
            seconds, ns, size, _ = struct.unpack_from("<4I", data, at)
            records.append((seconds, ns, data[at : at + 16 + size]))
            at += 16 + size
    return head + b"".join(record for _, _, record in sorted(records, key=lambda one: one[:2]))


@pytest.mark.parametrize("places", [("client", "server"), ("client", "router"), ("router", "server")])
def test_places_that_were_merged_into_one_file_accuse_nobody_wrongly(
    places: tuple[str, str], tmp_path: Path
) -> None:
    wrong = []
    for scenario, label in LABELS.items():
        captures = [FOLDER / f"{scenario}.{place}.pcap" for place in places]
        (tmp_path / "merged.pcap").write_bytes(merged(one for one in captures if one.exists()))
        found = Explaining([[str(tmp_path / "merged.pcap")]]).run().found
        wrong += [scenario for one in found if one.sender not in (label["sender"], "unknown")]
    assert wrong == []


def test_every_scenario_has_a_row_and_a_capture() -> None:
    assert {parts(capture)[0] for capture in CAPTURES} == set(LABELS) == set(KNOWN)


@pytest.mark.parametrize("scenario", ["injected", "path_firewall_reject", "ignored_in_window"])
def test_a_capture_at_the_server_proves_that_it_never_sent_the_reset(scenario: str) -> None:
    places = [[str(FOLDER / f"{scenario}.{place}.pcap")] for place in ("client", "server")]
    first = Explaining(places).run().found[0]
    assert (first.cause, first.sender) == (scenario, "path")
    assert first.evidence[0].weight == 10 and "never sent" in first.evidence[0].fact


def test_a_capture_at_the_server_proves_that_it_refused() -> None:
    places = [[str(FOLDER / f"closed_port.{place}.pcap")] for place in ("client", "server")]
    (only,) = Explaining(places).run().found
    assert (only.cause, only.sender, only.evidence[0].weight) == ("connection_refused", "server", -10)


def test_a_capture_at_the_client_tells_what_the_server_could_not_see() -> None:
    places = [[str(FOLDER / f"injected.{place}.pcap")] for place in ("server", "client")]
    (only,) = Explaining(places).run().found
    assert (only.cause, only.sender, only.claimed) == ("injected", "path", "server")


def test_judging_many_at_once_says_the_same_as_one_by_one() -> None:
    flows = [flow for capture in CAPTURES for flow in read_captures([str(capture)])]
    one_by_one = [judge(flow, ["x"]) for flow in flows]
    assert judge_all(flows, ["x"]) == one_by_one
    icmp = [at for at, one in enumerate(one_by_one) if one is None or one.explained.resets == 0]
    assert icmp and len(icmp) < icmp[-1]  # they lie between the others, and take none of their answers


def test_batches_are_all_the_flows() -> None:
    for capture in CAPTURES:
        alone = set(read_captures([str(capture)]))
        for least in (1, 1000):
            batches = list(read_captures([str(capture)]).batches(least))
            assert {flow for some in batches for flow in some} == alone
            assert least == 1 or len(batches) <= 1

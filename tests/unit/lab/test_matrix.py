"""What was made against what was explained."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from typing import Any

import pytest
from unit.watch.samples import received, sent

from holdfast.causes import Basis, Direction, Ending, Severity
from holdfast.events import Endpoint, Harm, Process, Reset
from holdfast.lab import SCENARIOS
from holdfast.lab.label import Label, Pair
from holdfast.lab.matrix import SILENT, Pairing, Records, observe
from holdfast.lab.runner import Made, OnMade
from holdfast.lab.scenario import Scenario

SERVER, CLIENT = Endpoint("10.64.1.2", 80), Endpoint("10.64.0.2", 5000)
ENDS: Pair = (SERVER, CLIENT)
WAIT_S = 10.0


def made(cause: str = "linger_zero", *, pairs: tuple[Pair, ...] = (ENDS,), **differs: Any) -> Made:
    """A scenario that ran: its server, pid 812 in namespace 40, reset these connections."""
    fields: dict[str, Any] = {"sender": "local", "direction": Direction.SENT, "owner_pid": 812, "netns": 40}
    label = Label(cause, pairs=pairs, **fields | differs)
    return Made(SCENARIOS[cause], 4, label, 0, 1, {"server": 40}, {}, {})


def reset(**differs: Any) -> Reset:
    """The record that explains :func:`made`."""
    fields: dict[str, Any] = {
        "id": "1",
        "host": "",
        "time": "",
        "ending": Ending.RESET,
        "direction": Direction.SENT,
        "cause": "linger_zero",
        "basis": Basis.OBSERVED,
        "severity": Severity.WARNING,
        "noise": False,
        "local": SERVER,
        "peer": CLIENT,
        "sender": "local",
        "owner": Process(812, "lab-server"),
        "netns": 40,
    }
    return Reset(**fields | differs)


@pytest.mark.parametrize(
    ("record", "differences"),
    [
        (reset(), {}),
        (reset(cause="closed_port"), {"cause": ("linger_zero", "closed_port")}),
        (reset(sender="path"), {"sender": ("local", "path")}),
        (reset(owner=Process(813, "lab-server")), {"owner_pid": (812, 813)}),
        (reset(owner=None), {"owner_pid": (812, None)}),
        (None, {"record": ("linger_zero", None)}),
    ],
)
def test_what_differs_is_named(record: Reset | None, differences: dict[str, object]) -> None:
    pairing = Pairing(made(), record)
    assert (pairing.differences(), pairing.explained) == (differences, not differences)


@pytest.mark.parametrize(
    ("record", "incomplete"),
    [
        (reset(owner=None), True),
        (reset(owner=None, sender="unknown"), True),
        (reset(), False),
        (reset(owner=None, cause="closed_port"), False),
        (reset(owner=Process(813, "lab-server")), False),
        (None, False),
    ],
)
def test_what_is_left_open_is_not_wrong(record: Reset | None, incomplete: bool) -> None:
    assert Pairing(made(), record).incomplete is incomplete


@pytest.mark.parametrize(
    ("harm", "differences"),
    [
        (Harm(29, 0, 7), {}),
        (Harm(28, 0, 0), {"unread_bytes": (29, 28)}),
        (Harm(29, 1, 0), {"unsent_bytes": (0, 1)}),
        (Harm(), {"unread_bytes": (29, None), "unsent_bytes": (0, None)}),
    ],
)
def test_bytes_that_the_label_knows_are_compared(harm: Harm, differences: dict[str, object]) -> None:
    pairing = Pairing(made(harm=Harm(29, 0, None)), reset(harm=harm))
    assert (pairing.differences(), pairing.explained) == (differences, not differences)
    assert pairing.incomplete is (harm == Harm())


def test_an_owner_is_wrong_where_nobody_owned_it() -> None:
    assert Pairing(made(owner_pid=None), reset()).differences() == {"owner_pid": (None, 812)}


def test_of_an_orderly_end_nothing_may_be_told() -> None:
    silent = made(SILENT)
    assert Pairing(silent, None).explained
    assert Pairing(silent, reset()).differences() == {"record": (None, "linger_zero")}


@pytest.mark.parametrize(
    ("cause", "said", "reason", "untold"),
    [
        ("mptcp_prohibited", "mptcp_unspecified", None, True),
        ("mptcp_prohibited", "mptcp_unspecified", "MPTCP_RST_EPROHIBIT", False),
        ("mptcp_prohibited", "unknown", None, False),
        ("linger_zero", "mptcp_unspecified", None, False),
    ],
)
def test_only_a_missing_reason_excuses_a_cause(
    cause: str, said: str, reason: str | None, untold: bool
) -> None:
    assert Pairing(made(cause), reset(cause=said, kernel_reason=reason)).untold is untold


def test_json_has_the_documented_keys() -> None:
    told = Pairing(made(), reset()).as_json()
    assert told == {
        "scenario": "linger_zero",
        "family": 4,
        "label": {"cause": "linger_zero", "sender": "local", "owner_pid": 812},
        "explained": True,
        "reset": reset().as_json(),
    }
    assert Pairing(made(), None).as_json()["reset"] is None


def explained_by(records: Records, one: Made, timeout_s: float = 0.0) -> list[str | None]:
    return [
        pairing.reset.id if pairing.reset is not None else None for pairing in records.pair(one, timeout_s)
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"netns": 41},
        {"netns": None},
        {"local": CLIENT, "peer": SERVER},
        {"peer": Endpoint("10.64.0.2", 5001)},
    ],
)
def test_a_record_of_another_connection_explains_nothing(other: dict[str, Any]) -> None:
    records = Records()
    records.add(reset(**other))
    assert explained_by(records, made()) == [None]


@pytest.mark.parametrize("peer", [CLIENT, Endpoint("0.0.0.0", 0)])
def test_without_namespaces_addresses_tell_connections_apart(peer: Endpoint) -> None:
    records = Records(namespaces=False)
    records.add(reset(netns=None, peer=peer))
    records.add(reset(id="2", netns=None, local=CLIENT))
    assert explained_by(records, made()) == ["1"]


def test_of_several_records_the_right_one_is_taken() -> None:
    records = Records()
    records.add(reset(id="other way", direction=Direction.RECEIVED))
    assert explained_by(records, made()) == ["other way"]
    records.add(reset(id="same way", cause="closed_port"))
    assert explained_by(records, made()) == ["same way"]
    records.add(reset(id="right"))
    assert explained_by(records, made()) == ["right"]


def test_each_connection_has_its_pairing_in_order() -> None:
    second = Endpoint("10.64.0.2", 5001)
    records = Records()
    records.add(reset(id="b", peer=second))
    assert explained_by(records, made(pairs=(ENDS, (SERVER, second)))) == [None, "b"]


def test_a_record_that_comes_later_is_waited_for() -> None:
    records = Records()
    later = threading.Timer(0.05, records.add, [reset(id="late")])
    later.start()
    assert explained_by(records, made(), WAIT_S) == ["late"]
    later.join()


SECOND = Endpoint("10.64.0.2", 5001)


@pytest.mark.parametrize(
    ("event", "hidden"),
    [
        ({}, False),
        ({"local": CLIENT, "peer": SERVER}, False),
        ({"netns": 50}, True),  # the RST arrives, and nothing tells who sent it
        ({"peer": SECOND}, True),
        ({"peer": Endpoint("10.64.0.2", 5002)}, True),
    ],
)
def test_what_no_event_tells_of_where_it_should_is_hidden(event: dict[str, Any], hidden: bool) -> None:
    records = Records()
    fields: dict[str, Any] = {"local": SERVER, "peer": CLIENT, "netns": 40}
    records.tap([sent("TCP_ABORT_ON_CLOSE", **fields | event)])
    both = made(pairs=(ENDS, (SERVER, SECOND)))
    assert records.hidden([Pairing(both, None), Pairing(both, reset(peer=SECOND))]) is hidden


def test_nothing_is_hidden_where_no_record_lacks() -> None:
    silent = made("orderly_end")
    assert not Records().hidden([Pairing(made(), reset())])
    assert not Records().hidden([Pairing(silent, None)])


@pytest.mark.parametrize(
    ("shown", "namespaces", "times"),
    [
        (["nothing", "record"], True, 2),
        (["nothing", "nothing", "record"], True, 3),
        (["nothing", "nothing", "nothing", "record"], True, 3),
        (["event", "record"], True, 1),
        (["record"], True, 1),
        (["nothing", "record"], False, 1),
    ],
)
def test_only_what_the_kernel_showed_nothing_of_is_made_again(
    monkeypatch: pytest.MonkeyPatch, shown: list[str], namespaces: bool, times: int
) -> None:
    records = Records(namespaces)
    turns = iter(shown)
    unseen: list[Made] = []

    def make(chosen: Scenario, family: int, count: int, on_made: OnMade) -> Made:
        one, turn = made(), next(turns)
        if turn == "event":
            records.tap([sent("TCP_ABORT_ON_CLOSE", local=SERVER, peer=CLIENT, netns=40)])
        if turn == "record":
            records.add(reset())
        on_made(one)
        return one

    monkeypatch.setattr("holdfast.lab.matrix.make", make)
    (pairing,) = observe(SCENARIOS["linger_zero"], 4, 1, records, unseen.append, 0.0)
    assert (len(shown) - len(list(turns)), len(unseen)) == (times, times - 1)
    assert pairing.explained is (shown[times - 1] == "record")


@pytest.mark.parametrize("namespaces", [True, False])
def test_one_end_alone_is_judged_from_its_own_namespaces_events(namespaces: bool) -> None:
    """As if the peer were on another machine: what the peer's namespace saw must not help."""
    victim = received(None, local=CLIENT, peer=SERVER, netns=50 if namespaces else None, cookie=9)
    sender = sent("TCP_ABORT_ON_CLOSE", local=SERVER, peer=CLIENT, netns=40 if namespaces else None, cookie=8)
    one = made("peer_aborted", pairs=((CLIENT, SERVER),), direction=Direction.RECEIVED, netns=50, alone=True)
    records = Records(namespaces)
    records.tap([sender, victim])
    (pairing,) = records.pair(one, 0.0)
    assert pairing.reset is not None
    assert (pairing.reset.cause, pairing.reset.basis) == ("peer_aborted", Basis.NONE)

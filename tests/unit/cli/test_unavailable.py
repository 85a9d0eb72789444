"""What one scenario lacks stops that one; what every scenario lacks is said once."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import click
import pytest
from click.testing import CliRunner

from holdfast.causes import Direction
from holdfast.cli import demo, lab, main, render
from holdfast.errors import KernelUnavailable
from holdfast.events import Endpoint, Event
from holdfast.lab import SCENARIOS, Label, Made, NoNetwork, Scenario
from holdfast.lab.matrix import SILENT
from holdfast.lab.runner import OnMade
from holdfast.watch import doctor

CHOSEN = [one for one in SCENARIOS.values() if not one.vm_only]


def fail_with(error: KernelUnavailable) -> Callable[..., None]:
    def make(*_: object) -> None:
        raise error

    return make


class Quiet:
    """A source in which nothing happens."""

    name = "quiet"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def drain(self) -> list[Event]:
        return []

    def lost(self) -> int:
        return 0

    def close(self) -> None:
        pass


@pytest.fixture
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The demo on a machine where this step is the best, and where orderly_end is all that can be made."""
    number: int = request.param
    steps = tuple(
        doctor.Step(n, name, "All.", n >= number, "Not there." if n < number else "")
        for n, name in ((1, "BPF"), (2, "tracepoints"), (3, "no rights"))
    )
    report = doctor.Report("6.18", "x86_64", number, steps, (), (), (), (), ())
    monkeypatch.setattr(doctor, "collect", doctor.Facts)
    monkeypatch.setattr(doctor, "assess", lambda facts: report)
    monkeypatch.setattr(demo, "KernelSource", Quiet if number == 1 else None)
    monkeypatch.setattr(demo, "TracepointSource", Quiet if number == 2 else None)
    monkeypatch.setattr(demo, "SCENARIOS", {SILENT: SCENARIOS[SILENT]})
    label = Label(SILENT, "peer", Direction.RECEIVED, 1, 1, ((Endpoint("a", 1), Endpoint("b", 2)),))

    def make(one: Scenario, family: int, count: int, on_made: OnMade | None = None) -> Made:
        made = Made(one, family, label, 0, 0, {}, {}, {})
        if on_made is not None:
            on_made(made)
        return made

    monkeypatch.setattr(demo, "make", make)
    return number


@pytest.mark.parametrize(
    ("step", "last"),
    [
        (1, "Made 1, explained 1, unexplained 0. Events lost: 0."),
        (2, "So Holdfast cannot tell what was lost, every owner, and who forged what."),
        (3, "So Holdfast cannot tell who, why, what was lost and what to do."),
    ],
    indirect=["step"],
)
def test_the_demo_explains_with_the_step_that_works(step: int, last: str) -> None:
    done = CliRunner().invoke(main, ["demo"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, last)
    assert ("Made 1, explained 1, in part 0, not told 0. Events lost: 0.\n" in done.stdout) is (step == 2)


@pytest.mark.parametrize("step", [1, 2, 3], indirect=True)
def test_the_demo_goes_on_to_watch_in_a_terminal_in_every_step(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []
    monkeypatch.setattr(demo, "watch_command", click.Command("watch", callback=lambda: watched.append(step)))
    monkeypatch.setattr(demo, "_in_terminal", lambda: True)
    done = CliRunner().invoke(main, ["demo"])
    assert (done.exit_code, watched) == (0, [step])
    assert done.stdout.splitlines()[-1] == "Now watching this host. Make a reset, or press Ctrl-C."


@contextmanager
def unexplained() -> Iterator[None]:
    yield None


@pytest.fixture(autouse=True)
def no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "explaining", unexplained)


@pytest.mark.parametrize(
    ("error", "lines"), [(KernelUnavailable("It", "nft"), len(CHOSEN)), (NoNetwork("ip"), 1)]
)
def test_demo_goes_on_unless_nothing_can_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: KernelUnavailable, lines: int
) -> None:
    monkeypatch.setattr(demo, "make", fail_with(error))
    assert demo._count(render.Page(), CHOSEN)
    assert capsys.readouterr().out.count(str(error)) == lines


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [(KernelUnavailable("It", "nft"), 0, len(CHOSEN)), (NoNetwork("ip"), 3, 1)],
)
def test_running_all_passes_over_what_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, error: KernelUnavailable, code: int, lines: int
) -> None:
    monkeypatch.setattr(lab, "make", fail_with(error))
    done = CliRunner().invoke(main, ["lab", "run", "--all", "--family", "4"])
    assert done.exit_code == code
    assert lines - 1 <= done.stderr.count(str(error)) <= lines  # some are for IPv6 only


def test_running_one_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "make", fail_with(KernelUnavailable("It", "nft")))
    assert CliRunner().invoke(main, ["lab", "run", CHOSEN[0].name]).exit_code == 3

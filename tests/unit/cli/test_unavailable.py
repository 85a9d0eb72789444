"""What one scenario lacks stops that one; what every scenario lacks is said once."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from holdfast.cli import demo, lab, main, render
from holdfast.errors import KernelUnavailable
from holdfast.lab import SCENARIOS, NoNetwork

CHOSEN = [one for one in SCENARIOS.values() if not one.vm_only]


def fail_with(error: KernelUnavailable) -> Callable[..., None]:
    def make(*_: object) -> None:
        raise error

    return make


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
    demo._count(render.Page(), CHOSEN)
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

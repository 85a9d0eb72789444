# SPDX-License-Identifier: Apache-2.0
"""The last lines of a watch say what it could not do in full."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.cli import watch
from holdfast.events import Event
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.select import Selection
from holdfast.watch.selfcheck import SelfCheck
from holdfast.watch.session import Session
from holdfast.watch.steps import STEPS, Opened


class Nothing(KernelSource):
    """A source by BPF in which nothing happens, that had memory for all connections but so many."""

    def __init__(self, unowned: int) -> None:
        self._unowned = unowned
        self.folded = 0

    @property
    def hooks(self) -> Any:
        """None."""
        return ()

    def drain(self) -> list[Event]:
        """Nothing."""
        return []

    def folds(self) -> list[tuple[Event, int]]:
        """Nothing."""
        return []

    def totals(self) -> list[tuple[Event, int]]:
        """Nothing."""
        return []

    def unowned(self) -> int:
        """As asked for."""
        return self._unowned

    def lost(self) -> int:
        """Nothing."""
        return 0

    uncounted = skipped = lost


@pytest.fixture
def ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int, int], str]]:
    """What a watch says on standard error until its end, with its lines joined."""

    def run(hurried: int, unowned: int) -> str:
        monkeypatch.setattr(Session, "hurried", hurried)
        # Strangers on this machine reset connections too, and a source that sees none has missed them.
        monkeypatch.setattr(SelfCheck, "compare", lambda check, totals: [])
        source = Nothing(unowned)
        view = watch._View(Opened(source, STEPS[0], ()), Selection(), True, False, False)
        view.run(Session(source), 0.01, None)
        return " ".join(capsys.readouterr().err.split())

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield run
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_what_was_judged_early_or_has_no_owner_is_said(ended: Callable[[int, int], str]) -> None:
    said = ended(1_234, 5)
    assert "Judged early, in a flood: 1,234 times; the two ends of a reset may not be joined." in said
    assert "no memory to remember who owned 5 connections." in said


def test_nothing_is_said_of_what_did_not_happen(ended: Callable[[int, int], str]) -> None:
    assert "0 resets; events lost 0." in ended(0, 0)
    assert not [word for word in ("Judged", "memory") if word in ended(0, 0)]

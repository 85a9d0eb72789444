"""Which step is opened, and what is said of the better ones."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from holdfast.errors import KernelUnavailable
from holdfast.events import Event
from holdfast.watch.session import Source
from holdfast.watch.steps import STEPS, Step, open_source


class Quiet:
    """A source in which nothing happens."""

    def __init__(self, name: str, segments: bool) -> None:
        self.name, self.segments = name, segments

    def drain(self) -> Sequence[Event]:
        return []

    def lost(self) -> int:
        return 0

    def close(self) -> None:
        pass


def works(name: str) -> Step:
    return Step(name, "all", lambda segments: Quiet(name, segments))


def refuses(name: str, error: Exception) -> Step:
    def fail(segments: bool) -> Source:
        raise error

    open_it: Callable[[bool], Source] = fail
    return Step(name, "nothing", open_it)


NO_BPF, NO_TRACEFS = KernelUnavailable("BPF", "root"), KernelUnavailable("Tracing", "root")


def test_the_best_step_that_opens_is_used() -> None:
    opened = open_source(steps=(works("best"), works("second")))
    assert (opened.source.name, opened.step.name, opened.refused) == ("best", "best", ())


def test_the_refusals_of_better_steps_are_kept_in_order() -> None:
    opened = open_source(
        steps=(refuses("best", NO_BPF), refuses("second", NO_TRACEFS), works("third"), works("fourth"))
    )
    assert (opened.step.name, opened.refused) == ("third", (NO_BPF, NO_TRACEFS))


def test_only_the_step_asked_for_is_tried() -> None:
    opened = open_source(only="second", steps=(refuses("best", NO_BPF), works("second")))
    assert (opened.step.name, opened.refused) == ("second", ())


def test_a_step_asked_for_and_refused_is_not_replaced() -> None:
    with pytest.raises(KernelUnavailable) as raised:
        open_source(only="second", steps=(works("best"), refuses("second", NO_TRACEFS)))
    assert raised.value is NO_TRACEFS


def test_if_nothing_opens_the_best_steps_refusal_is_told() -> None:
    with pytest.raises(KernelUnavailable) as raised:
        open_source(steps=(refuses("best", NO_BPF), refuses("second", NO_TRACEFS)))
    assert raised.value is NO_BPF


def test_a_mistake_in_a_source_stays_visible() -> None:
    with pytest.raises(ZeroDivisionError):
        open_source(steps=(refuses("best", ZeroDivisionError()), works("second")))


def test_whether_to_look_at_segments_reaches_the_source() -> None:
    source = open_source(segments=False, steps=(works("best"),)).source
    assert isinstance(source, Quiet)
    assert source.segments is False


def test_the_steps_go_from_full_sight_to_counters() -> None:
    assert [step.name for step in STEPS] == ["bpf", "tracepoints", "sock_diag"]


def test_the_last_step_opens_without_rights() -> None:
    opened = open_source(only="sock_diag")
    opened.source.close()
    assert opened.source.name == "sock_diag"

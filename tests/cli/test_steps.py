"""The lesser steps over real resets."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from cli.command import Running, holdfast, server


@pytest.mark.needs_bpf
def test_tracepoints_tell_the_cause_and_join_both_ends() -> None:
    with (
        server(count=2) as program,
        Running("watch", "--step", "tracepoints", "--json", "--port", str(program.port)) as watch,
    ):
        watch.await_ready()
        program.reset()
        records = [json.loads(watch.line()) for _ in range(4)]
        done = watch.end()
    sent = [one for one in records if one["direction"] == "sent"]
    assert [(one["cause"], one["sender"]) for one in sent] == [("closed_with_unread_data", "local")] * 2
    stories = [{one["story"] for one in records if one["direction"] == way} for way in ("sent", "received")]
    assert stories[0] == stories[1]
    assert (done.code, "Watching by tracepoints: " in done.err) == (0, True)


@pytest.mark.parametrize(
    ("step", "option", "value"),
    [
        ("sock_diag", "--pid", "1"),
        ("sock_diag", "--cgroup", "/"),
        ("sock_diag", "--cause", "linger_zero"),
        pytest.param("tracepoints", "--netns", "1", marks=pytest.mark.needs_bpf),
    ],
)
def test_a_filter_that_a_step_cannot_serve_is_said(step: str, option: str, value: str) -> None:
    done = holdfast("watch", "--step", step, option, value, "--duration", "0.05")
    assert done.code == 0
    assert f"Nothing passes {option} in step {step}: its records do not tell.\n" in done.err

"""Without rights: the step that is left, and a sentence where none is."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli.command import HOLDFAST, Done, Running, server
from conftest import AS_NOBODY

from holdfast.lab import SCENARIOS

NETWORKS = Path("/proc/sys/user/max_user_namespaces")


@pytest.fixture(scope="module")
def command() -> tuple[str, ...]:
    """The command as a user without rights runs it."""
    return (*AS_NOBODY, *HOLDFAST) if os.geteuid() == 0 else HOLDFAST


def run(command: tuple[str, ...], home: Path, *args: str) -> Done:
    home.chmod(0o777)
    with Running(*args, command=command, cwd="/", env=os.environ | {"HOME": str(home)}) as process:
        return process.await_exit()


@pytest.mark.parametrize("step", ["bpf", "tracepoints"])
def test_a_step_that_needs_rights_is_refused_in_one_sentence(
    command: tuple[str, ...], tmp_path: Path, step: str
) -> None:
    done = run(command, tmp_path, "watch", "--step", step)
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 0)
    assert done.err.startswith("holdfast: ")
    assert "is not available here: it needs " in done.err


def test_watch_takes_the_step_that_is_left_and_says_why(command: tuple[str, ...]) -> None:
    with (
        server(count=2) as program,
        Running("watch", "--port", str(program.port), command=command, cwd="/") as watch,
    ):
        watch.await_ready()
        program.reset()
        assert watch.line().split() == ["CAUSE", "WHO", "CONNECTION", "LOST"]
        # Counters of strangers may come in between: they have no filter.
        lines: list[str] = []
        while sum("6 unread" in line for line in lines) < 2 or not any("OutRsts" in line for line in lines):
            lines.append(watch.line())
        done = watch.end()
    assert [line.split()[0] for line in lines if "6 unread" in line] == ["unknown"] * 2
    assert any(line.endswith("  resets sent by TCP (OutRsts)") for line in lines)
    assert (done.code, done.err.count("Not better because: ")) == (0, 2)
    assert "Watching by sock_diag: " in done.err


def test_watch_json_tells_counters_too(command: tuple[str, ...]) -> None:
    with (
        server() as program,
        Running("watch", "--json", "--port", str(program.port), command=command, cwd="/") as watch,
    ):
        watch.await_ready()
        program.reset()
        told = [json.loads(watch.line()) for _ in range(2)]
        while {"cause", "counts"} - told[0].keys() - told[-1].keys():
            told.append(json.loads(watch.line()))
        watch.end()
    record = next(one for one in told if "cause" in one)
    assert (record["cause"], record["basis"], record["harm"]["unread_bytes"]) == ("unknown", "none", 6)
    assert {frozenset(one) for one in told if "counts" in one} == {
        frozenset({"schema", "interval_s", "counts"})
    }


def test_doctor_says_that_only_a_lesser_step_works(command: tuple[str, ...], tmp_path: Path) -> None:
    done = run(command, tmp_path, "doctor", "--json")
    assert done.code == 1
    assert json.loads(done.out)["step"] == 3


def test_the_lab_refuses_what_would_touch_the_machine(command: tuple[str, ...], tmp_path: Path) -> None:
    name = next(one.name for one in SCENARIOS.values() if one.vm_only)
    done = run(command, tmp_path, "lab", "run", name)
    assert (done.code, done.err.splitlines()[-1]) == (
        3,
        f"holdfast: The scenario {name} is not available here: "
        "it needs a virtual machine, marked by HOLDFAST_LAB_VM=1.",
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_demo_runs_the_step_it_has_and_says_what_root_would_add(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")  # as Debian gives it to users
        done = run(command, tmp_path, "demo")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "Step 3: " in lines[0]
    assert lines[-1] == '  sudo "$(command -v make)" run'
    if NETWORKS.exists() and int(NETWORKS.read_text()):
        assert [line.split() for line in lines if line.startswith("linger_zero ")] == [
            ["linger_zero", "EstabResets", "+2,", "OutRsts", "+1,", "TCPAbortOnData", "+1"]
        ]
        tried = {line.split()[0] for line in lines if line}
        assert {one.name for one in SCENARIOS.values() if not one.vm_only} <= tried

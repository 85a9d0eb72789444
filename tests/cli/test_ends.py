"""How ``holdfast watch`` ends: by signals, when its reader leaves, when the disk is full."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli.command import HOLDFAST, WAIT_S, Running, holdfast, server

SCRIPT = Path(sys.executable).with_name("holdfast")
STILL_IGNORED = """
import signal, sys
from holdfast.__main__ import main
sys.argv = ["holdfast", "--version"]
try:
    main()
except SystemExit:
    sys.exit(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)
"""

STEPS = [pytest.param("bpf", marks=pytest.mark.needs_bpf), "sock_diag"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("args", [(), ("--json",)], ids=["table", "json"])
@pytest.mark.parametrize("step", STEPS)
def test_a_signal_ends_it_with_a_summary(step: str, args: tuple[str, ...], number: signal.Signals) -> None:
    with Running("watch", "--step", step, "--netns", "1", *args) as watch:
        done = watch.await_ready().end(number)
    assert (done.code, "Traceback" in done.err) == (0, False)
    assert "; events lost " in done.err


@pytest.mark.parametrize("program", [("-m", "holdfast"), (str(SCRIPT),)], ids=["module", "script"])
@pytest.mark.parametrize("begun", ["click.core", "holdfast.cli", "holdfast.watch"])
def test_an_interrupt_while_it_starts_is_no_traceback(program: tuple[str, ...], begun: str) -> None:
    command = (sys.executable, "-X", "importtime", *program, "watch", "--step", "sock_diag")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while process.stderr.readline().rpartition("| ")[2].strip() != begun:
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
    # By the signal itself, which a shell calls 130; or, come so far, as watch ends.
    assert process.returncode in (-signal.SIGINT, 0)
    assert "Traceback" not in err
    assert "Aborted" not in err


def test_an_interrupt_that_was_ignored_from_the_start_stays_so() -> None:
    ignoring = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", STILL_IGNORED)
    assert subprocess.run(ignoring, timeout=WAIT_S, check=False).returncode == 0


@pytest.mark.parametrize("args", [(), ("--json",), ("-v",)], ids=["table", "json", "story"])
@pytest.mark.parametrize("step", STEPS)
def test_a_reader_that_left_is_noticed_though_nothing_is_written(step: str, args: tuple[str, ...]) -> None:
    read, write = os.pipe()
    with Running("watch", "--step", step, "--netns", "1", *args, stdout=write) as watch:
        os.close(write)
        watch.await_ready()
        os.close(read)
        done = watch.await_exit()
    assert (done.code, "Traceback" in done.err, "Exception" in done.err) == (0, False, False)


@pytest.mark.needs_bpf
@pytest.mark.parametrize("args", ["", "--json", "-v"])
def test_head_ends_it(args: str) -> None:
    with server(count=3) as program:
        pipe = f'"$@" --port {program.port} {args} | head -1; echo "${{PIPESTATUS[0]}}"'
        with Running("watch", command=("bash", "-c", pipe, "bash", *HOLDFAST)) as watch:
            watch.await_ready()
            program.reset()
            done = watch.await_exit()
    first, code = done.out.splitlines()
    assert (bool(first), code, "Traceback" in done.err) == (True, "0", False)


@pytest.mark.parametrize(
    "args",
    [
        ("watch", "--step", "sock_diag"),
        ("inspect", "--all"),
        ("inspect", "--all", "--json"),
        ("lab", "list"),
        ("doctor", "--json"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_sentence(args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (*HOLDFAST, *args), stdout=full, stderr=subprocess.PIPE, text=True, timeout=WAIT_S
        )
    sentence = "holdfast: the output cannot be written (No space left on device).\n"
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (1, sentence)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("watch", "--step", "sock_diag", "--duration", "0.1"),
        ("inspect", "--all"),
        ("inspect", "--all", "--json"),
        ("lab", "list"),
        ("doctor",),
        ("--help",),
    ],
    ids=" ".join,
)
def test_without_a_standard_output_nothing_breaks(args: tuple[str, ...]) -> None:
    done = subprocess.run(
        ("sh", "-c", 'exec "$@" >&-', "sh", *HOLDFAST, *args),
        stderr=subprocess.PIPE,
        text=True,
        timeout=WAIT_S,
    )
    assert (done.returncode in (0, 1), "Traceback" in done.stderr) == (True, False)


@pytest.mark.parametrize("limit", [12, 20, 30, 40])
@pytest.mark.parametrize(
    "args",
    [("lab", "run", "closed_port"), ("watch", "--duration", "0.1"), ("inspect", "--all")],
    ids=" ".join,
)
def test_too_few_files_are_no_traceback(args: tuple[str, ...], limit: int) -> None:
    done = subprocess.run(
        ("sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *HOLDFAST, *args),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert (done.returncode in (0, 1, 3), "Traceback" in done.stderr) == (True, False)


def test_an_output_that_is_not_utf8_is_still_written() -> None:
    done = holdfast(
        "watch", "--step", "sock_diag", "--duration", "0.1", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (done.code, "Traceback" in done.err) == (0, False)


def test_duration_ends_it() -> None:
    done = holdfast("watch", "--step", "sock_diag", "--duration", "0.05", "--json")
    assert (done.code, "; events lost " in done.err) == (0, True)

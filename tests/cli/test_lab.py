"""``holdfast lab``, ``doctor`` and ``demo`` as processes and in a terminal."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest
from cli.command import HOLDFAST, holdfast

from holdfast.lab import NOT_MADE, SCENARIOS
from holdfast.lab.matrix import SILENT

LABEL = {"cause", "sender", "owner_pid"}
LAST = re.compile(r"Made (\d+), explained (\d+), unexplained (\d+)\. Events lost: (\d+)\.")


def test_list_names_every_scenario_and_what_cannot_be_made() -> None:
    out = holdfast("lab", "list").out
    assert [name for name in SCENARIOS if f"\n{name} (" not in f"\n{out}"] == []
    assert [cause for cause in NOT_MADE if f"\n{cause}: " not in out] == []
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_list_as_json_has_one_object_for_each_scenario() -> None:
    listed = [json.loads(line) for line in holdfast("lab", "list", "--json").out.splitlines()]
    assert [one["scenario"] for one in listed] == list(SCENARIOS)
    assert {one["cause"] for one in listed} == {one.cause for one in SCENARIOS.values()}


def test_what_would_touch_the_machine_is_refused() -> None:
    name = next(one.name for one in SCENARIOS.values() if one.vm_only)
    done = holdfast("lab", "run", name, env=os.environ | {"HOLDFAST_LAB_VM": "0"})
    assert (done.code, done.out, "it needs a virtual machine" in done.err) == (3, "", True)


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_each_of_many_is_explained() -> None:
    """The watch of the lab folds nothing: 80 resets of one cause are 80 explanations."""
    done = holdfast("lab", "run", "linger_zero", "--count", "80", "--json")
    explained = [json.loads(line)["explained"] for line in done.out.splitlines()]
    assert (done.code, explained) == (0, [True] * 80)


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_json_has_the_documented_shape_for_each_connection_of_each_family() -> None:
    done = holdfast(
        "lab", "run", "linger_zero", "closed_port", SILENT, "--family", "both", "--count", "2", "--json"
    )
    made = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, len(made)) == (0, 3 * 2 * 2)
    assert {frozenset(one) for one in made} == {
        frozenset({"scenario", "family", "label", "explained", "reset"})
    }
    assert [one["label"].keys() for one in made if one["label"].keys() != LABEL] == []
    assert [one["scenario"] for one in made if one["reset"] is None] == [SILENT] * 4
    for one in made:
        if one["reset"] is not None:
            reset = one["reset"]
            said = (reset["cause"], reset["sender"], reset["owner"]["pid"])
            assert said == tuple(one["label"][key] for key in ("cause", "sender", "owner_pid"))
            assert reset["local"].startswith("[") is (one["family"] == 6)


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_a_line_and_a_sentence_for_a_person() -> None:
    done = holdfast("lab", "run", "linger_zero")
    first, *sentence = done.out.splitlines()
    assert (done.code, first.split()[0]) == (0, "linger_zero")
    assert "had SO_LINGER set to zero seconds" in " ".join(" ".join(sentence).split())
    assert [line for line in done.out.splitlines() if len(line) > 80] == []


@pytest.mark.needs_bpf
def test_doctor_sees_that_bpf_works() -> None:
    done = holdfast("doctor", "--json")
    assert (done.code, json.loads(done.out)["step"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.timeout(180)
def test_demo_without_a_terminal_ends_with_the_matrix() -> None:
    done = holdfast("demo")
    found = LAST.fullmatch(done.out.splitlines()[-1])
    assert found is not None, done.out
    made, explained, unexplained, _ = map(int, found.groups())
    assert (done.code, unexplained, explained) == (0, 0, made)
    assert made >= len([one for one in SCENARIOS.values() if not one.vm_only])
    assert [line for line in done.out.splitlines()[1:] if len(line) > 80] == []


WITHOUT_BPF = """
import dataclasses
from holdfast.cli import main
from holdfast.watch import doctor
collect = doctor.collect
doctor.collect = lambda: dataclasses.replace(collect(), object_error="They were not built.")
main(["demo"])
"""


@pytest.mark.slow
@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.timeout(180)
def test_demo_without_bpf_tells_what_tracepoints_can_and_no_more() -> None:
    done = subprocess.run(
        (sys.executable, "-c", WITHOUT_BPF), capture_output=True, text=True, timeout=150, check=False
    )
    found = re.search(r"Made (\d+), explained (\d+), in part (\d+), not told (\d+)\. ", done.stdout)
    assert found is not None, done.stdout + done.stderr
    made, explained, in_part, rest = map(int, found.groups())
    assert (done.returncode, explained + in_part + rest) == (0, made)
    assert re.search(r"^bad_handshake_ack +1 +1 +0 +0 *$", done.stdout, re.MULTILINE)
    assert re.search(r"^linger_zero +1 +0 +1 +0 *$", done.stdout, re.MULTILINE), "the bytes are not told"
    assert "\nnot_sent_by_tcp: not told at all.\n" in done.stdout
    assert [line for line in done.stdout.splitlines()[1:] if len(line.rstrip()) > 80] == []


class Terminal:
    """A command in a terminal of so many columns."""

    def __init__(self, columns: int, *args: str) -> None:
        self.shown = ""
        self._main, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            (*HOLDFAST, *args),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            env=environment,
        )
        os.close(other)

    def await_text(self, text: str, wait_s: float) -> None:
        """Read until the text is shown."""
        deadline_s = time.monotonic() + wait_s
        while text not in self.shown:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"never showed {text!r}: {self.shown[-2000:]}"
            if select.select([self._main], [], [], left_s)[0]:
                self.shown += self._read()
                assert self.process.poll() is None, f"it ended without {text!r}: {self.shown[-2000:]}"

    def interrupt(self) -> int:
        """Press Ctrl-C and wait; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        while shown := self._read():
            self.shown += shown
        return self.process.wait(30)

    def _read(self) -> str:
        try:
            return os.read(self._main, 65536).decode("utf-8", "replace")
        except OSError:  # how Linux says that the other end of a terminal is closed
            return ""

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(30)
        os.close(self._main)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.needs_bpf
def test_watch_in_a_terminal_shows_its_counts_and_ends_by_ctrl_c(columns: int) -> None:
    terminal = Terminal(columns, "watch", "--netns", "1")
    try:
        terminal.await_text("events lost ", 20)
        assert terminal.interrupt() == 0
    finally:
        terminal.close()
    assert "Traceback" not in terminal.shown
    assert "CAUSE " in terminal.shown


@pytest.mark.slow
@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.timeout(180)
def test_demo_in_a_terminal_goes_on_to_watch() -> None:
    terminal = Terminal(60, "demo")
    try:
        terminal.await_text("Now watching this host.", 120)
        terminal.await_text("; events lost ", 20)
        assert terminal.interrupt() == 0
    finally:
        terminal.close()
    assert LAST.search(terminal.shown)
    assert "Traceback" not in terminal.shown

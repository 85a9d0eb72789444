"""The frame of the command line: help, sentences instead of tracebacks, quiet ends."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from holdfast.cli import COMMANDS, Commands, main
from holdfast.errors import HoldfastError, KernelUnavailable, UsageError


class Failing(Commands):
    """A command line whose only command raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("holdfast")
        self.error = error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        def fail() -> None:
            raise self.error

        return click.Command(cmd_name, callback=fail)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("port 70000 is not below 65536."), 2, "holdfast: port 70000 is not below 65536.\n"),
        (
            KernelUnavailable("the call path", "CAP_PERFMON"),
            3,
            "holdfast: the call path is not available here: it needs CAP_PERFMON.\n",
        ),
        (HoldfastError("the disk is full."), 1, "holdfast: the disk is full.\n"),
    ],
)
def test_an_error_of_ours_is_one_sentence_and_an_exit_code(
    error: HoldfastError, code: int, sentence: str
) -> None:
    result = CliRunner().invoke(Failing(error), ["x"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, sentence, "")


def test_ctrl_c_ends_quietly() -> None:
    result = CliRunner().invoke(Failing(KeyboardInterrupt()), ["x"])
    assert (result.exit_code, result.stderr, result.stdout) == (130, "", "")


def test_a_mistake_in_our_own_code_stays_visible() -> None:
    assert isinstance(CliRunner().invoke(Failing(KeyError("x")), ["x"]).exception, KeyError)


def test_help_names_every_command_and_ends_with_examples() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    assert [name for name in COMMANDS if f"\n  {name} " not in text] == []
    assert text.index("Commands:") < text.index("Exit codes:") < text.index("Examples:")


def test_help_fits_a_terminal_of_80_columns() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"], prog_name="holdfast").stdout == (
        f"holdfast {version('holdfast')}\n"
    )


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["wach"])
    assert (result.exit_code, result.stderr) == (
        2,
        "holdfast: there is no command 'wach'. Did you mean watch?\n",
    )


@pytest.mark.parametrize("option", ["--verbos", "--nothing-like-it"])
def test_a_mistake_ends_with_one_stop(option: str) -> None:
    result = CliRunner().invoke(main, ["lab", "run", option])
    sentence, see = result.stderr.rstrip("\n").split(" See ")
    assert (result.exit_code, see) == (2, "main lab run --help.")
    assert sentence[-1] in ".?" and sentence[-2] not in ".?"


def test_a_command_that_this_build_lacks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holdfast.cli.watch", None)
    result = CliRunner().invoke(main, ["watch", "--json"])
    assert result.exit_code == 2
    assert result.stderr == (
        "holdfast: this build has no command 'watch': the module holdfast.cli.watch is missing.\n"
    )


PRINTS_TO_A_CLOSED_PIPE = """
import os, click, holdfast.cli as cli
class Talks(cli.Commands):
    def get_command(self, ctx, name):
        return click.Command(name, callback=lambda: print("x" * 100_000))
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
Talks("holdfast")(["x"])
"""


def test_a_reader_that_left_ends_it_quietly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS_TO_A_CLOSED_PIPE], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")

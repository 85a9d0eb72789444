"""Wrong options: one sentence, exit code 2, never a traceback, whatever is typed."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import COMMANDS, checked, main
from holdfast.cli.watch import command as watch
from holdfast.errors import HoldfastError
from holdfast.linux.namespaces import netns_of

NO_PID = str((1 << 22) + 1)  # above the largest pid that Linux can give


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("watch --cause linger_zer", "there is no cause 'linger_zer'. Did you mean linger_zero?"),
        ("watch --cause xyz", "there is no cause 'xyz'. The causes are listed in docs/reference/causes.md."),
        ("watch --port 70000", "'--port': 70000 is not in the range 1<=x<=65535"),
        ("watch --port http", "'--port': 'http' is not a valid whole number."),
        ("watch --port 0", "'--port': 0 is not in the range"),
        (f"watch --pid {NO_PID}", f"no process has the pid {NO_PID}: see ps -e."),
        ("watch --pid -1", "'--pid': -1 is not in the range"),
        ("watch --netns nosuch", "there is no network namespace /run/netns/nosuch (No such file"),
        ("watch --netns /etc/passwd", "/etc/passwd is no network namespace"),
        ("watch --netns 99999999999", "there is no network namespace /run/netns/99999999999"),
        ("watch --cgroup nginx.service", "the control group 'nginx.service' must start with a slash"),
        ("watch --duration nan", "--duration takes a number of seconds"),
        ("watch --duration 0", "'--duration': 0.0 is not in the range x>0"),
        ("watch --count 0", "'--count': 0 is not in the range"),
        ("watch --step ebpf", "'--step': 'ebpf' is not one of 'bpf', 'tracepoints', 'sock_diag'"),
        ("watch --direction up", "'--direction': 'up' is not one of 'sent', 'received'"),
        ("watch --min-severity bad", "'--min-severity': 'bad' is not one of"),
        ("watch --prot 80", "No such option '--prot'"),
        ("watch extra", "unexpected extra argument"),
        ("lab run", "name the scenarios to run, or say --all"),
        ("lab run closed_port --all", "name the scenarios to run, or say --all"),
        ("lab run closed_prt", "there is no scenario 'closed_prt'. Did you mean closed_port?"),
        ("lab run nope", "there is no scenario 'nope'. See holdfast lab list."),
        ("lab run closed_port --count 1.5", "'--count': '1.5' is not a valid whole number."),
        ("watch --duration long", "'--duration': 'long' is not a valid number."),
        ("lab run closed_port --family 5", "'--family': '5' is not one of"),
        ("lab run closed_port --count 9999", "'--count': 9999 is not in the range"),
        ("lab sing", "No such command 'sing'"),
        ("demo extra", "unexpected extra argument"),
        ("doctor --jsn", "No such option '--jsn'"),
        ("--nothing", "No such option '--nothing'"),
        ("wach", "there is no command 'wach'. Did you mean watch?"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(args: str, words: str) -> None:
    result = CliRunner().invoke(main, args.split(), prog_name="holdfast")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("holdfast: ")
    assert words in result.stderr


def test_what_was_typed_is_shown_and_not_obeyed() -> None:
    result = CliRunner().invoke(main, ["watch", "--cause", "\x1b[31mred\n"])
    assert result.stderr.startswith("holdfast: there is no cause '\\x1b[31mred\\n'.")


@pytest.mark.parametrize(
    "command", [[], ["watch"], ["inspect"], ["doctor"], ["lab"], ["lab", "run"], ["lab", "list"], ["demo"]]
)
def test_every_help_ends_with_examples(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="holdfast", terminal_width=80)
    last = result.stdout.rstrip().split("\n\n")[-1].splitlines()
    assert (result.exit_code, last[0].strip()) == (0, "Examples:")
    assert [line for line in last[1:] if not line.strip().startswith("holdfast")] == []
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(main, [], prog_name="holdfast")
    assert "Examples:" in result.output
    assert [name for name in COMMANDS if f"\n  {name} " not in result.output] == []


@pytest.mark.parametrize("value", [str(netns_of()), "/proc/self/ns/net"])
def test_a_namespace_may_be_a_number_or_a_path(value: str) -> None:
    assert watch.make_context("watch", ["--netns", value]).params["netns"] == (netns_of(),)


def test_a_control_group_may_be_a_path_as_a_shell_completes_it() -> None:
    mount = Path("/sys/fs/cgroup")
    given_path = watch.make_context("watch", ["--cgroup", f"{mount}/system.slice"]).params["cgroups"]
    assert given_path in (
        ("/system.slice",),
        (f"{mount}/system.slice",),
    )  # where it is mounted, and where not


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--netns", "1", "No process that can be seen is in the network namespace 1: as long as"),
        ("--cgroup", "/no/su\x1bch", "There is no control group /no/su\\x1bch: as long as"),
        ("--netns", str(netns_of()), ""),
        ("--netns", "/proc/self/ns/net", ""),
        ("--cgroup", "/", ""),
    ],
)
def test_a_filter_that_matches_nothing_yet_is_said(
    option: str,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(checked, "find_mount", lambda: tmp_path)
    watch.make_context("watch", [option, value])
    err = capsys.readouterr().err
    assert (err[: len(words)], bool(err)) == (words, bool(words))
    assert not words or err.endswith(f"so, nothing passes {option}.\n")


def test_without_control_groups_nothing_can_be_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checked, "find_mount", lambda: None)
    watch.make_context("watch", ["--cgroup", "/"])
    assert capsys.readouterr().err.startswith("Control groups of version 2 are not mounted: ")


_OPTIONS = sorted({name for param in watch.params for name in param.opts})
_VALUES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "-", "--", "0", "-1", "9" * 5000, "1e400", "nan", "inf", "a" * 5000, "\0", "/", "\udcff"]
    ),
    st.integers().map(str),
)


@given(st.lists(st.one_of(st.sampled_from(_OPTIONS), _VALUES), max_size=6))
def test_nothing_typed_makes_a_traceback(args: list[str]) -> None:
    try:
        watch.make_context("watch", args)
    except (click.UsageError, click.exceptions.Exit, HoldfastError) as error:
        assert str(error) is not None

# SPDX-License-Identifier: Apache-2.0
"""Doctor judges what was found: which step, why not a better one, what to do; and prints it in 80 columns."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast.cli import demo
from holdfast.cli.doctor import command, render
from holdfast.linux.sysctls import NAMES
from holdfast.watch import doctor
from holdfast.watch.doctor import (
    BUILD,
    INSTALL_AND_BUILD,
    Check,
    Facts,
    Hook,
    Right,
    Step,
    as_root,
    assess,
    parse_lockdown,
)

ROOT = frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYSLOG"})
FULL = Facts(
    release="6.18.1",
    machine="x86_64",
    capabilities=ROOT,
    hooks=(Hook("reset_sent", "resets this host sends", True),),
    cgroup_mount="/sys/fs/cgroup",
    restrictions=(("kptr_restrict", "0"), ("lockdown", None)),
    settings=(("net.ipv4.tcp_abort_on_overflow", "0"), ("net.ipv4.tcp_syncookies", "1")),
)
NOBODY = replace(
    FULL,
    capabilities=frozenset(),
    hooks=(),
    hooks_error="watching by BPF is not available here",
    tracepoints_error="tracefs is not available here.",
)


def test_a_machine_with_everything() -> None:
    report = assess(FULL)
    assert (report.step, report.exit_code) == (1, 0)
    assert [(step.works, step.why_not, step.fix) for step in report.steps] == [(True, "", "")] * 3
    assert report.checks == (
        Check("BTF", True, "The kernel describes its own types."),
        Check("extension", True, "holdfast._bpf is built and loads."),
        Check("programs", True, "The BPF object file is installed."),
        Check("cgroup v2", True, "Mounted at /sys/fs/cgroup."),
        Check("kptr_restrict", True, "0: Kernel addresses are shown to those with CAP_SYSLOG."),
        Check("lockdown", True, "Not known here."),
    )
    assert all(right.held for right in report.rights)
    assert report.cannot_tell == ()
    assert doctor.attention(report) == ()


@pytest.mark.parametrize(
    ("change", "why", "fix"),
    [
        ({"extension_error": "no module"}, "The extension holdfast._bpf does not load: no module.", BUILD),
        ({"object_error": "no file"}, "The BPF programs are not there: no file.", BUILD),
        ({"btf_error": "Damaged."}, "This kernel has no usable BTF: Damaged.", ""),
        ({"host_rights": False}, "This process runs in a user namespace; its rights end there.", as_root()),
        ({"hooks_error": "Refused."}, "Refused.", ""),
        (
            {"hooks_error": "Refused.", "capabilities": frozenset()},
            "This process lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.",
            as_root(),
        ),
        (
            {"hooks_error": "Refused.", "capabilities": frozenset({"CAP_BPF", "CAP_NET_ADMIN"})},
            "This process lacks CAP_PERFMON.",
            as_root(),
        ),
        (
            {"hooks_error": "Refused.", "capabilities": frozenset({"CAP_SYS_ADMIN"})},
            "This process lacks CAP_NET_ADMIN.",
            as_root(),
        ),
    ],
)
def test_why_not_bpf(change: dict[str, object], why: str, fix: str) -> None:
    report = assess(replace(FULL, **change))  # type: ignore[arg-type]
    tells = "every reset: its cause, its owner, its call path, the bytes lost"
    assert report.steps[0] == Step(1, "BPF", tells, False, why, fix)
    assert (report.step, report.exit_code) == (2, 1)


def test_without_rights_only_the_third_step_is_left() -> None:
    report = assess(NOBODY)
    assert (report.step, report.exit_code) == (3, 1)
    assert [step.fix for step in report.steps] == [as_root(), as_root(), ""]
    assert not any(right.held for right in report.rights)


def test_rights_in_a_user_namespace_are_not_rights() -> None:
    rights = assess(replace(FULL, host_rights=False)).rights
    assert Right("CAP_BPF", False, "Step 1: load BPF programs (before Linux 5.8: CAP_SYS_ADMIN).") in rights


def test_a_user_is_told_what_root_would_have_installed() -> None:
    assert assess(replace(NOBODY, extension_error="no module")).steps[0].fix == INSTALL_AND_BUILD


@pytest.mark.parametrize(
    ("argv", "order"),
    [
        ("/opt/h/bin/holdfast", "sudo /opt/h/bin/holdfast doctor"),
        ("/opt/h/holdfast/__main__.py", f"sudo {sys.executable} -m holdfast doctor"),
    ],
)
def test_the_command_for_root_needs_no_path(monkeypatch: pytest.MonkeyPatch, argv: str, order: str) -> None:
    monkeypatch.setattr("sys.argv", [argv])
    assert as_root() == order


def test_root_is_not_told_to_become_root() -> None:
    step = assess(replace(FULL, tracepoints_error="No tracing.")).steps[1]
    assert (step.works, step.why_not, step.fix) == (False, "No tracing.", "")


def test_a_machine_with_nothing() -> None:
    report = assess(replace(NOBODY, sock_diag_error="No sock_diag."))
    assert (report.step, report.exit_code) == (0, 3)
    assert report.steps[2].fix == "sudo modprobe tcp_diag"


def test_an_older_kernel_says_what_it_keeps_to_itself() -> None:
    assert len(assess(replace(FULL, release="6.1.0-13-amd64")).cannot_tell) == 4
    assert assess(replace(FULL, release="unheard of")).cannot_tell == ()


@pytest.mark.parametrize(
    ("name", "value", "ok"),
    [
        ("kptr_restrict", "2", False),
        ("lockdown", "confidentiality", False),
        ("lockdown", "integrity", True),
        ("unprivileged_bpf_disabled", "2", True),
        ("perf_event_paranoid", "99", True),
    ],
)
def test_restrictions(name: str, value: str, ok: bool) -> None:
    check = assess(replace(FULL, restrictions=((name, value),))).checks[-1]
    assert (check.name, check.ok) == (name, ok)
    assert check.found.startswith(f"{value}: ")


def test_risky_settings_come_before_notes() -> None:
    settings = (("net.ipv4.tcp_retries2", "15"), ("net.ipv4.tcp_timestamps", "0"))
    found = doctor.attention(assess(replace(FULL, settings=settings)))
    assert [(setting.name, setting.verdict) for setting in found] == [
        ("net.ipv4.tcp_timestamps", "risky"),
        ("net.ipv4.tcp_retries2", "note"),
    ]


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("none [integrity] confidentiality\n", "integrity"),
        ("[none] integrity", "none"),
        ("none", None),
        ("[", None),
        ("", None),
    ],
)
def test_lockdown_modes(text: str, mode: str | None) -> None:
    assert parse_lockdown(text) == mode


@pytest.mark.parametrize("facts", [FULL, NOBODY, Facts(), replace(FULL, release="5.4.0")])
def test_the_page_is_plain_and_80_columns_wide(facts: Facts) -> None:
    settings = tuple((name, "0") for name in NAMES)
    page = render(assess(replace(facts, settings=settings)), in_colour=False)
    assert page.isascii()
    assert [line for line in page.splitlines() if len(line) > 80 or line != line.rstrip()] == []
    assert "\x1b" not in page
    for setting in NAMES:
        assert page.count(f"{setting} = 0") == (
            setting in {s.name for s in doctor.attention(assess(replace(facts, settings=settings)))}
        )


def test_the_page_of_a_machine_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/hold fast/bin/holdfast"])
    assert (
        render(assess(NOBODY), in_colour=False).split("\nKernel\n")[0]
        == """\
Linux 6.18.1 on x86_64
Holdfast sees that connections end, and how often, but not why.

Steps
  no    1 BPF
        Every reset: its cause, its owner, its call path, the bytes lost.
        This process lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
        Try: sudo '/opt/hold fast/bin/holdfast' doctor
  no    2 tracepoints
        Resets that TCP sends or obeys: cause and caller, but no segments and
        few owners.
        Tracefs is not available here.
        Try: sudo '/opt/hold fast/bin/holdfast' doctor
  ok    3 no rights
        Connections as they end, and rates; no causes, no owners.
"""
    )


def test_the_headline_looks_at_the_hooks() -> None:
    headline = render(assess(FULL), in_colour=False).splitlines()[1]
    assert headline == "Holdfast sees everything it can see on this kernel."
    lost = Hook("segment_arrived", "RST segments", False, "no cgroup v2 tree is mounted")
    for hooks, words in (((lost,), "one hook is"), ((lost, lost), "2 hooks are")):
        headline = render(assess(replace(FULL, hooks=FULL.hooks + hooks)), in_colour=False).splitlines()[1]
        assert headline == f"Holdfast sees the resets, but not everything about them: {words} missing."


def test_a_filter_on_packets_is_noted_where_a_function_would_do() -> None:
    filtered = (Hook("segment_arrived", "RST segments", True),)
    assert [
        len(assess(replace(FULL, hooks=filtered, release=r)).notes) for r in ("5.10.0", "6.1.0", "?")
    ] == [
        0,
        1,
        0,
    ]
    page = render(assess(replace(FULL, hooks=filtered)), in_colour=False)
    assert "everything it can see" in page
    assert "\n  note" in page.split("In another way than it could")[1]


def test_demo_asks_for_what_is_missing() -> None:
    words, order = demo._more(assess(NOBODY))
    assert (words.startswith("As root, "), order) == (True, 'sudo "$(command -v make)" run')
    words, order = demo._more(assess(replace(FULL, extension_error="no module")))
    assert words.startswith("The extension holdfast._bpf does not load: no module.\nThat mended, ")
    assert (order, "As root" in words) == (BUILD, False)
    words, order = demo._more(assess(replace(FULL, btf_error="Damaged.")))
    assert (words.startswith("This kernel has no usable BTF: Damaged.\nSo "), order) == (True, "")


def test_a_terminal_gets_colour() -> None:
    assert "\x1b[" in render(assess(FULL), in_colour=True)


def test_json_keys_are_these() -> None:
    data = json.loads(json.dumps(assess(FULL).as_json()))
    assert {
        key: sorted(value[0]) if isinstance(value, list) and value else value for key, value in data.items()
    } == {
        "schema": 1,
        "kernel": "6.18.1",
        "machine": "x86_64",
        "step": 1,
        "steps": ["fix", "name", "number", "tells", "why_not", "works"],
        "checks": ["found", "name", "ok"],
        "rights": ["held", "name", "why"],
        "hooks": ["attached", "name", "reason", "tells"],
        "cannot_tell": [],
        "notes": [],
        "settings": ["advice", "decides", "name", "value", "verdict"],
    }


def test_the_command_answers_here_whatever_this_machine_is() -> None:
    page = CliRunner().invoke(command, ["--json"])
    data = json.loads(page.stdout)
    assert page.exit_code == {1: 0, 0: 3}.get(data["step"], 1)
    assert len(data["settings"]) == len(NAMES)
    assert CliRunner().invoke(command, ["--jsno"]).exit_code == 2


def test_collecting_outlives_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    for name in ("SockDiagSource", "TracepointSource", "Btf"):
        monkeypatch.setattr(doctor, name, broken)
    facts = doctor.collect()
    assert facts.sock_diag_error == facts.tracepoints_error == "RuntimeError: boom"
    assert facts.btf_error is not None


@pytest.mark.needs_bpf
def test_root_with_btf_gets_the_first_step() -> None:
    report = assess(doctor.collect())
    assert report.steps[0].why_not == ""
    assert report.step == 1


def test_the_reference_page_lists_every_setting_and_right() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text()
    assert tuple(re.findall(r"^\| `(net\.[\w.]+)` \|", text, re.MULTILINE)) == NAMES
    assert re.findall(r"^\| `(CAP_\w+)` \|", text, re.MULTILINE) == [r.name for r in assess(FULL).rights]

"""``holdfast inspect`` over real sockets: a program that does not read and does not accept."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.command import HOLDFAST, Done, Running, holdfast
from conftest import AS_NOBODY
from rich.cells import cell_len

from holdfast.events import Endpoint
from holdfast.linux.namespaces import netns_of
from holdfast.linux.tcp_info import of_socket

# It tells its port; of two connections it accepts one, which it never reads.
STALLED = """
import socket, sys
open("/proc/self/comm", "wb").write(b"[b]\\x1b[1m")
with socket.create_server((sys.argv[1], 0), family=int(sys.argv[2]), backlog=1) as listener:
    print(listener.getsockname()[1], flush=True)
    accepted = listener.accept()
    print("accepted", flush=True)
    sys.stdin.read()
"""
LISTENING = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)):
    print("listens", flush=True)
    sys.stdin.read()
"""
NAME = "[b]\x1b[1m"
ESCAPED = "[b]\\x1b[1m"


class Stalled:
    """A program with a full receive queue and a connection that it has not accepted.

    Attributes:
        pid: of the program.
        port: on which it listens.
        near: port of our end of the connection that it accepted.
    """

    def __init__(self, process: subprocess.Popen[str], host: str, family: int) -> None:
        assert process.stdout is not None
        self.host, self.pid, self.port = host, process.pid, int(process.stdout.readline())
        self.filling = socket.create_connection((host, self.port), timeout=5)
        assert process.stdout.readline() == "accepted\n"
        self.waiting = socket.create_connection((host, self.port), timeout=5)
        self.near = self.filling.getsockname()[1]
        self.filling.setblocking(False)
        # The window closes when the peer's kernel has no more room: what is left stays unsent.
        while of_socket(self.filling).snd_wnd_bytes != 0:
            try:
                self.filling.send(bytes(65536))
            except BlockingIOError:
                continue

    @property
    def where(self) -> str:
        """As the command takes it."""
        return str(Endpoint(self.host, self.port))

    def mine(self, sockets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without those of others, who may have used the same ports: remnants linger for a minute."""
        ends = {str(Endpoint(*one.getsockname()[:2])) for one in (self.filling, self.waiting)}
        ends.add(self.where)
        return [one for one in sockets if {one["local"], one["peer"] or self.where} <= ends]


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def stalled(request: pytest.FixtureRequest) -> Iterator[Stalled]:
    """The program, until the tests of this file are done."""
    host: str = request.param
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    command = (sys.executable, "-c", STALLED, host, str(int(family)))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            made = Stalled(process, host, family)
            with made.filling, made.waiting:
                yield made
        finally:
            process.kill()


def records(done: Done) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The sockets and the counters of a JSON output."""
    found = [json.loads(line) for line in done.out.splitlines()]
    return [one for one in found if one["kind"] != "refused"], [
        one for one in found if one["kind"] == "refused"
    ]


def test_one_line_each_the_worst_first(stalled: Stalled) -> None:
    done = holdfast("inspect", stalled.where)
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert lines[0].split() == ["NOW", "WHO", "CONNECTION", "RECVQ", "SENDQ", "RTT"]
    assert lines[1].split()[0] == "not_reading"
    assert f"/{stalled.pid}" in lines[1]
    rest = {"peer_window_closed", "accept_queue", "not_accepted", "ESTABLISHED"}
    assert rest <= {line.split()[0] for line in lines}
    summary = next(line for line in lines if line.endswith(", 1 listener."))
    assert summary == f"{lines.index(summary) - 2} connections, 1 listener."
    refused = lines[lines.index(summary) + 1]
    assert refused.startswith("Refused so far, all connections of this network namespace together:")
    assert [line for line in lines if cell_len(line) > 80] == []


def test_sentences(stalled: Stalled) -> None:
    done = holdfast("inspect", "-v", stalled.where)
    text = " ".join(done.out.split())
    assert "Now The application is not reading: " in text
    assert " wait and the window is closed." in text
    assert "The peer's window is closed: " in text
    assert "Delayed ACK estimate " in text
    assert "The accept queue holds 1 of 1." in text
    assert "No process has accepted it yet." in text


def test_a_hostile_name_is_shown_and_not_obeyed(stalled: Stalled) -> None:
    for args in ((), ("-v",), ("--json",)):
        assert "\x1b" not in holdfast("inspect", stalled.where, *args).out
    assert f"{ESCAPED}/{stalled.pid}  " in holdfast("inspect", "-v", f":{stalled.port}").out


def test_json_is_one_object_a_line_and_the_counters_come_last(stalled: Stalled) -> None:
    found, refused = records(holdfast("inspect", "--json", stalled.where))
    sockets = stalled.mine(found)
    assert [one["kind"] for one in sockets].count("listener") == 1
    assert len({one["cookie"] for one in sockets}) == len(sockets) == 5
    (near,) = (one for one in sockets if one["local"].endswith(f":{stalled.near}"))
    (far,) = (one for one in sockets if (one["peer"] or "").endswith(f":{stalled.near}"))
    assert near["peer"] == far["local"] == stalled.where
    assert far["owners"] == [{"pid": stalled.pid, "comm": NAME, "uid": os.geteuid()}]
    assert far["tcp_info"]["rcv_wnd_bytes"] == 0
    assert far["unread_bytes"] == far["tcp_info"]["bytes_received"]
    assert near["unsent_bytes"] == near["tcp_info"]["notsent_bytes"] > 0
    (counts,) = refused
    assert (counts["netns"], counts["interval_s"]) == (netns_of(), None)
    assert counts["counts"]["RcvPruned"] >= 0


@pytest.mark.parametrize("option", ["pid", "pid and port", "all", "port"])
def test_the_ways_to_name_connections(stalled: Stalled, option: str) -> None:
    ways = {
        "pid": (("--pid", str(stalled.pid)), 2),
        "pid and port": (("--pid", str(stalled.pid), f":{stalled.near}"), 1),
        "all": (("--all",), 5),
        "port": ((str(stalled.near),), 2),
    }
    args, count = ways[option]
    sockets, _ = records(holdfast("inspect", "--json", *args))
    assert len(stalled.mine(sockets)) == count


def test_a_second_look_tells_what_happened_since_the_first(stalled: Stalled) -> None:
    done = holdfast("inspect", "--json", f":{stalled.near}", "--interval", "0.05", "--count", "2")
    found, refused = records(done)
    sockets = stalled.mine(found)
    assert [one["since"] is None for one in sockets] == [True, True, False, False]
    assert {one["since"]["read_bytes"] for one in sockets[2:]} == {0}
    assert [one["interval_s"] is None for one in refused] == [True, False]
    assert sockets[3]["time"] > sockets[0]["time"]


def test_an_interval_without_a_count_ends_by_a_signal(stalled: Stalled) -> None:
    with Running("inspect", stalled.where, "--interval", "0.05") as process:
        heads = 0
        while heads < 3:
            heads += process.line().startswith("NOW ")
        done = process.end()
    assert (done.code, done.err) == (0, "")


def test_a_process_that_ends_ends_it() -> None:
    with subprocess.Popen(
        (sys.executable, "-c", LISTENING), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stdin is not None
        program.stdout.readline()
        with Running("inspect", "--pid", str(program.pid), "--interval", "0.05") as process:
            while not process.line().startswith("0 connections, 1 listener."):
                pass
            program.stdin.close()
            program.wait(30)
            done = process.await_exit()
    assert (done.code, done.err) == (0, f"Process {program.pid} has ended.")


def test_a_limit_counts_what_it_hides(stalled: Stalled) -> None:
    lines = holdfast("inspect", stalled.where, "--limit", "1").out.splitlines()
    assert lines[1].startswith("not_reading ")
    total = re.fullmatch(
        r"(\d+) connections, 1 listener; (\d+) not shown, the least remarkable \(--limit, --json\)\.",
        lines[2],
    )
    assert total is not None
    assert int(total[2]) == int(total[1]) >= 4


@pytest.mark.skipif(shutil.which("script") is None, reason="no script(1) here (Debian package bsdutils)")
def test_a_terminal_shows_it_again_in_place(stalled: Stalled) -> None:
    command = " ".join((*HOLDFAST, "inspect", f"'{stalled.where}'", "--interval", "0.05", "--count", "3"))
    done = subprocess.run(
        ("script", "-qec", f"stty cols 80 rows 24; {command}", "/dev/null"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.count("NOW ") >= 3
    assert "\x1b[1A" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        ((), 2, "say which connections: HOST:PORT, --pid PID (or both), or --all."),
        (("--all", ":80"), 2, "say which connections: HOST:PORT, --pid PID (or both), or --all."),
        ((":70000",), 2, "port 70000 is not between 1 and 65535."),
        (("no-such-host.invalid:80",), 2, "the host 'no-such-host.invalid' cannot be found ("),
        (("--pid", "4194305"), 2, "no process has the pid 4194305: see ps -e."),
        (("--pid", "9" * 300), 2, f"no process has the pid {'9' * 300}: see ps -e."),
        (("--all", "--count", "2"), 2, "--count needs --interval."),
        (("--all", "--interval", "nan"), 2, "--interval takes a number of seconds."),
        (("192.0.2.77:1",), 1, "this network namespace has no TCP socket at 192.0.2.77:1."),
        (("--json", "192.0.2.77:1"), 1, "this network namespace has no TCP socket at 192.0.2.77:1."),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(args: tuple[str, ...], code: int, sentence: str) -> None:
    done = holdfast("inspect", *args)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert done.err.startswith(f"holdfast: {sentence}")


@pytest.mark.needs_netns
def test_a_namespace_without_sockets_is_no_error_for_all() -> None:
    done = subprocess.run(
        ("unshare", "-n", *HOLDFAST, "inspect", "--all"), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n0 connections, 0 listeners.\n" in done.stdout


def test_without_rights_all_but_the_owners_is_told(stalled: Stalled, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user's process cannot be made without root")
    tmp_path.chmod(0o777)
    nobody = (*AS_NOBODY, *HOLDFAST)
    env = os.environ | {"HOME": str(tmp_path)}
    with Running("inspect", stalled.where, command=nobody, cwd="/", env=env) as process:
        done = process.await_exit()
    assert (done.code, done.out.splitlines()[1].split()[:2]) == (0, ["not_reading", "-"])
    words = "Some owners are hidden: processes of other users, which root sees, or of other containers."
    assert done.err == words
    with Running("inspect", "--pid", str(stalled.pid), command=nobody, cwd="/", env=env) as process:
        done = process.await_exit()
    assert (done.code, done.out) == (3, "")
    assert done.err.endswith("is not available here: it needs root, or CAP_SYS_PTRACE.")

# SPDX-License-Identifier: Apache-2.0
"""Each example does what it says while its connections are reset under it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty import relay

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LIMIT_S = 40


@contextmanager
def running(*argv: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An example in the background, and the URL that it prints first."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / argv[0]), *argv[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def run(*argv: str, stdin: str = "") -> str:
    command = [sys.executable, str(EXAMPLES / argv[0]), *argv[1:]]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ended(*argv: str, cwd: Path | None = None) -> tuple[int, str]:
    """The status of an example that fails, and what it says."""
    command = [sys.executable, str(EXAMPLES / argv[0]), *argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)
    return done.returncode, done.stderr


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100


def test_orders_stay_in_sequence() -> None:
    with (
        running("orders.py", "serve", "tcp://127.0.0.1:0") as (_, url),
        relay(port_of(url), 1, 4000, 6) as path,  # each more has the client wait longer, as it should
    ):
        told = run("orders.py", "send", f"tcp://127.0.0.1:{path.port}", "600")
        assert told.startswith("600 orders reported in sequence")
        assert path.resets >= 5 and " 0 resumes" not in told


@pytest.mark.slow
def test_a_file_arrives_whole(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.write_bytes(bytes(range(256)) * 4000)
    with (
        running("send_file.py", "receive", "tcp://127.0.0.1:0", str(copy)) as (receiver, url),
        relay(port_of(url), 2, 60_000, 8) as path,
    ):
        told = run("send_file.py", "send", f"tcp://127.0.0.1:{path.port}", str(original))
        assert "1024000 bytes arrived" in told and path.resets >= 4
        receiver.wait(LIMIT_S)
    assert copy.read_bytes() == original.read_bytes()


@pytest.mark.slow
def test_a_chat_hears_everybody_once() -> None:
    with running("chat.py", "room", "tcp://127.0.0.1:0") as (_, url), relay(port_of(url), 3, 700, 6) as path:
        where = f"tcp://127.0.0.1:{path.port}"
        said = [f"line {number}" for number in range(40)]
        listener = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "chat.py"), "join", where, "bob"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "* bob is here\n"
            run("chat.py", "join", where, "ada", stdin="\n".join(said) + "\n")
            heard = []
            while (line := listener.stdout.readline()) and "has left" not in line:
                heard.append(line.strip())
        finally:
            listener.kill()
            listener.communicate()
    assert heard == ["* ada is here", *(f"ada: {line}" for line in said)]
    assert path.resets >= 1


@pytest.mark.parametrize("name", ["orders.py", "chat.py", "send_file.py"])
@pytest.mark.parametrize(
    ("argv", "says"),
    [((), "usage: "), (("ROLE", "tcp://127.0.0.1:1", "a", "--psk", "no.psk"), "no.psk cannot be read")],
)  # fmt: skip
def test_a_wrong_command_gets_one_sentence(
    name: str, argv: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    role = {"orders.py": "serve", "chat.py": "room", "send_file.py": "receive"}[name]
    asked = [{"ROLE": role, "a": "7" if name == "orders.py" else "a"}.get(one, one) for one in argv]
    status, told = ended(name, *asked, cwd=tmp_path)
    assert status != 0 and says in told and "Traceback" not in told


def test_a_full_disk_is_told_at_both_ends() -> None:
    with running("send_file.py", "receive", "tcp://127.0.0.1:0", "/dev/full") as (receiver, url):
        status, told = ended("send_file.py", "send", url, __file__)
        assert status == 1 and "code 256" in told and "Traceback" not in told
        assert receiver.wait(LIMIT_S) == 1


@pytest.mark.slow
def test_orders_go_to_whom_the_certificate_names(tmp_path: Path) -> None:
    command = "req -x509 -newkey rsa:2048 -noenc -subj /CN=a -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *command.split(), "-keyout", "key", "-out", "cert"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "psk").write_bytes(bytes(range(32)))
    (tmp_path / "psk").chmod(0o600)
    known = [f"--psk={tmp_path}/psk"]
    named = [f"--cert={tmp_path}/cert", f"--key={tmp_path}/key"]
    with running("orders.py", "serve", "tls://127.0.0.1:0", *known, *named) as (_, url):
        assert run("orders.py", "send", url, "5", *known, f"--ca={tmp_path}/cert").startswith("5 orders")

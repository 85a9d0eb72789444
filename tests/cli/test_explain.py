# SPDX-License-Identifier: Apache-2.0
"""The command explains captures: its text, its JSON, its table, its files, its exit codes."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from cli.command import HOLDFAST, Done, holdfast
from click.testing import CliRunner

from holdfast.cli import main
from holdfast.watch.explain import Explaining

LAB = Path(__file__).resolve().parents[1] / "captures/lab"
INJECTED, RACE = str(LAB / "injected.client.pcap"), str(LAB / "keepalive_race.client.pcap")
SCANNED = str(LAB / "handshake_abandoned.client.pcap")


def explain(*arguments: str) -> Done:
    """The command in this process, which is quicker."""
    result = CliRunner().invoke(main, ["explain", *arguments])
    return Done(result.exit_code, result.stdout, result.stderr)


def test_the_text_says_who_why_what_was_lost_and_what_to_do() -> None:
    done = explain(INJECTED)
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("1 connection was reset: 1 by the path.\n")
    words = " ".join(done.out.split())
    assert "most likely forged the reset that ended the connection of client" in words
    assert "Sent by the path, bearing the address of the server" in words
    assert "+3 TTL 128, but the other segments from there have 63" in words
    assert "Do Capture at both ends and compare" in words
    assert "Zeek as RSTR" in words
    assert max(map(len, done.out.splitlines())) <= 80


def test_usual_traffic_is_counted_and_told_on_demand() -> None:
    done = explain(SCANNED)
    assert "Left out (--all shows them): 1 × handshake_abandoned" in done.out
    assert "Evidence" not in done.out
    assert "Evidence" in explain(SCANNED, "--all").out


def test_json_has_one_object_a_line() -> None:
    done = explain(INJECTED, RACE, "--json")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["cause"], one["sender"]) for one in records] == [
        ("keepalive_race", "server"),
        ("injected", "path"),
    ]
    assert all(one["schema"] == 1 for one in records)


def test_the_table_is_csv_and_holds_no_formula() -> None:
    done = explain(INJECTED, RACE, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["cause"] for row in rows] == ["keepalive_race", "injected"]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+@" and cell]


@pytest.mark.parametrize(
    ("terms", "causes"),
    [
        (["cause=injected"], ["injected"]),
        (["sender=server"], ["keepalive_race"]),
        (["cause=injected", "cause=keepalive_race"], ["keepalive_race", "injected"]),
        (["cause=injected", "sender=server"], []),
        (["address=10.64.0.0/10"], ["keepalive_race", "injected"]),
        (["address=2001:db8::/32"], []),
        (["from=2000-01-01T00:00:00Z", "to=2001-01-01T00:00:00Z"], []),
    ],
)
def test_filters(terms: list[str], causes: list[str]) -> None:
    asked = [word for term in terms for word in ("--filter", term)]
    done = explain(INJECTED, RACE, "--json", *asked)
    assert [json.loads(line)["cause"] for line in done.out.splitlines()] == causes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--filter", "colour=red"], "'colour=red' is no filter"),
        (["--filter", "cause=injectd"], "Did you mean injected?"),
        (["--filter", "port=0"], "'0' is no port"),
        (["--filter", "address=x"], "'x' is no address"),
        (["--filter", "from=soon"], "'soon' is no time"),
        (["--live", "lo"], "name captures, or an interface with --live"),
        (["--json", "--csv"], "--json and --csv exclude each other"),
        (["--extract", INJECTED], "would overwrite"),
        (["--html", INJECTED], "would overwrite"),
        (["--vantage", RACE, "--extract", RACE], "would overwrite"),
        (["--html", str(LAB)], "cannot be written"),
        (["--vantage", str(LAB / ".." / "lab" / "injected.client.pcap")], "cannot testify for itself"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], words: str) -> None:
    done = explain(INJECTED, *arguments)
    assert done.code == 2 and words in done.err and "Traceback" not in done.err


def test_without_numpy_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.watch.explain.find_spec", lambda name: None)
    done = explain(INJECTED)
    assert done.code == 0 and "most likely forged" in " ".join(done.out.split())
    assert "install numpy" in done.err


def test_what_is_no_capture_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello, world, this is no capture")
    done = explain(str(tmp_path / "x"))
    assert done.code == 1 and "is not a capture" in done.err and "Traceback" not in done.err


def test_a_damaged_file_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(INJECTED).read_bytes()[:-9])
    done = explain(str(cut), "--json")
    assert done.code == 4
    assert json.loads(done.out)["cause"] == "injected"
    assert "cut.pcapisdamagedatbyte" in "".join(done.err.split())


def test_standard_input_will_do() -> None:
    with Path(INJECTED).open("rb") as file:
        done = holdfast("explain", "-", "--json", stdin=file)
    assert json.loads(done.out)["cause"] == "injected"
    with Path(INJECTED).open("rb") as file:
        assert "  standard input: 20" in holdfast("explain", "-", stdin=file).out


def test_a_second_vantage_is_proof() -> None:
    assert "Capture at the server as well" in " ".join(explain(INJECTED).out.split())
    done = explain(INJECTED, "--vantage", str(LAB / "injected.server.pcap"))
    assert "Capture at the server as well" not in " ".join(done.out.split())  # it has been
    assert "+10" in done.out and "it was never sent" in " ".join(done.out.split())


def test_the_packets_of_the_listed_connections_are_extracted(tmp_path: Path) -> None:
    both, only = tmp_path / "both.pcap", tmp_path / "only.pcap"
    both.write_bytes(Path(INJECTED).read_bytes() + Path(RACE).read_bytes()[24:])
    done = explain(str(both), "--filter", "cause=injected", "--extract", str(only))
    assert done.code == 0
    told = Explaining([[str(only)]]).run()
    assert [one.cause for one in told.found] == ["injected"]
    assert told.reads[0].packets == told.reads[0].tcp == 10


def test_the_page_is_written(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert explain(INJECTED, "--html", str(target)).code == 0
    assert target.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    done = explain(INJECTED, "--html", str(tmp_path / "no/report.html"))
    assert done.code == 2 and "cannot be written" in done.err


def test_what_cannot_be_written_is_said_before_the_reading(tmp_path: Path) -> None:
    done = explain(INJECTED, "--extract", str(tmp_path / "no/only.pcap"))
    assert done.code == 2 and "cannot be written" in done.err and done.out == ""


def test_files_are_written_although_nobody_reads_the_text(tmp_path: Path) -> None:
    report, only = tmp_path / "report.html", tmp_path / "only.pcap"
    pipe = subprocess.Popen(
        (*HOLDFAST, "explain", INJECTED, "--html", str(report), "--extract", str(only)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert pipe.stdout is not None and pipe.stderr is not None
    pipe.stdout.close()  # before it has begun to write
    err = pipe.stderr.read()
    pipe.wait(20)
    assert b"Traceback" not in err and report.stat().st_size and only.stat().st_size


def test_captures_that_overlap_or_are_named_twice_are_said(tmp_path: Path) -> None:
    (tmp_path / "link.pcap").symlink_to(INJECTED)
    twice = explain(INJECTED, str(tmp_path / "link.pcap"))
    assert "Named twice, and read once:" in twice.out and "packets 14," in twice.out
    assert "1  injected " in twice.out
    (tmp_path / "copy.pcap").write_bytes(Path(INJECTED).read_bytes())
    copied = explain(INJECTED, str(tmp_path / "copy.pcap"), "--json")
    assert "Packets in both count twice" in " ".join(copied.err.split())
    assert "Overlaps" not in explain(INJECTED, RACE).out


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("retransmission_timeout", "went silent: data was sent again, and nothing came back any more."),
        ("connect_timeout", "got no answer, although repeated."),
    ],
)
def test_what_ended_without_a_reset_is_counted(scenario: str, words: str) -> None:
    capture = str(LAB / f"{scenario}.client.pcap")
    assert words in " ".join(explain(capture).out.split())
    assert words in explain(capture, "--html", "-").out
    assert explain(capture, "--json").out == ""


def test_the_page_says_what_it_leaves_out() -> None:
    page = explain(SCANNED, "--html", "-").out
    assert "1 × handshake_abandoned" in page and "No connection in it was reset." not in page


def await_read(pipe: int) -> None:
    """Wait until the other end has taken what was written."""
    deadline_s = time.monotonic() + 20
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_ctrl_c_tells_what_was_found() -> None:
    """The pipe stays open: the command waits for more, and is interrupted."""
    process = subprocess.Popen(
        (*HOLDFAST, "explain", "-", "--json"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(Path(INJECTED).read_bytes())
    process.stdin.flush()
    await_read(process.stdin.fileno())
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert process.wait(20) == 130
    process.stdin.close()
    assert json.loads(out)["cause"] == "injected"


LISTENING = """
import json, signal, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command = [sys.executable, "-m", "holdfast", "explain", "--live", "lo", "--json"]
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert "Listening" in process.stderr.readline()
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.sendall(b"unread")
server.recv(1)
server.close()
closed = socket.create_server(("127.0.0.1", 0))
port = closed.getsockname()[1]
closed.close()
socket.socket().connect_ex(("127.0.0.1", port))
lines = [process.stdout.readline() for _ in range(2)]
process.send_signal(signal.SIGINT)
out, err = process.communicate(timeout=20)
lines += out.splitlines()
print(json.dumps({"records": [*map(json.loads, lines)], "code": process.returncode, "err": err}))
"""


@pytest.mark.slow
@pytest.mark.needs_netns
def test_an_interface_is_explained_as_it_happens() -> None:
    done = subprocess.run(
        ("unshare", "--net", sys.executable, "-c", LISTENING), capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    unread, refused, again = told["records"]
    assert (unread["cause"], unread["sender"]) == ("closed_with_unread_data", "server")
    assert (refused["cause"], refused["sender"]) == ("connection_refused", "unknown")
    assert (again["cause"], again["sender"], again["id"]) == ("connection_refused", "server", refused["id"])
    assert told["code"] == 0
    assert "Those, told again" in told["err"]
    assert "2 connections were reset: 2 by the server." in told["err"]


def browser() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    """Loaded in a real browser without a network it has its rows and diagrams, and a picture is no blank."""
    report, picture = tmp_path / "report.html", tmp_path / "report.png"
    captures = [str(LAB / f"{name}.client.pcap") for name in ("injected", "keepalive_race", "linger_zero")]
    assert explain(*captures, "--html", str(report)).code == 0
    base = (
        *(str(browser()), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={tmp_path}/profile", "--host-resolver-rules=MAP * ~NOTFOUND"),
    )
    dom = subprocess.run(
        (*base, "--dump-dom", report.as_uri()), capture_output=True, text=True, timeout=60
    ).stdout
    assert dom.count('class="sequence"') == 3 and dom.count("<tr>") == 4
    subprocess.run(
        (*base, "--window-size=1200,1800", f"--screenshot={picture}", report.as_uri()),
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert picture.stat().st_size > 60_000  # a blank page has about 10 kB


def test_many_files_are_named_in_few_words_and_each_record_by_its_own() -> None:
    files = sorted(str(one) for one in LAB.glob("*.client.pcap"))
    said = "".join(explain(*files, "--limit", "0").out.split())  # a long path is broken over lines
    assert f"{len(files)}files,{files[0]}…{files[-1]}:20" in said and files[1] not in said
    records = map(json.loads, explain(INJECTED, RACE, "--json").out.splitlines())
    assert [one["file"] for one in records] == [RACE, INJECTED]


def test_a_sentence_claims_no_more_than_is_known() -> None:
    refused = " ".join(explain(str(LAB / "connection_refused.client.pcap")).out.split())
    assert "was refused: nothing listens there, or a firewall rejects it." in refused
    assert "Capture both directions" not in refused  # nothing is missing: a RST is all that answered
    claim = "Or so that RST claims: who sent it cannot be told from here."
    unknown = " ".join(explain(str(LAB / "unknown_connection.client.pcap"), "--all").out.split())
    assert claim in unknown and "unverifiable from here" in unknown
    assert claim not in explain(str(LAB / "rebooted_peer.client.pcap"), "--all").out


def test_a_page_on_standard_output_stands_there_alone() -> None:
    done = explain(INJECTED, "--html", "-")
    assert done.out.startswith("<!doctype html>") and done.out.count("<html") == 1
    assert explain(INJECTED, "--html", "-", "--json").code == 2


def test_a_closed_standard_input_is_said() -> None:
    command = [sys.executable, "-m", "holdfast", "explain", "-"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "holdfast: standard input cannot be read: it is closed.\n")

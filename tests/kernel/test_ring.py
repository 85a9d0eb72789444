# SPDX-License-Identifier: Apache-2.0
"""``holdfast._bpf``: misuse is an exception in words, never a crash; what is folded is counted exactly."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import AS_NOBODY
from kernel.quiet_network import netns, quiet_network
from kernel.watching import await_that, each_of

from holdfast.events import Kind
from holdfast.watch.kernel import wire
from holdfast.watch.kernel.load import OBJECT, Monitor
from holdfast.watch.kernel.source import KEEP_PER_DRAIN, KernelSource

_bpf = pytest.importorskip("holdfast._bpf", exc_type=ModuleNotFoundError)
LAYOUT = (wire.EVENT.size, wire.TALLY_KEY.size)
Inside = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def unloaded() -> Iterator[Any]:
    made = _bpf.Object(str(OBJECT))
    yield made
    made.close()


@pytest.fixture
def loaded(unloaded: Any) -> Any:
    """Maps only: no program is asked for."""
    unloaded.load([])
    return unloaded


@pytest.fixture
def inside() -> Iterator[Inside]:
    with quiet_network() as run:
        yield run


# What needs no rights.


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nowhere/at/all.o", FileNotFoundError),
        ("/etc/passwd", OSError),
        ("/tmp", OSError),
        ("", OSError),
        ("a\0b", ValueError),
        (7, TypeError),
        (None, TypeError),
    ],
)
def test_a_path_that_is_no_object(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _bpf.Object(path)


def test_the_sentence_names_the_file_and_what_is_wrong_with_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"opening /nowhere\.o: No such file") as caught:
        _bpf.Object("/nowhere.o")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="'/etc/passwd' is not a proper ELF object"):
        _bpf.Object("/etc/passwd")


def test_a_damaged_object_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with octets turned over in its headers: an exception, or an object, never a crash."""
    whole = OBJECT.read_bytes()
    broken = tmp_path / "broken.o"
    for cut in (1, 16, 64, 1000, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:cut])
        with pytest.raises(OSError, match=r"broken\.o"):
            _bpf.Object(str(broken))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (("set_constant", "nothing", b"x"), KeyError, "no BPF constant nothing of 1 bytes"),
        (("set_constant", "segments", b"xx"), KeyError, "no BPF constant segments of 2 bytes"),
        (("set_constant", "segments", b""), KeyError, "no BPF constant segments of 0 bytes"),
        (("set_constant", "ring", b"x"), KeyError, "no BPF constant ring"),
        (("set_max_entries", "nothing", 1), KeyError, "no BPF map named nothing"),
        (("attach", "nothing"), KeyError, "no BPF program named nothing"),
        (("attach", "state_changed"), OSError, "attaching state_changed"),
        (("iterate", "nothing"), KeyError, "no BPF program named nothing"),
        (("iterate", "socket_found"), OSError, "attaching socket_found"),
        (("sums", "nothing"), KeyError, "no BPF map named nothing"),
        (("sums", "losses"), ValueError, "losses is not a loaded map of counters"),
        (("drain", "nothing", *LAYOUT, 1), KeyError, "no BPF map named nothing"),
        (("drain", "ring", *LAYOUT, 1), OSError, "reading ring ring"),
        (("load", 7), TypeError, "not iterable"),
        (("load", ["nothing"]), KeyError, "not every one of"),
        (("load", ["state_changed", "nothing"]), KeyError, "not every one of"),
        (("set_max_entries", "ring", -1), ValueError, "no map has -1 entries"),
        (("set_max_entries", "ring", 1 << 40), ValueError, "no map has 1099511627776 entries"),
        (("load",), TypeError, "argument"),
    ],
)
def test_misuse_before_loading(
    unloaded: Any, call: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    name, *arguments = call
    with pytest.raises(error, match=words):
        getattr(unloaded, name)(*arguments)


EVERY_CALL: list[tuple[Any, ...]] = [
    ("set_constant", "segments", b"\1"),
    ("set_max_entries", "ring", 4096),
    ("load", []),
    ("attach", "state_changed"),
    ("iterate", "socket_found"),
    ("sums", "losses"),
    ("drain", "ring", *LAYOUT, 1),
    ("statistics",),
    ("skipped",),
]


@pytest.mark.parametrize("call", EVERY_CALL, ids=[call[0] for call in EVERY_CALL])
def test_a_closed_object_says_so(unloaded: Any, call: tuple[Any, ...]) -> None:
    unloaded.close()
    unloaded.close()
    name, *arguments = call
    with pytest.raises(ValueError, match="the BPF object is closed"):
        getattr(unloaded, name)(*arguments)


def test_every_method_is_in_the_table_above() -> None:
    public = {name for name in dir(_bpf.Object) if not name.startswith("_")}
    assert public == {call[0] for call in EVERY_CALL} | {"close"}


def test_an_object_that_was_never_made_is_closed() -> None:
    with pytest.raises(ValueError, match="the BPF object is closed"):
        _bpf.Object.__new__(_bpf.Object).sums("losses")


# What needs the rights to load.


@pytest.mark.needs_bpf
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (("load", []), OSError, "load can't be attempted twice"),
        (("set_constant", "segments", b"\1"), ValueError, "set too late"),
        (("drain", "ring", 1 << 62, 16, 1), ValueError, "impossible record layout"),
        (("set_max_entries", "ring", 4096), OSError, "sizing map ring"),
        (("attach", "state_changed"), OSError, "can't attach before loaded"),
        (("iterate", "reset_sent"), OSError, "attaching reset_sent"),
        (("sums", "ring"), ValueError, "ring is not a loaded map of counters"),
        (("sums", "closed"), ValueError, "closed is not a loaded map of counters"),
        (("drain", "losses", *LAYOUT, 1), OSError, "reading ring losses"),
        (("drain", "ring", 0, 1, 1), ValueError, "impossible record layout"),
        (("drain", "ring", 16, 17, 1), ValueError, "impossible record layout"),
        (("drain", "ring", 64, 33, 1), ValueError, "impossible record layout"),
        (("drain", "ring", 64, -1, 1), ValueError, "impossible record layout"),
        (("drain", "ring", 64, 16, 0), ValueError, "impossible record layout"),
    ],
)
def test_misuse_after_loading(loaded: Any, call: tuple[Any, ...], error: type[Exception], words: str) -> None:
    name, *arguments = call
    with pytest.raises(error, match=words):
        getattr(loaded, name)(*arguments)


@pytest.mark.needs_bpf
@pytest.mark.parametrize("call", [("closed", *LAYOUT, 1), ("ring", 64, 16, 1), ("ring", LAYOUT[0], 8, 1)])
def test_a_ring_keeps_the_layout_it_was_first_read_with(loaded: Any, call: tuple[Any, ...]) -> None:
    loaded.drain("ring", *LAYOUT, 1)
    with pytest.raises(ValueError, match="another ring or layout than before"):
        loaded.drain(*call)


@pytest.mark.needs_bpf
def test_a_fresh_object_has_counted_nothing(loaded: Any) -> None:
    assert loaded.sums("losses") == {loss.to_bytes(4, "little"): 0 for loss in wire.Loss}
    assert loaded.sums("tallies") == {}
    assert loaded.drain("ring", *LAYOUT, 1) == (b"", {})
    assert loaded.statistics() == {}


@pytest.mark.needs_bpf
def test_a_second_start_frees_the_first(unloaded: Any) -> None:
    """__init__ called again, as Python allows, replaces the object."""
    unloaded.load([])
    unloaded.__init__(str(OBJECT))
    unloaded.load([])
    assert unloaded.sums("tallies") == {}


@pytest.mark.needs_bpf
def test_closing_detaches() -> None:
    monitor = Monitor()
    monitor.close()
    with pytest.raises(ValueError, match="closed"):
        monitor.object.drain("ring", *LAYOUT, 1)
    monitor.close()


# Folding: known numbers of refused connections, alike but for the port.


def refuse(count: int) -> int:
    """So many connection attempts to a closed port; gives the namespace they happened in."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()
    for _ in range(count):
        with socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED
    return netns()


def kinds(records: bytes, of: int) -> Counter[Kind]:
    names = wire.Names({}, 1)
    return Counter(event.kind for event in wire.decode(records, names) if event.netns == of)


def folded_kinds(folded: dict[bytes, int], of: int) -> Counter[Kind]:
    found = Counter[Kind]()
    for raw, times in folded.items():
        event = wire.event_of_key(wire.TallyKey(*wire.TALLY_KEY.unpack(raw)), wire.Names({}, 1))
        if event.netns == of:
            found[event.kind] += times
    return found


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize(("count", "keep"), [(10, 64), (64, 64), (65, 64), (200, 64), (200, 1), (200, 199)])
def test_beyond_what_is_kept_alike_records_are_counted(inside: Inside, count: int, keep: int) -> None:
    monitor = Monitor()
    try:
        of = inside(lambda: refuse(count))
        records, folded = monitor.object.drain("ring", *LAYOUT, keep)
        kept, each = min(count, keep), each_of(monitor.hooks)
        assert kinds(records, of) == dict.fromkeys(each, kept)
        assert folded_kinds(folded, of) == {kind: count - kept for kind in each if count > kept}
        again, folded = monitor.object.drain("ring", *LAYOUT, keep)
        assert (kinds(again, of), folded_kinds(folded, of)) == ({}, {})
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_more_than_one_drain_returns_waits_for_the_next(inside: Inside) -> None:
    """4096 records a call: neither lost nor told twice at the seam."""
    count = 1500
    monitor = Monitor()
    try:
        of = inside(lambda: refuse(count))
        found, calls = Counter[Kind](), 0
        while (got := monitor.object.drain("ring", *LAYOUT, 10_000))[0]:
            assert got[1] == {}
            assert len(got[0]) <= 4096 * wire.EVENT.size
            found += kinds(got[0], of)
            calls += 1
        each = each_of(monitor.hooks)
        assert found == dict.fromkeys(each, count)
        assert calls >= count * len(each) / 4096
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_the_source_adds_up_what_it_folds(inside: Inside) -> None:
    with KernelSource() as source:
        of = inside(lambda: refuse(200))
        told = Counter(event.kind for event in source.drain() if event.netns == of)
        each = each_of(source.hooks)
        assert told == dict.fromkeys(each, KEEP_PER_DRAIN)
        assert source.folded >= len(each) * (200 - KEEP_PER_DRAIN)
        totals = Counter[Kind]()
        for event, times in source.totals():
            if event.netns == of:
                totals[event.kind] += times
        assert totals == dict.fromkeys(each, 200)
        assert (source.lost(), source.uncounted()) == (0, 0)


# Without rights.


ATTEMPT = """
from holdfast.errors import KernelUnavailable
from holdfast.watch.kernel.source import KernelSource
try:
    KernelSource().close()
except KernelUnavailable as error:
    print(error.feature, error.needs, error, sep="|")
"""


@pytest.mark.needs_bpf
def test_without_rights_the_sentence_says_which_are_needed() -> None:
    """Whatever fails first (opening BTF, loading, attaching): one error of ours, and what would help."""
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", ATTEMPT], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    feature, needs, sentence = done.stdout.strip().split("|")
    assert feature == "watching by BPF"
    assert needs == "root, or the capabilities BPF, PERFMON and NET_ADMIN"
    assert sentence == f"{feature} is not available here: it needs {needs}."


KILLED = """
import os, pathlib
from holdfast.watch.kernel.load import Monitor
monitor = Monitor()
for fd in range(3, 100):
    info = pathlib.Path(f"/proc/self/fdinfo/{fd}")
    words = info.read_text().split() if info.exists() else []
    if "prog_id:" in words:
        print(words[words.index("prog_id:") + 1], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.needs_bpf
def test_a_process_that_is_killed_leaves_nothing_attached() -> None:
    """The kernel detaches with the last file descriptor; nothing is pinned."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, timeout=30, check=False)
    assert done.returncode == -9, done.stderr
    loaded = {int(number) for number in done.stdout.split()}
    assert len(loaded) > 5
    left = await_that(lambda: loaded & loaded_programs(), lambda left: not left)
    assert left == set(), "programs are left in the kernel"


BPF_PROG_GET_NEXT_ID = 11


def loaded_programs() -> set[int]:
    """Identifiers of every BPF program in the kernel (bpf(BPF_PROG_GET_NEXT_ID))."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    found: set[int] = set()
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
        if libc.syscall(number, BPF_PROG_GET_NEXT_ID, attr, 12) != 0:
            return found
        last = struct.unpack_from("<III", attr)[1]
        found.add(last)

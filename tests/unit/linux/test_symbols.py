# SPDX-License-Identifier: Apache-2.0
"""Addresses become kernel functions and places in modules, or stay bare addresses."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.linux.symbols import KernelSymbols, Mapping, UserSymbols, parse_maps, place, user_path

KALLSYMS = """\
ffffffff81000200 T tcp_close
ffffffff81000100 t tcp_disconnect.isra.0
ffffffff81000180 d not_code
ffffffffc0000000 t nf_send_reset\t[nf_reject_ipv4]
nonsense
zz T bad
"""


@pytest.fixture
def kernel(tmp_path: Path) -> KernelSymbols:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    return KernelSymbols(tmp_path / "kallsyms")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF810000FF, "0xffffffff810000ff"),
        (0xFFFFFFFF81000100, "tcp_disconnect"),
        (0xFFFFFFFF810001FF, "tcp_disconnect"),
        (0xFFFFFFFF81000200, "tcp_close"),
        (0xFFFFFFFF81200000, "0xffffffff81200000"),
        (0xFFFFFFFFC0000010, "nf_send_reset"),
        (0, "0x0"),
    ],
)
def test_kernel_names(kernel: KernelSymbols, address: int, name: str) -> None:
    assert kernel.name(address) == name
    assert not kernel.hidden


@pytest.mark.parametrize("text", ["", "0000000000000000 T tcp_close\n", "\x00\xff"])
def test_hidden_addresses_stay_bare(tmp_path: Path, text: str) -> None:
    (tmp_path / "kallsyms").write_text(text)
    symbols = KernelSymbols(tmp_path / "kallsyms")
    assert (symbols.hidden, symbols.name(4096)) == (True, "0x1000")


def test_no_kallsyms_at_all(tmp_path: Path) -> None:
    assert KernelSymbols(tmp_path / "absent").hidden


MAPS = """\
00400000-00401000 r--p 00000000 fe:00 12 /usr/bin/nginx
00401000-00500000 r-xp 00001000 fe:00 12 /usr/bin/nginx
7f0000000000-7f0000010000 r-xp 00002000 fe:00 13 /lib/with space.so (deleted)
7f0000020000-7f0000021000 rwxp 00000000 00:00 0
7ffff0000000-7ffff0002000 r-xp 00000000 00:00 0 [vdso]
"""
PARSED = (
    Mapping(0x401000, 0x500000, 0x1000, "nginx"),
    Mapping(0x7F0000000000, 0x7F0000010000, 0x2000, "with space.so"),
    Mapping(0x7F0000020000, 0x7F0000021000, 0, "[anon]"),
    Mapping(0x7FFFF0000000, 0x7FFFF0002000, 0, "[vdso]"),
)


def test_executable_ranges() -> None:
    assert parse_maps(MAPS) == PARSED


def test_every_cut_gives_a_part(tmp_path: Path) -> None:
    for length in range(len(MAPS)):
        assert len(parse_maps(MAPS[:length])) <= len(PARSED)


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdef- rwxp/[]\n", max_size=200))
def test_any_maps_are_survived(text: str) -> None:
    place(parse_maps(text), 0x401234)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (0x400FFF, None),
        (0x401000, "nginx+0x1000"),
        (0x4FFFFF, "nginx+0xfffff"),
        (0x500000, None),
        (0x7F0000000010, "with space.so+0x2010"),
        (1 << 63, None),
    ],
)
def test_places(address: int, where: str | None) -> None:
    assert place(PARSED, address) == where


def write(proc: Path, pid: int, born: int, maps: str) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {' '.join('0' * 18)} {born} 0")
    (proc / str(pid) / "maps").write_text(maps)


def test_a_process_is_read_again_when_its_pid_or_its_maps_changed(tmp_path: Path) -> None:
    symbols = UserSymbols(tmp_path)
    write(tmp_path, 5, 100, "1000-2000 r-xp 0 0:0 1 /one\n")
    assert symbols.name(5, 0x1000) == "one+0x0"
    write(tmp_path, 5, 100, "1000-2000 r-xp 0 0:0 1 /one\n3000-4000 r-xp 0 0:0 1 /late\n")
    assert symbols.name(5, 0x3004) == "late+0x4"
    write(tmp_path, 5, 200, "1000-2000 r-xp 0 0:0 1 /other\n")
    assert symbols.name(5, 0x1000) == "other+0x0"
    (tmp_path / "5" / "stat").unlink()
    assert (symbols.name(5, 0x1001), symbols.name(5, 0x9000)) == ("other+0x1", None)


@pytest.mark.parametrize(
    ("addresses", "path"),
    [
        ((0x1000, 0x1010, 0, 0), ("one+0x0", "one+0x10")),
        # Without frame pointers: a number, a place on the stack, and by chance one in the code again.
        ((0x1000, 0x6, 0x1010), ("one+0x0",)),
        ((0x1000, 0x5000, 0x1010), ("one+0x0",)),
        ((0, 0x1000), ()),
        ((), ()),
    ],
)
def test_a_path_ends_where_no_code_is(tmp_path: Path, addresses: tuple[int, ...], path: object) -> None:
    write(tmp_path, 5, 100, "1000-2000 r-xp 0 0:0 1 /one\n5000-6000 rw-p 0 0:0 0 [stack]\n")
    assert user_path(UserSymbols(tmp_path).name, 5, addresses) == path


def test_only_so_many_processes_are_kept(tmp_path: Path) -> None:
    symbols = UserSymbols(tmp_path, capacity=2)
    for pid in (1, 2, 3):
        write(tmp_path, pid, pid, "1000-2000 r-xp 0 0:0 1 /m\n")
        assert symbols.name(pid, 0x1000) == "m+0x0"
    for pid in (1, 2, 3):
        (tmp_path / str(pid) / "stat").unlink()
    assert [symbols.name(pid, 0x1000) for pid in (1, 2, 3)] == [None, "m+0x0", "m+0x0"]


def test_our_own_libc_is_found() -> None:
    function = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert function is not None
    found = UserSymbols().name(os.getpid(), function)
    assert found is not None
    module, _, offset = found.partition("+")
    assert module.startswith(("libc", "ld-musl"))
    assert int(offset, 16) > 0

# SPDX-License-Identifier: Apache-2.0
"""The C compiler judges ``wire.py``: what C stores by name, Python must read by place."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.watch.record_fields import EVENT, FIELDS, NAMES, packed
from unit.watch.samples import ENUM_6_18

from holdfast.linux.btf import KERNEL_BTF, Btf
from holdfast.watch.kernel import wire

BPF = Path(__file__).parents[2] / "bpf"
HEADER = (BPF / "event.h").read_text()
STRUCTS = {"struct event": wire.EVENT.size, "struct tally_key": wire.TALLY_KEY.size}

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
Run = Callable[[str, str], bytes]


@pytest.fixture(params=COMPILERS or [""])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Compile a main() against a text of event.h and give what the program prints."""
    compiler: str = request.param
    if not compiler:
        pytest.skip("no C compiler")
    return lambda header, body: _run(compiler, header, body, tmp_path)


def _run(compiler: str, header: str, body: str, folder: Path) -> bytes:
    (folder / "event.h").write_text(header)
    source = folder / "main.c"
    source.write_text(
        "#include <linux/types.h>\n#include <stddef.h>\n#include <stdio.h>\n#include <string.h>\n"
        f'#include "event.h"\nint main(void)\n{{\n{body}\nreturn 0;\n}}\n'
    )
    program = folder / "main"
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert built.returncode == 0, built.stderr
    return subprocess.run([str(program)], capture_output=True, timeout=10, check=True).stdout


def _stored_by_name() -> str:
    """C statements that give every field of the sample its value, and write the record out."""
    lines = ["struct event e;", "memset(&e, 0, sizeof(e));"]
    for field in FIELDS:
        if isinstance(field.value, int):
            lines.append(f"e.{field.name} = {field.value}ULL;")
        elif field.value:
            octets = "".join(f"\\x{octet:02x}" for octet in field.value)
            lines.append(f'memcpy(e.{field.name}, "{octets}", {len(field.value)});')
    return "\n".join([*lines, "fwrite(&e, sizeof(e), 1, stdout);"])


def test_c_stores_what_python_reads(run: Run) -> None:
    record = run(HEADER, _stored_by_name())
    assert list(wire.decode(record, NAMES)) == [EVENT]
    assert record == packed()


def test_sizes_and_places(run: Run) -> None:
    """Every leaf of struct event, and nothing between them: the sizes add up to the whole."""
    lines = [f'printf("%zu\\n", sizeof({name}));' for name in STRUCTS]
    lines += [
        f'printf("%zu %zu\\n", offsetof(struct event, {name}), sizeof(((struct event *)0)->{name}));'
        for name in (field.name for field in FIELDS)
    ]
    answers = run(HEADER, "\n".join(lines)).decode().splitlines()
    assert [int(size) for size in answers[:2]] == list(STRUCTS.values())
    places = [tuple(map(int, line.split())) for line in answers[2:]]
    ends = [offset + size for offset, size in places]
    assert [offset for offset, _ in places] == [0, *ends[:-1]]
    assert ends[-1] == wire.EVENT.size


def _names(enum: str) -> list[str]:
    body = re.search(rf"enum {enum} \{{(.*?)\}};", HEADER + (BPF / "emit.h").read_text(), re.DOTALL)
    assert body is not None
    return re.findall(rf"^\s*({enum.upper()}_\w+)", body[1], re.MULTILINE)


def _values(run: Run, names: list[str], extra: str = "") -> dict[str, int]:
    body = "\n".join(f'printf("%d\\n", (int){name});' for name in names)
    values = run(HEADER + extra, body).decode().split()
    return dict(zip(names, map(int, values), strict=True))


def test_every_kind_has_its_number(run: Run) -> None:
    values = _values(run, _names("kind"))
    assert {number: kind.name for number, kind in wire._KINDS.items()} == {
        number: name.removeprefix("KIND_") for name, number in values.items()
    }


def test_every_bit_of_a_shape_has_its_place(run: Run) -> None:
    values = _values(run, _names("shape"))
    assert {f"SHAPE_{bit.name}": bit.value for bit in wire.Shape} == values


def test_every_loss_has_its_index(run: Run) -> None:
    enum = re.search(r"enum loss \{.*?\};", (BPF / "emit.h").read_text(), re.DOTALL)
    assert enum is not None
    values = _values(run, [name for name in _names("loss") if name != "LOSS_MAX"], enum[0])
    assert {f"LOSS_{loss.name}": loss.value for loss in wire.Loss} == values


def test_constants(run: Run) -> None:
    names = ["EVENT_ABI", "KERNEL_FRAMES", "USER_FRAMES"]
    assert list(_values(run, names).values()) == [wire.ABI, wire.KERNEL_FRAMES, wire.USER_FRAMES]


# Fields of one size side by side: sizes and offsets stay the same when two change places.
SWAPS = [
    ("struct process opener, closer;", "struct process closer, opener;"),
    ("__u8 state_before;\n\t__u8 exiting;", "__u8 exiting;\n\t__u8 state_before;"),
    ("__u8 local[16], peer[16];", "__u8 peer[16], local[16];"),
    ("__u16 local_port, peer_port;", "__u16 peer_port, local_port;"),
    ("__u64 mono_ns;\n\t__u64 cookie;", "__u64 cookie;\n\t__u64 mono_ns;"),
    ("__u64 opened_ns, established_ns;", "__u64 established_ns, opened_ns;"),
    ("__u64 bytes_sent, bytes_received;\n\t__u32 srtt", "__u64 bytes_received, bytes_sent;\n\t__u32 srtt"),
    ("__u64 bytes_sent, bytes_received;\n\t__u32 idle", "__u64 bytes_received, bytes_sent;\n\t__u32 idle"),
    ("__u32 srtt_us, min_rtt_us;", "__u32 min_rtt_us, srtt_us;"),
    ("__u32 send_ago_ticks, receive_ago_ticks;", "__u32 receive_ago_ticks, send_ago_ticks;"),
    ("__u32 unread_bytes, unsent_bytes,", "__u32 unsent_bytes, unread_bytes,"),
    ("__u32 rcv_nxt, rcv_wnd, snd_una, snd_nxt;", "__u32 rcv_nxt, rcv_wnd, snd_nxt, snd_una;"),
    ("__u8 retransmits;\n\t__u8 probes;", "__u8 probes;\n\t__u8 retransmits;"),
    ("__u8 flags, ttl;", "__u8 ttl, flags;"),
    ("__u16 window, ip_id;", "__u16 ip_id, window;"),
    ("__u32 seq, ack;", "__u32 ack, seq;"),
    ("__u8 state;\n\t__u8 state_before;", "__u8 state_before;\n\t__u8 state;"),
    ("__u32 netns;\n\t__u32 shape;", "__u32 shape;\n\t__u32 netns;"),
]


@pytest.mark.parametrize(("old", "new"), SWAPS, ids=[new for _, new in SWAPS])
def test_two_fields_that_change_places_are_found_out(old: str, new: str, tmp_path: Path) -> None:
    """The proof of the test above: the same program, compiled against an edited copy, reads wrong."""
    if not COMPILERS:
        pytest.skip("no C compiler")
    assert HEADER.count(old) == 1, "event.h changed: edit this table"
    record = _run(COMPILERS[0], HEADER.replace(old, new), _stored_by_name(), tmp_path)
    assert len(record) == wire.EVENT.size
    assert _read(record) != EVENT


def _read(record: bytes) -> object:
    try:
        return next(wire.decode(record, NAMES))
    except (KeyError, ValueError) as refused:
        return refused


@pytest.mark.skipif(not KERNEL_BTF.exists(), reason="this kernel has no BTF")
def test_every_reason_of_this_kernel_is_one_that_the_rules_know() -> None:
    names = {name.removeprefix("SK_RST_REASON_") for name in Btf.of_kernel().enum("sk_rst_reason")}
    assert names - {"MAX"} <= set(ENUM_6_18), "a newer kernel: add the reason to causes.py and its rule"

# SPDX-License-Identifier: Apache-2.0
"""BTF is read by name, in either byte order; damaged files give one clear error and nothing else."""

from __future__ import annotations

import struct
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.linux.btf import KERNEL_BTF, Btf, Parameter

INT, PTR, STRUCT, ENUM, TYPEDEF, CONST, FUNC, FUNC_PROTO, ENUM64 = 1, 2, 4, 6, 8, 10, 12, 13, 19


class Blob:
    """A BTF file made by hand, record by record."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.strings = b"\0"
        self.types = b""

    def name(self, text: str) -> int:
        """The offset of a new string; 0 for the empty one."""
        if not text:
            return 0
        offset = len(self.strings)
        self.strings += text.encode() + b"\0"
        return offset

    def add(
        self, kind: int, name: str, target: int = 0, members: tuple[int, ...] = (), info: int = 0
    ) -> None:
        """A record; ``info`` holds the member count and, above it, the flag of signed enums."""
        words = (self.name(name), kind << 24 | info, target, *members)
        self.types += struct.pack(f"{self.order}{len(words)}I", *words)

    def bytes(self) -> bytes:
        """The file."""
        sizes = (24, 0, len(self.types), len(self.types), len(self.strings))
        return struct.pack(f"{self.order}HBBIIIII", 0xEB9F, 1, 0, *sizes) + self.types + self.strings


def sample(order: str = "<") -> bytes:
    """Types 1 to 8: an int, an enum, a 64-bit enum, a struct, a pointer, a prototype and its two users."""
    blob = Blob(order)
    blob.add(INT, "int", 4, (1 << 24 | 32,))
    values = (blob.name("RED"), 0, blob.name("DIM"), 0xFFFFFFFF)
    blob.add(ENUM, "colour", 4, values, 1 << 31 | 2)
    blob.add(ENUM64, "wide", 8, (blob.name("HUGE"), 5, 1), 1)
    blob.add(STRUCT, "sock", 8, (blob.name("state"), 1, 0, 0, 1, 32), 2)
    blob.add(CONST, "", 4)
    blob.add(PTR, "", 5)
    blob.add(FUNC_PROTO, "", 0, (0, 6, blob.name("reason"), 2), 2)
    blob.add(PTR, "", 7)
    blob.add(TYPEDEF, "btf_trace_reset", 8)
    blob.add(FUNC, "reset", 7)
    blob.add(TYPEDEF, "number", 1)
    return blob.bytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_everything_is_found_in_either_byte_order(order: str) -> None:
    btf = Btf(sample(order))
    both = (Parameter("", "const struct sock *"), Parameter("reason", "enum colour"))
    assert btf.enum("colour") == {"RED": 0, "DIM": -1}
    assert btf.enum("wide") == {"HUGE": 1 << 32 | 5}
    assert btf.members("sock") == ("state", "")
    assert btf.bit_offsets("sock") == {"state": 0}
    assert btf.parameters("btf_trace_reset") == both
    assert btf.parameters("reset") == both
    assert btf.has_struct("sock")
    assert btf.has_function("reset")


def test_what_is_not_there_is_said_plainly() -> None:
    btf = Btf(sample())
    assert btf.enum("sock") == {}
    assert btf.members("colour") is None
    assert btf.bit_offsets("colour") is None
    assert btf.parameters("number") is None
    assert btf.parameters("absent") is None
    assert [btf.has_struct(name) for name in ("", "soc", "ock", "reset", "a\0b")] == [False] * 5
    assert not btf.has_function("sock")


def test_offsets_of_bit_fields_are_told_without_their_widths() -> None:
    blob = Blob()
    blob.add(INT, "int", 4, (1 << 24 | 32,))
    members = (blob.name("low"), 1, 4 << 24 | 0, blob.name("high"), 1, 4 << 24 | 4, 0, 1, 8)
    blob.add(STRUCT, "flags", 2, members, 1 << 31 | 3)
    assert Btf(blob.bytes()).bit_offsets("flags") == {"low": 0, "high": 4}


def test_every_cut_is_an_error() -> None:
    whole = sample()
    for length in range(len(whole)):
        with pytest.raises(KernelUnavailable):
            Btf(whole[:length])


def test_trailing_bytes_change_nothing() -> None:
    assert Btf(sample() + b"junk").enum("colour") == {"RED": 0, "DIM": -1}


@settings(deadline=None)
@given(st.integers(0, len(sample()) - 1), st.integers(0, 255))
def test_one_wrong_byte_gives_an_answer_or_our_error(at: int, value: int) -> None:
    damaged = bytearray(sample())
    damaged[at] = value
    with suppress(KernelUnavailable):
        btf = Btf(bytes(damaged))
        btf.enum("colour"), btf.enum("wide"), btf.members("sock")
        btf.parameters("btf_trace_reset"), btf.parameters("reset"), btf.parameters("number")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_our_error(data: bytes) -> None:
    with suppress(KernelUnavailable):
        Btf(data).enum("x")


def test_a_type_that_refers_to_itself_is_an_error() -> None:
    blob = Blob()
    blob.add(TYPEDEF, "loop", 1)
    with pytest.raises(KernelUnavailable, match="refers to itself"):
        Btf(blob.bytes()).parameters("loop")


def test_the_error_says_what_is_wrong() -> None:
    with pytest.raises(KernelUnavailable) as caught:
        Btf(b"\x7fELF" + bytes(40))
    assert str(caught.value) == (
        "The kernel's type information (BTF) is not available here: "
        "it needs an undamaged file, but it does not start with the BTF magic number."
    )


def test_a_missing_file_names_the_kernel_option(tmp_path: object) -> None:
    with pytest.raises(KernelUnavailable, match="CONFIG_DEBUG_INFO_BTF"):
        Btf.of_kernel(KERNEL_BTF / "absent")


@pytest.mark.skipif(not KERNEL_BTF.exists(), reason=f"this kernel has no BTF ({KERNEL_BTF})")
def test_the_running_kernel_is_read_quickly() -> None:
    started = time.process_time()
    btf = Btf.of_kernel()
    used_s = time.process_time() - started
    assert btf.enum("tcp_ca_state") == {
        "TCP_CA_Open": 0,
        "TCP_CA_Disorder": 1,
        "TCP_CA_CWR": 2,
        "TCP_CA_Recovery": 3,
        "TCP_CA_Loss": 4,
    }
    assert btf.has_struct("tcp_sock")
    assert btf.has_function("tcp_v4_rcv")
    parameters = btf.parameters("btf_trace_tcp_send_reset")
    assert parameters is not None
    assert [p.type for p in parameters[:3]] == ["void *", "const struct sock *", "const struct sk_buff *"]
    assert used_s < 1.0  # about 0.05 here; the slack is for slow and busy machines

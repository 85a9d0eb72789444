# SPDX-License-Identifier: Apache-2.0
"""Netlink messages are told apart whole or not at all."""

from __future__ import annotations

import struct

import pytest

from holdfast.linux.netlink import Message, messages


def netlink(kind: int, payload: bytes, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload + bytes(-len(payload) % 4)


def test_messages_of_one_datagram() -> None:
    data = netlink(20, b"abcde") + netlink(3, b"")
    assert list(messages(data)) == [Message(20, 2, b"abcde"), Message(3, 2, b"")]


def test_messages_stop_at_the_first_that_is_cut() -> None:
    data = netlink(20, b"abcdefgh") + netlink(3, b"1234")
    for length in range(len(data)):
        complete = (length >= 24) + (length >= 44)
        assert len(list(messages(data[:length]))) == complete


@pytest.mark.parametrize("length", [0, 1, 15, 1 << 31, 0xFFFFFFFF])
def test_a_message_that_lies_about_its_length_ends_the_parsing(length: int) -> None:
    assert list(messages(struct.pack("=IHHII", length, 20, 0, 0, 0) + bytes(64))) == []

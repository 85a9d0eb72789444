"""The memory of all sessions together: those that came first leave room for those that begin."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from holdfast.hold.session.terms import Memory

WANTED_BYTES = 4 << 20


@pytest.mark.parametrize("sessions", [1, 4, 128])
def test_grown_windows_do_not_keep_newcomers_out(sessions: int) -> None:
    memory = Memory(sessions * 2 * WANTED_BYTES)  # each may have all that it wants, by its share
    windows = []
    for _ in range(sessions):
        window = memory.first_window(WANTED_BYTES)
        memory.enter(window)
        windows.append(window)
    for _ in range(20):
        windows = [memory.resize(window, WANTED_BYTES, window) for window in windows]
    assert memory.promised_bytes == 2 * sum(windows) > memory.cap_bytes // 2, "they have grown"
    for _ in range(sessions):
        window = memory.first_window(WANTED_BYTES)
        assert window, "there is no room for one more"
        memory.enter(window)
    assert memory.promised_bytes <= memory.cap_bytes

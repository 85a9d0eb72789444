# SPDX-License-Identifier: Apache-2.0
"""What is remembered of every connection of a capture is little, and what the rules ask for."""

from __future__ import annotations

from holdfast.watch.capture import columns
from holdfast.watch.remembered import Connections


def test_a_connection_takes_a_fraction_of_its_row() -> None:
    kept = Connections()
    kept.take(columns.as_array(bytes(columns.ROW_LAYOUT.size * 1000)))
    assert 0 < kept.size_bytes < columns.ROW_LAYOUT.size * 1000 / 3

"""What went through one connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through a connection: payload bytes each way and the system calls that moved them."""

    bytes_received: int = 0
    bytes_sent: int = 0
    receives: int = 0
    sends: int = 0

"""What the header of a RST tells of the stack that made it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Protocol

SYN, RST, ACK = 0x02, 0x04, 0x10


class Shaped(Protocol):
    """The header fields that make a shape; ``ip_id`` is None on IPv6."""

    @property
    def flags(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def window(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def options_bytes(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def ip_id(self) -> int | None: ...  # noqa: D102 - the class says it


def is_active_shape(rst: Shaped) -> bool:
    """Whether this looks like Linux resetting by its own decision (``tcp_send_active_reset``).

    RST and ACK, a window, and the connection's TCP options: measured on Linux 6.18, 6.1 the same.
    """
    return rst.flags & (RST | ACK | SYN) == RST | ACK and rst.window > 0 and rst.options_bytes > 0


def is_passive_shape(rst: Shaped) -> bool:
    """Whether this looks like Linux, or netfilter's REJECT, answering a segment it has no connection for.

    No window, no options, IP ID 0; RST alone if the segment had an ACK (RFC 9293 3.5.2).
    """
    return rst.window == 0 and rst.options_bytes == 0 and not rst.ip_id and rst.flags & ~(RST | ACK) == 0

"""What one RST of a capture means: a cause, a sender, and what speaks for it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import NamedTuple

from holdfast.causes import MPTCP_CODES, Basis, Trigger
from holdfast.events import Evidence
from holdfast.watch.capture.flow import FIN, Packet
from holdfast.watch.diagnose.case import Case
from holdfast.watch.diagnose.shape import is_active_shape

FIN_WAIT_2_NS = 900_000_000
"""A stack that resets so long after its FIN was acknowledged ran out of patience; Linux waits for
tcp_fin_timeout, whose smallest value is a second."""

_MPTCP_CAUSES = {
    0: "mptcp_unspecified",
    1: "mptcp_protocol_error",
    2: "mptcp_no_resources",
    3: "mptcp_prohibited",
    4: "mptcp_too_much_data",
    5: "mptcp_bad_performance",
    6: "mptcp_middlebox",
}


Marks = tuple[tuple[Packet, str], ...]
"""Segments that the conclusion rests on, and in short why."""


class Finding(NamedTuple):
    """A cause, who sent the RST (``client``, ``server``, ``path``, ``unknown``), and what speaks for it.

    ``lost``: what was lost in words, where it is not what was on its way.
    """

    cause: str
    sender: str
    evidence: tuple[Evidence, ...] = ()
    basis: Basis = Basis.INFERRED
    trigger: Trigger | None = None
    noise: str | None = None
    lost: str | None = None
    marks: Marks = ()


def concluded(
    cause: str,
    case: Case,
    fact: str,
    weight: int = 2,
    *,
    sender: str | None = None,
    trigger: Trigger | None = None,
    noise: str | None = None,
    marks: Marks = (),
) -> Finding:
    """A finding that rests on one fact; the sender is the claimed one unless told otherwise."""
    facts = (Evidence(fact, weight),)
    return Finding(cause, sender or case.claimed, facts, Basis.INFERRED, trigger, noise, marks=marks)


def by_mptcp(case: Case) -> Finding | None:
    """What the RST says itself in MP_TCPRST, if it has that option."""
    code = case.rst.mptcp_reason
    if code is None:
        return None
    fact = f"the RST carries MP_TCPRST with code {code}: {MPTCP_CODES.get(code, 'not assigned')}"
    return concluded(_MPTCP_CAUSES.get(code, "mptcp_unknown_code"), case, fact, 4)


def gave_up_waiting(case: Case) -> bool:
    """An active reset long after its own FIN: a stack that has had a whole goodbye keeps silent instead."""
    waited_ns = since_own_fin(case)
    return is_active_shape(case.packet) and waited_ns is not None and waited_ns >= FIN_WAIT_2_NS


def since_own_fin(case: Case) -> int | None:
    """How old the claimed sender's FIN was, at least, in nanoseconds; None without one."""
    fin = own_fin(case)
    if fin is not None:
        return case.packet.time_ns - fin.time_ns
    # After both FINs a capture keeps only the last few segments: the FIN is older than all of them.
    last_ns = case.sender.last_ns
    return case.packet.time_ns - last_ns if case.sender.fin and last_ns is not None else None


def own_fin(case: Case) -> Packet | None:
    """The claimed sender's FIN, if the capture kept it."""
    return next((one for one in reversed(case.said) if one.flags & FIN), None)

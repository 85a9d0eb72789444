"""What a RST itself says about its reason: a code, or text in its payload."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.causes import IETF_CODES
from holdfast.events import Evidence, Segment

# draft-ietf-tcpm-rst-diagnostic-payload: a magic number, a 16-bit reason code, a private enterprise number.
_MAGIC = b"\x33\xaa"


def stated_reason(rst: Segment) -> Evidence | None:
    """The reason in the payload (RFC 9293 3.5.3 allows text; the draft, a code), or None.

    The text is the sender's and hostile: faces must escape it.
    """
    words = reason_in(rst.payload)
    return None if words is None else Evidence(f"the RST carries {words}", 2)


def reason_in(payload: bytes) -> str | None:
    """The same in words: ``reason code 3: ...`` or ``the text '...'``; None if it is neither."""
    if not payload:
        return None
    said = payload.rstrip(b"\0\r\n")
    if said.startswith(_MAGIC) and len(said) >= 4:
        code = int.from_bytes(said[2:4], "big")
        return f"reason code {code}: {IETF_CODES.get(code, 'not assigned')}"
    if len(said) >= 3 and all(32 <= byte < 127 for byte in said):
        return f"the text {said.decode('ascii')!r}"
    return None

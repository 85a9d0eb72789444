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
    payload = rst.payload.rstrip(b"\0\r\n")
    if payload.startswith(_MAGIC) and len(payload) >= 4:
        code = int.from_bytes(payload[2:4], "big")
        return Evidence(f"the RST carries reason code {code}: {IETF_CODES.get(code, 'not assigned')}", 2)
    if len(payload) >= 3 and all(32 <= byte < 127 for byte in payload):
        return Evidence(f"the RST carries the text {payload.decode('ascii')!r}", 2)
    return None

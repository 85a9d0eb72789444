"""The protocol of sessions that outlive their connections: it decides, and touches no socket and no clock.

``docs/reference/protocol.md`` is the specification.
"""

# SPDX-License-Identifier: Apache-2.0

"""The control messages of sessions and heartbeats: made from proto/ by tools/protos.py."""

# SPDX-License-Identifier: Apache-2.0

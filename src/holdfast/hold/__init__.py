"""Conversations that survive: receiving, sending and reconnecting without losing bytes or errors."""

# SPDX-License-Identifier: Apache-2.0

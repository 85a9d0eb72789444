"""What keeps a conversation alive: receiving, tuning, Fast Open."""

# SPDX-License-Identifier: Apache-2.0

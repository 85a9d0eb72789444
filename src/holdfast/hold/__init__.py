"""Keeps TCP conversations: receive without losing data, know why a connection ended, tune, retry."""

# SPDX-License-Identifier: Apache-2.0

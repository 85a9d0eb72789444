"""Measures every figure that the documentation publishes: ``make bench`` and ``make soak``."""

# SPDX-License-Identifier: Apache-2.0

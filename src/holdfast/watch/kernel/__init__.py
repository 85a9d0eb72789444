"""The kernel as a source of events: BPF programs, their loader and their records."""

# SPDX-License-Identifier: Apache-2.0

"""The step without BPF: the kernel's TCP tracepoints, read through perf_event_open."""

# SPDX-License-Identifier: Apache-2.0

"""What both wings know of the kernel without BPF: socket states, TCP_INFO, sock_diag, counters."""

# SPDX-License-Identifier: Apache-2.0

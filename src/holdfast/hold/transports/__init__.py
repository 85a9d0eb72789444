"""What carries sessions: TCP, TLS and Unix sockets, behind one small face."""

# SPDX-License-Identifier: Apache-2.0

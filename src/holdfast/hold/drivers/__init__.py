"""Put sessions to work: sockets, time and chance around the protocol in :mod:`holdfast.hold.session`."""

# SPDX-License-Identifier: Apache-2.0

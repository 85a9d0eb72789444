"""Reads captures: pcap and pcapng files, compressed or not, and live interfaces, into facts per connection.

    reading = read_captures(["client.pcapng.zst"], on_progress=show)
    for flow in reading:          # every Flow with a RST or an ICMP error, when it is complete
        ...
    reading.summary               # the Summary: complete when the loop has ended

``reading.stop()`` (from a signal handler or another thread) ends the loop early: the flows that are open
are still given, and ``summary.stopped`` is True. A KeyboardInterrupt out of the loop loses nothing
either: call ``stop()`` and go on iterating.
"""

# SPDX-License-Identifier: Apache-2.0
from holdfast.watch.capture.live import LiveReading, listen
from holdfast.watch.capture.read import read_captures
from holdfast.watch.capture.reading import Reading

__all__ = ["LiveReading", "Reading", "listen", "read_captures"]

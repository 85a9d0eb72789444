"""``python -m bench [SECTION ...]``: measure, print the tables, and say whether what is promised holds."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import time
from collections.abc import Collection

from bench import report
from bench.capture import Capture
from bench.datagrams import Datagrams
from bench.flooding import Flooding
from bench.hooks import Hooks
from bench.programs import Programs
from bench.slowdown import Slowdown
from bench.tools import Tools, machine, say

SECTIONS = ("flood", "programs", "hooks", "traffic", "receive", "datagrams", "capture", "session")
PROMISING = {"flood", "programs", "receive", "datagrams", "capture", "session"}
UNPRIVILEGED = {"receive", "datagrams", "capture", "session"}


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}")
    wanted = parser.parse_args().sections or list(SECTIONS)
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"there is no section {sorted(unknown)[0]}: choose from {', '.join(SECTIONS)}")
    begun = time.monotonic()
    verdicts = report.Verdicts()
    report.note(time.strftime("%Y-%m-%d %H:%M %Z; ") + machine())
    if "receive" in wanted:
        from bench.receive import Receive  # needs trio and anyio, which only `make bench` installs

        Receive().run(verdicts)
    if "datagrams" in wanted:
        Datagrams().run(verdicts)
    if "capture" in wanted:
        Capture().run(verdicts)
    if "session" in wanted:
        from bench.session import Sessions  # needs websockets and grpcio, likewise

        Sessions().run(verdicts)
    if set(wanted) - UNPRIVILEGED:
        watching(wanted, verdicts)
    if PROMISING & set(wanted):
        verdicts.show()
    report.note(machine())
    say(f"took {time.monotonic() - begun:.0f} s")


def watching(wanted: Collection[str], verdicts: report.Verdicts) -> None:
    """The sections that load BPF programs: they need rights, clang and root's networks."""
    with Tools() as tools:
        if "flood" in wanted:
            Flooding(tools).run(verdicts)
        if "programs" in wanted:
            Programs(tools).run(verdicts)
        if "hooks" in wanted:
            Hooks(tools).run()
        if "traffic" in wanted:
            Slowdown(tools).run()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Makes the captures of the lab that lie beside it: ``.venv/bin/python tests/captures/make_lab.py``, as root.

Every scenario is made once on IPv4 and captured at the client, on the router's cable to the client and at
the server. ``labels.json`` says how each was made; ``test_lab_captures.py`` holds what is explained
against it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lab_captures import PLACES, captured, true_sender, write  # noqa: E402 - the path above comes first

from holdfast.errors import KernelUnavailable  # noqa: E402
from holdfast.lab import SCENARIOS  # noqa: E402


def main() -> None:
    """Write every capture and the labels."""
    folder = HERE / "lab"
    folder.mkdir(exist_ok=True)
    labels = {}
    for name, scenario in SCENARIOS.items():
        try:
            scenario.check()
        except KernelUnavailable as reason:
            print(f"{name}: {reason}")
            continue
        label, seen, client_ip = captured(scenario)
        write(folder, name, {place: seen[place] for place in PLACES if seen.get(place)})
        labels[name] = {"cause": label.cause, "sender": true_sender(label, client_ip)}
        print(f"{name}: {', '.join(f'{place} {len(frames)}' for place, frames in seen.items())}")
    (folder / "labels.json").write_text(json.dumps(labels, indent=0) + "\n")


if __name__ == "__main__":
    main()

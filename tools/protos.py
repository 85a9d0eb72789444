# SPDX-License-Identifier: Apache-2.0
"""Makes ``src/holdfast/hold/wire`` from ``proto/``: ``python tools/protos.py [FOLDER]``."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "src/holdfast/hold/wire"


def generate(folder: Path) -> None:
    """Write the modules of every .proto, with their types, to a folder."""
    protos = sorted(str(path) for path in (ROOT / "proto").glob("*.proto"))
    includes = [f"--proto_path={ROOT / 'proto'}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *includes, f"--python_out={folder}", f"--pyi_out={folder}", *protos]):
        raise SystemExit("protoc refused the files; see above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else WIRE)

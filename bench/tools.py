"""Compiles what measures: generators in C, and programs for BPF."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

HERE = Path(__file__).parent


class Tools:
    """A temporary folder with ``flood``, ``traffic`` and ``hooks.bpf.o``."""

    def __init__(self) -> None:
        """Compile.

        Raises:
            RuntimeError: a compiler is missing or refused.
        """
        self._folder = TemporaryDirectory(prefix="holdfast-bench-")
        folder = Path(self._folder.name)
        self.flood, self.traffic = folder / "flood", folder / "traffic"
        self.hooks = folder / "hooks.bpf.o"
        for program in (self.flood, self.traffic):
            source = HERE / f"{program.name}.c"
            _run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(program), str(source)])
        multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
        flags = ["-target", "bpf", "-g", "-O2", "-Wall", "-Werror", "-idirafter", multiarch]
        _run(["clang", *flags, "-c", str(HERE / "hooks.bpf.c"), "-o", str(self.hooks)])

    def close(self) -> None:
        """Remove them."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise RuntimeError(f"{command[0]} is missing: run make bench, which installs it") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(error.stderr) from error


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """Where this was measured: kernel, processor, how busy it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    model = next(models, platform.machine())
    load = ", ".join(f"{part:.2f}" for part in os.getloadavg())
    return f"Linux {platform.release()}, {os.cpu_count()} x {model}, load {load}"

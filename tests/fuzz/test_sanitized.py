"""The capture core under sanitizers: the kept corpus, a bounded fuzz run, and the extension itself."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FLAGS = ["-g", "-O1", "-std=gnu11", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
FATAL = "-fno-sanitize-recover=all"

# Runs the capture tests with the sanitized extension in place of the installed one.
RUN = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("holdfast._native", sys.argv[1])
spec = importlib.util.spec_from_loader("holdfast._native", loader)
module = importlib.util.module_from_spec(spec)
loader.exec_module(module)
sys.modules["holdfast._native"] = module
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--timeout=300", *sys.argv[2:]]))
"""


def runtime(name: str) -> str:
    """The path of a sanitizer's library; the name alone where gcc does not have it."""
    done = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_extension_passes_its_tests_under_sanitizers(tmp_path: Path) -> None:
    asan = runtime("libasan.so")
    if not Path(asan).exists():
        pytest.skip("gcc has no address sanitizer here")
    built = tmp_path / "_native.so"
    sources = [*ROOT.glob("native/native_*.c"), *ROOT.glob("native/capture_*.c")]
    include = f"-I{sysconfig.get_path('include')}"
    command = ["gcc", *FLAGS, FATAL, "-shared", "-fPIC", include, "-o", str(built), *map(str, sources)]
    subprocess.run(command, check=True, timeout=120)
    # Python itself leaks at exit; what the fuzzer runs is checked for leaks.
    environment = os.environ | {"LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
    tests = ["tests/unit/watch/capture", "tests/property/test_captures.py"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(built), *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "AddressSanitizer" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_the_fuzzer_finds_nothing_in_a_while() -> None:
    done = subprocess.run(
        ["tools/fuzz", "20"], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    if "cannot build it" in done.stderr:
        pytest.skip("clang has no fuzzer library here")
    assert done.returncode == 0, done.stderr[-3000:]

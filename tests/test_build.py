"""The build: complete where the tools are, and still a package where they are not."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPILED = (".so", ".o")


def build_wheel(place: Path, **defines: str) -> tuple[list[str], str]:
    """Build a wheel with these CMake variables; gives the names of its files and what the build said."""
    settings = {f"cmake.define.{name}": value for name, value in defines.items()}
    settings["build-dir"] = str(place / "build")
    options = [f"--config-settings={name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(place),
    ]
    done = subprocess.run([*command, *options, str(ROOT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist(), done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_without_a_compiler_is_pure_python_and_says_so(tmp_path: Path) -> None:
    names, said = build_wheel(tmp_path, CLANG="", CMAKE_C_COMPILER="")
    assert [name for name in names if name.endswith(COMPILED)] == []
    assert "holdfast/hold/datagrams_portable.py" in names
    assert "built without holdfast._native: no C compiler" in said
    assert "built without holdfast._bpf: no C compiler" in said


@pytest.mark.slow
def test_a_wheel_without_clang_and_libbpf_has_the_rest_and_says_so(tmp_path: Path) -> None:
    names, said = build_wheel(tmp_path, CLANG="", CMAKE_DISABLE_FIND_PACKAGE_PkgConfig="ON")
    compiled = [name.split(".")[0] for name in names if name.endswith(COMPILED)]
    assert compiled == ["holdfast/_native"]
    assert "holdfast/cli/__init__.py" in names
    assert "built without its BPF programs: clang is missing" in said
    assert "built without holdfast._bpf: libbpf 1.0 or newer is missing" in said


@pytest.mark.slow
@pytest.mark.needs_bpf
def test_a_wheel_built_with_all_tools_has_every_piece(tmp_path: Path) -> None:
    names, said = build_wheel(tmp_path, HOLDFAST_WERROR="ON")
    assert "built without" not in said
    assert "holdfast/watch/kernel/holdfast.bpf.o" in names
    compiled = {name.split(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {"holdfast/_bpf", "holdfast/_native"}
    assert [name for name in names if not name.startswith(("holdfast/", "holdfast-"))] == []


@pytest.mark.slow
def test_a_source_release_can_be_built_and_holds_nothing_else(tmp_path: Path) -> None:
    litter = ROOT / "tests" / "__pycache__" / "litter.pyc"
    litter.parent.mkdir(exist_ok=True)
    litter.touch()
    code = f"import scikit_build_core.build as b; print(b.build_sdist({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=120)
    litter.unlink()
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as release:
        names = {name.partition("/")[2] for name in release.getnames()}
    assert {"CMakeLists.txt", "bpf/holdfast.bpf.c", "native/bpf_module.c", "LICENSE"} <= names
    assert [
        name for name in names if name.startswith(("build/", ".venv/", ".git/")) or "__pycache__" in name
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize(("code", "told"), [(124, True), (1, False)])
def test_tests_that_run_into_their_limit_say_so(code: int, told: bool) -> None:
    runs = f"sh -c 'exit {code}'"  # 124 is timeout's own, and passes through it
    done = subprocess.run(
        ["make", "test", "SETUP=true", f"PYTEST={runs}"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert ("make test: stopped after 300 s, its limit" in done.stderr) == told, done.stderr


def test_setup_without_a_package_index_is_one_sentence(tmp_path: Path) -> None:
    for name in ("tools/setup", "pyproject.toml", "CMakeLists.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        ["tools/setup", "run"],
        cwd=tmp_path,
        env=os.environ | nobody | {"PIP_NO_CACHE_DIR": "1", "HOLDFAST_NO_INSTALL": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, last) == (
        1,
        "setup: pip finds no packages for .venv: "
        "go online, or set PIP_INDEX_URL or PIP_FIND_LINKS (see build/setup.log)",
    )
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr

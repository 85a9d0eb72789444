"""Imports point one way, and the parts that decide touch no socket, clock, thread or chance."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "holdfast"

# Rule: `layer: what it may import`. A layer is a module or folder directly under holdfast; every one is here.
# `deploy` is planned and not there yet: its rule waits for it.
PLANNED = {"deploy"}
VOCABULARY = {"causes", "errors", "events", "policy"}
WINGS = {"hold", "watch"}
MAY_IMPORT: dict[str, set[str]] = {
    "causes": set(),
    "errors": {"causes"},
    "events": {"causes", "errors"},
    "policy": {"causes", "errors"},
    "_bpf": set(),
    "_native": set(),
    "linux": VOCABULARY,
    "hold": VOCABULARY | {"linux", "_native"},
    "watch": VOCABULARY | {"linux", "_bpf", "_native"},
    "lab": VOCABULARY | {"linux"} | WINGS,
    "deploy": VOCABULARY | {"linux"} | WINGS,
    "cli": VOCABULARY | {"linux", "lab", "deploy"} | WINGS,
    "__main__": {"cli"},
    # The public names are gathered here, so it sees all but the command line; every layer may import it
    # only as a package (`import holdfast`), never names from it.
    "__init__": VOCABULARY | {"linux"} | WINGS,
}

# These take bytes, time and chance as arguments.
PURE = ("causes", "errors", "events", "policy", "watch.diagnose", "hold.session")
IMPURE = {"socket", "asyncio", "threading", "time", "random", "os", "subprocess"}


def module_name(path: Path, root: Path) -> str:
    """Dotted name below the package: ``watch.diagnose.rules``, ``__init__`` for the package itself."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def imports_of(path: Path, root: Path, package: str) -> set[str]:
    """Absolute names that a module imports anywhere in it: at its top, in a function, for typing."""
    names: set[str] = set()
    above = [package, *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = above[: len(above) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from holdfast import watch` names a layer in its list, not in its origin.
            names |= {f"{origin}.{alias.name}" for alias in node.names} if origin == package else {origin}
    return names


def violations(root: Path, package: str = "holdfast") -> list[str]:
    """One line for each import under ``root`` that the rules above forbid."""
    found = []
    for path in sorted(root.rglob("*.py")):
        module = module_name(path, root)
        layer = module.split(".")[0]
        pure = any(module == part or module.startswith(f"{part}.") for part in PURE)
        if layer not in MAY_IMPORT:
            found.append(f"{layer} has no place among the layers")
            continue
        for name in sorted(imports_of(path, root, package)):
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if top == package and target in MAY_IMPORT and target not in MAY_IMPORT[layer] | {layer}:
                found.append(f"{module} imports {name}")
            if pure and top in IMPURE:
                found.append(f"{module} is pure and imports {top}")
    return found


def tree(root: Path, **modules: str) -> Path:
    """A small package under ``root``; ``watch__x="import a"`` writes watch/x.py."""
    for name, text in modules.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_holdfast_keeps_the_direction() -> None:
    assert violations(SOURCE) == []


def test_what_is_called_planned_is_not_there_and_the_rest_is() -> None:
    there = {
        path.name.split(".")[0]
        for path in SOURCE.iterdir()
        if path.suffix in (".py", ".pyi") or path.is_dir()
    }
    assert set(MAY_IMPORT) - PLANNED <= there
    assert not PLANNED & there


def test_wings_that_import_each_other_are_found(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        hold__tunnel="from holdfast.watch import kernel",
        watch__agent="def f():\n    import holdfast.hold.session",
    )
    assert violations(root) == [
        "hold.tunnel imports holdfast.watch",
        "watch.agent imports holdfast.hold.session",
    ]


def test_imports_against_the_direction_are_found_in_every_spelling(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        causes="from .events import Reset",
        linux__btf="from holdfast import watch",
        watch__store="from ..lab.network import Network\nfrom ..linux import btf",
    )
    assert violations(root) == [
        "causes imports holdfast.events",
        "linux.btf imports holdfast.watch",
        "watch.store imports holdfast.lab.network",
    ]


def test_a_clock_in_a_pure_part_is_found(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        watch__diagnose__rules="import time\nfrom os import path",
        watch__kernel__loader="import os",
    )
    assert violations(root) == [
        "watch.diagnose.rules is pure and imports os",
        "watch.diagnose.rules is pure and imports time",
    ]


def test_a_folder_without_a_place_is_found(tmp_path: Path) -> None:
    assert violations(tree(tmp_path, helpers__misc="")) == ["helpers has no place among the layers"]


def test_allowed_imports_pass(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        events="from holdfast.causes import Cause\nimport dataclasses",
        lab__demo="from holdfast.watch.kernel import Source\nimport socket",
        cli__lab="import holdfast.lab",
    )
    assert violations(root) == []

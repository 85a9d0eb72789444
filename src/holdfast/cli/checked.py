"""What the options of a command accept: each checks its values, or says what is wrong."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import difflib
import math
import os
from pathlib import Path

import click

from holdfast.causes import CAUSES
from holdfast.cli import render
from holdfast.cli.render import printable
from holdfast.errors import UsageError
from holdfast.linux.cgroups import find_mount
from holdfast.linux.namespaces import PROC, network_namespaces


class Whole(click.IntRange):
    """A whole number in a range, called so in the sentence about one that is not."""

    name = "whole number"


class Number(click.FloatRange):
    """A number in a range."""

    name = "number"


def causes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Identifiers of causes; a near one is suggested."""
    for value in values:
        if value not in CAUSES:
            near = difflib.get_close_matches(value, CAUSES, 1)
            hint = (
                f" Did you mean {near[0]}?" if near else " The causes are listed in docs/reference/causes.md."
            )
            raise UsageError(f"there is no cause '{printable(value)}'.{hint}")
    return values


def pids(ctx: click.Context, param: click.Parameter, values: tuple[int, ...]) -> tuple[int, ...]:
    """Processes that live."""
    for value in values:
        pid(ctx, param, value)
    return values


def pid(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """A process that lives."""
    # Path.exists() would raise for a number as long as no file name may be.
    if value is not None and not os.path.exists(PROC / str(value)):
        raise UsageError(f"no process has the pid {value}: see ps -e.")
    return value


def namespaces(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Network namespaces by inode number, path or name, as inode numbers."""
    return tuple(_namespace(value) for value in values)


def _namespace(value: str) -> int:
    if value.isdecimal() and len(value) <= len(str(1 << 32)) and int(value) < 1 << 32:
        if int(value) not in network_namespaces():
            _warn(f"No process that can be seen is in the network namespace {value}", "--netns")
        return int(value)
    path = Path(value if "/" in value else f"/run/netns/{value}")
    shown = printable(str(path))
    try:
        found = os.stat(path)
        if found.st_dev == os.stat(PROC / "self/ns/net").st_dev:
            return found.st_ino
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"there is no network namespace {shown} ({why}): see lsns -t net.") from error
    raise UsageError(f"{shown} is no network namespace: see lsns -t net.")


def cgroups(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of control groups as the kernel has them."""
    mount = find_mount()
    paths = tuple(_cgroup(value, str(mount) if mount else "/sys/fs/cgroup") for value in values)
    for path in paths:
        if mount is None:
            _warn("Control groups of version 2 are not mounted", "--cgroup")
        elif "\0" in path or not Path(f"{mount}{path}").is_dir():
            _warn(f"There is no control group {printable(path)}", "--cgroup")
    return paths


def _warn(fact: str, option: str) -> None:
    # No mistake for sure: a service may be about to start.
    render.talk().print(f"{fact}: as long as that is so, nothing passes {option}.", style="yellow")


def _cgroup(value: str, mount: str) -> str:
    # Completed by a shell it starts at the mount point; the kernel's path starts below it.
    path = value.removeprefix(mount) if value.startswith(f"{mount}/") else value
    if not path.startswith("/"):
        shown = printable(value)
        raise UsageError(f"the control group '{shown}' must start with a slash: see systemd-cgls.")
    return path


def seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A number."""
    if value is not None and math.isnan(value):
        raise UsageError(f"{param.opts[0]} takes a number of seconds.")
    return value

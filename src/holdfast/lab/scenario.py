"""The registry of scenarios: what each makes, in one sentence, and what it needs."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.lab.label import Label
from holdfast.lab.network import LAB_PATH, Network

Make = Callable[[Network, int], Label]


class Needs(StrEnum):
    """What a scenario uses beyond ordinary sockets in a private network."""

    SOCKETS = "sockets"  # nothing
    FIREWALL = "firewall"  # nftables, in the private network only
    RAW = "raw"  # segments made by hand
    DIAG = "diag"  # sock_diag's right to destroy a socket, through ``ss -K``
    MPTCP = "mptcp"  # Multipath TCP in the kernel
    VM = "vm"  # settings of the whole machine: only inside a virtual machine made for it


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to make one cause.

    Attributes:
        name: what ``holdfast lab run`` calls it.
        cause: identifier in causes.py.
        sentence: what happens, in one sentence.
        needs: what it uses.
        families: address families in which it can be made.
        make: makes ``count`` connections of it in a fresh network and says what it made.
    """

    name: str
    cause: str
    sentence: str
    needs: Needs
    families: tuple[int, ...]
    make: Make

    @property
    def vm_only(self) -> bool:
        """Whether it changes the whole machine and so refuses to run outside a virtual machine."""
        return self.needs is Needs.VM

    def check(self) -> None:
        """Raise KernelUnavailable if this machine lacks what the scenario needs."""
        what = f"The scenario {self.name}"
        if self.vm_only and os.environ.get("HOLDFAST_LAB_VM") != "1":
            raise KernelUnavailable(what, "a virtual machine, marked by HOLDFAST_LAB_VM=1")
        program = {Needs.FIREWALL: "nft", Needs.DIAG: "ss"}.get(self.needs)
        if program and not shutil.which(program, path=LAB_PATH):
            raise KernelUnavailable(what, f"the program {program}")
        if self.needs is Needs.MPTCP and not os.path.exists("/proc/sys/net/mptcp/enabled"):
            raise KernelUnavailable(what, "a kernel with Multipath TCP")


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *, cause: str = "", needs: Needs = Needs.SOCKETS, families: tuple[int, ...] = (4, 6)
) -> Callable[[Make], Make]:
    """Register a function as the scenario of its name; ``cause`` is that name unless told otherwise.

    The function's docstring is the sentence that people read.
    """

    def register(make: Make) -> Make:
        name, sentence = make.__name__, make.__doc__ or ""
        SCENARIOS[name] = Scenario(name, cause or name, " ".join(sentence.split()), needs, families, make)
        return make

    return register


def find(name: str) -> Scenario:
    """The scenario of this name.

    Raises:
        UsageError: there is none; the sentence names the nearest.
    """
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, 1)
        hint = f" Did you mean {near[0]}?" if near else " See holdfast lab list."
        raise UsageError(f"there is no scenario '{name}'.{hint}")
    return SCENARIOS[name]

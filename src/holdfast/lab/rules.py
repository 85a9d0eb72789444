"""Firewall rules as nftables text, for the path through the router and for a host's own input."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

FROM_CLIENT, FROM_SERVER = 'iifname "near" ', 'iifname "far" '
SILENCE = "meta l4proto tcp drop"
DROP_PURE_ACKS = FROM_CLIENT + "tcp flags & (fin | syn | rst | psh) == 0 drop"
RESET = "meta l4proto tcp reject with tcp reset"
OPEN = "flush ruleset"


def path(*rules: str) -> str:
    """The router's only rules: what happens to segments on their way through."""
    return _chain("forward", rules)


def host_input(*rules: str) -> str:
    """A host's only rules: what happens to segments that reach it."""
    return _chain("input", rules)


def _chain(hook: str, rules: tuple[str, ...]) -> str:
    lines = "\n".join(rules)
    return f"{OPEN}\ntable inet lab {{ chain {hook} {{ type filter hook {hook} priority 0;\n{lines}\n}}\n}}\n"

"""Which records a user asked for, and how much of them: pure filters over events and finished records."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass

from holdfast.causes import Direction, Severity, at_least
from holdfast.events import Endpoint, Event, Kind, Process, Reset

NO_NAME = "process"
"""What every process is called where names are left out."""

_DIRECTIONS = {Kind.RESET_SENT: Direction.SENT, Kind.RESET_RECEIVED: Direction.RECEIVED}


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show; an empty tuple or None asks for no limit.

    Attributes:
        pids: owners. ports: of either end. cgroups: a control group path or one below it.
        netns: inode numbers. causes: identifiers.
        noise: whether to show usual traffic as well.
    """

    pids: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    netns: tuple[int, ...] = ()
    direction: Direction | None = None
    causes: tuple[str, ...] = ()
    min_severity: Severity = Severity.INFO
    noise: bool = False

    def wants(self, reset: Reset) -> bool:
        """Whether the record passes every filter; noise is judged apart, see :meth:`folds`."""
        owner = reset.owner
        return (
            (not self.pids or (owner is not None and owner.pid in self.pids))
            and (not self.ports or reset.local.port in self.ports or reset.peer.port in self.ports)
            and (not self.cgroups or _in_cgroup(owner, self.cgroups))
            and (not self.netns or reset.netns in self.netns)
            and (self.direction is None or reset.direction == self.direction)
            and (not self.causes or reset.cause in self.causes)
            and (reset.noise or at_least(reset.severity, self.min_severity))
        )

    def may_want(self, folded: Event) -> bool:
        """Whether what was folded may have passed the filters; what is not known of it passes.

        Args:
            folded: what such events have in common; a port of 0 differs from one to the other.
        """
        ports = (folded.local.port, folded.peer.port)
        pid = folded.opener.pid if folded.opener else None
        return (
            (not self.pids or pid is None or pid in self.pids)
            and (not self.ports or 0 in ports or any(port in self.ports for port in ports))
            and (not self.netns or folded.netns is None or folded.netns in self.netns)
            and (self.direction is None or _DIRECTIONS.get(folded.kind, self.direction) == self.direction)
        )

    def folds(self, reset: Reset) -> bool:
        """Whether the record is usual traffic that is counted and not shown."""
        return reset.noise and not self.noise and reset.cause not in self.causes


def _in_cgroup(owner: Process | None, paths: tuple[str, ...]) -> bool:
    if owner is None or owner.cgroup is None:
        return False
    return any(owner.cgroup == path or owner.cgroup.startswith(f"{path.rstrip('/')}/") for path in paths)


def without_payload(event: Event) -> Event:
    """The event without the bytes that a RST carried."""
    if event.segment is None or not event.segment.payload:
        return event
    return dataclasses.replace(event, segment=dataclasses.replace(event.segment, payload=b""))


def without_names(event: Event) -> Event:
    """The event with processes by number only, before sentences are made of it: no names, no programs' files.

    Control groups stay for the filter; :func:`redacted` takes them out of the record.
    """
    earlier = event.earlier
    if earlier is not None:
        earlier = dataclasses.replace(
            earlier, owner=_nameless(earlier.owner), opener=_nameless(earlier.opener)
        )
    return dataclasses.replace(
        event,
        opener=_nameless(event.opener),
        closer=_nameless(event.closer),
        earlier=earlier,
        user_stack=(),
    )


def _nameless(process: Process | None) -> Process | None:
    return None if process is None else dataclasses.replace(process, comm=NO_NAME)


def redacted(reset: Reset) -> Reset:
    """The record without what names people or machines: addresses cut to their network, no host, no groups.

    IPv4 keeps 24 bits and IPv6 48, as web analytics do; ports, pids, counts and causes stay. The names in
    its sentences must have been taken out of its events by :func:`without_names`.
    """
    owner = None if reset.owner is None else Process(reset.owner.pid, NO_NAME)
    sentence = reset.sentence
    # The longer first: 10.0.0.1:80 is also the beginning of 10.0.0.1:8080.
    for end in sorted((reset.local, reset.peer), key=lambda end: len(str(end)), reverse=True):
        sentence = sentence.replace(str(end), str(_cut(end)))
    return dataclasses.replace(
        reset, host="", local=_cut(reset.local), peer=_cut(reset.peer), owner=owner, sentence=sentence
    )


def _cut(end: Endpoint) -> Endpoint:
    bits = 48 if ":" in end.ip else 24
    network = ipaddress.ip_network(f"{end.ip}/{bits}", strict=False)
    return Endpoint(str(network.network_address), end.port)

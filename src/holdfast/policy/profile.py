"""Settings for what sits on the path between two ends, with the source of every number."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from holdfast.policy.keepalive import KeepAlive
from holdfast.policy.socket_policy import SocketPolicy


class Source(NamedTuple):
    """Where one number of a profile comes from.

    Attributes:
        number: the name of the field.
        says: why it has this value.
        where: an address or RFC, or "ours" for a choice of Holdfast's.
    """

    number: str
    says: str
    where: str = "ours"


@dataclass(frozen=True, slots=True)
class Profile:
    """A name, the settings of a socket, and when both ends of a conversation should speak.

    Attributes:
        name: what to ask for.
        path: what sits between the two ends.
        policy: the socket's options.
        heartbeat_s: how often the application should say something, so that it notices by itself, and a
            proxy on the path that answers keep-alive in the peer's stead is not mistaken for it.
        path_idle_s: after how long without a segment the path forgets the connection; None: not known.
        at_expiry: what the path does then.
        sources: one for each number, in the order of the fields.
    """

    name: str
    path: str
    policy: SocketPolicy
    heartbeat_s: float
    path_idle_s: int | None
    at_expiry: str
    sources: tuple[Source, ...]

    def explain(self) -> str:
        """What the path does, when a dead peer is noticed, and what to beware of; a line each."""
        limit = f"after {self.path_idle_s} s without a segment " if self.path_idle_s else ""
        return f"Path: {self.path}; {limit}it {self.at_expiry}.\n{self.policy.explain()}"


RFC_ONE_PROBE = "RFC 9293 §3.8.4"
WHEN_SOCKETS_DIE = "https://blog.cloudflare.com/when-tcp-sockets-refuse-to-die"
_COUNT = Source("count", "one lost probe must not end a connection; two may be lost", RFC_ONE_PROBE)
_USER_TIMEOUT = Source(
    "user_timeout_ms",
    "half an interval before the last look, so that count keeps its meaning",
    WHEN_SOCKETS_DIE,
)
_NOTSENT = Source(
    "notsent_lowat_bytes",
    "little enough that a heartbeat is not held up, enough to keep a path of 1 Gbit/s and 1 ms busy",
)
NOTSENT_LOWAT_BYTES = 128 * 1024


def _policy(keepalive: KeepAlive) -> SocketPolicy:
    """Options that every profile shares, around its keep-alive."""
    return SocketPolicy(
        keepalive=keepalive,
        user_timeout_ms=keepalive.matching_user_timeout_ms,
        notsent_lowat_bytes=NOTSENT_LOWAT_BYTES,
        nodelay=True,
    )


def _sources(idle: Source, interval: str, heartbeat: Source, *path: Source) -> tuple[Source, ...]:
    return (idle, Source("interval_s", interval), _COUNT, _USER_TIMEOUT, _NOTSENT, heartbeat, *path)


_CLOUD, _LAN, _SHORT = KeepAlive(60, 15, 3), KeepAlive(15, 5, 3), KeepAlive(45, 10, 3)
_QUARTER = "a quarter of idle_s: a dead peer is noticed in less than twice idle_s"
_THIRD = "a third of idle_s, since noticing soon matters more here than a few segments"
_GOOGLE = "https://cloud.google.com/compute/docs/troubleshooting/general-tips"
_AZURE = "https://learn.microsoft.com/azure/load-balancer/load-balancer-tcp-reset"
_AWS = "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html"
_AZURE_NAT = "https://learn.microsoft.com/azure/nat-gateway/nat-gateway-resource"
_HALF = Source("heartbeat_s", "half of idle_s: while the application speaks, no probe is ever sent")
_EVERY_25 = Source(
    "heartbeat_s",
    "suits many firewalls and address translators",
    "https://www.wireguard.com/quickstart/",
)

_TABLE: tuple[Profile, ...] = (
    Profile(
        "cloud", "load balancers and address translation of any cloud", _policy(_CLOUD), 30, 240,
        "forgets the connection, silently or with a reset",
        _sources(
            Source("idle_s", "a quarter of the shortest limit below, and what Google recommends", _GOOGLE),
            _QUARTER, _HALF,
            Source("path_idle_s", "the shortest default of the three large clouds, Azure's", _AZURE),
        ),
    ),
    Profile(
        "lan", "switches and routers without memory, in one place", _policy(_LAN), 10, None,
        "forgets nothing",
        _sources(
            Source("idle_s", "noticing soon is cheap here: no middlebox, no battery"), _THIRD,
            Source("heartbeat_s", "below idle_s: while the application speaks, no probe is ever sent"),
        ),
    ),
    Profile(
        "mobile", "a carrier's firewall and address translation, and a radio that sleeps", _policy(_SHORT),
        25, None, "forgets idle connections silently, each carrier after another time",
        _sources(
            Source("idle_s", "below one minute, the shortest limit that we have heard of"), _QUARTER,
            _EVERY_25,
        ),
    ),
    Profile(
        "aws-nlb", "AWS Network Load Balancer (also NAT gateway, VPC endpoints)", _policy(_CLOUD), 30, 350,
        "forgets the connection silently and resets it at the next segment",
        _sources(
            Source("idle_s", "a sixth of the limit, and at the lowest limit that can be configured", _AWS),
            _QUARTER, _HALF,
            Source("path_idle_s", "default of TCP listeners, fixed for TLS listeners", _AWS),
        ),
    ),
    Profile(
        "azure-lb", "Azure Load Balancer", _policy(_CLOUD), 30, 240,
        "drops the connection silently, unless TCP reset is enabled for the rule",
        _sources(
            Source("idle_s", "a quarter of the limit"), _QUARTER, _HALF,
            Source("path_idle_s", "default and smallest value, 4 minutes", _AZURE),
        ),
    ),
    Profile(
        "gcp", "Google Cloud's VPC firewall", _policy(_CLOUD), 30, 600,
        "drops what comes in, silently, until this end sends",
        _sources(
            Source("idle_s", "what Google recommends for this path", _GOOGLE), _QUARTER, _HALF,
            Source("path_idle_s", "connection tracking of 10 minutes", _GOOGLE),
        ),
    ),
    Profile(
        "ipvs", "IPVS: Kubernetes services in IPVS mode, Docker Swarm's virtual addresses",
        _policy(_SHORT), 25, 900, "resets the connection at the next segment, or lets it hang",
        _sources(
            Source(
                "idle_s",
                "below the 60 s after which IPVS forgets a half-closed connection",
                "https://github.com/moby/moby/issues/29655",
            ),
            _QUARTER, _EVERY_25,
            Source(
                "path_idle_s",
                "default of an established connection (ipvsadm -l --timeout)",
                "https://github.com/moby/moby/issues/31208",
            ),
        ),
    ),
    Profile(
        "nat", "address translation: a home router, a NAT gateway", _policy(_SHORT), 25, 240,
        "forgets the connection silently; some reset it at the next segment",
        _sources(
            Source("idle_s", "below one minute, the shortest limit that we have heard of"), _QUARTER,
            _EVERY_25,
            Source(
                "path_idle_s",
                "Azure NAT gateway's default; RFC 5382 REQ-5 asks for 7440 s, which many devices ignore",
                _AZURE_NAT,
            ),
        ),
    ),
)  # fmt: skip

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _TABLE}
"""Every profile by its name."""

DEFAULT_PROFILE = PROFILES["cloud"]
"""What to use where nothing is known of the path."""

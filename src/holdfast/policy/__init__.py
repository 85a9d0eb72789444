"""How a connection is tuned and what is tried again: pure values, which drivers elsewhere put to work."""

# SPDX-License-Identifier: Apache-2.0
from holdfast.policy.backoff import Backoff
from holdfast.policy.budget import Ledger, RetryBudget
from holdfast.policy.keepalive import KeepAlive
from holdfast.policy.profile import DEFAULT_PROFILE, PROFILES, Profile, Source
from holdfast.policy.retry import Failure, Retry, RetryOn, RetryPolicy, Stop, StopReason
from holdfast.policy.socket_policy import Detection, SocketPolicy

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "Backoff",
    "Detection",
    "Failure",
    "KeepAlive",
    "Ledger",
    "Profile",
    "Retry",
    "RetryBudget",
    "RetryOn",
    "RetryPolicy",
    "SocketPolicy",
    "Source",
    "Stop",
    "StopReason",
]

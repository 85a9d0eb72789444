# SPDX-License-Identifier: Apache-2.0
"""Every setting is judged by its value alone, with advice exactly where the verdict is not fine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.linux import sysctls
from holdfast.linux.sysctls import NAMES, Verdict, judge

# Linux 6.18 as Debian starts it on a host with some memory.
DEFAULTS = {
    "net.ipv4.tcp_abort_on_overflow": "0",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "2048",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.tcp_fin_timeout": "60",
    "net.ipv4.tcp_max_orphans": "131072",
    "net.ipv4.tcp_orphan_retries": "0",
    "net.ipv4.tcp_max_tw_buckets": "131072",
    "net.ipv4.tcp_keepalive_time": "7200",
    "net.ipv4.tcp_keepalive_intvl": "75",
    "net.ipv4.tcp_keepalive_probes": "9",
    "net.ipv4.tcp_retries1": "3",
    "net.ipv4.tcp_retries2": "15",
    "net.ipv4.tcp_syn_retries": "6",
    "net.ipv4.tcp_challenge_ack_limit": "2147483647",
    "net.ipv4.tcp_rfc1337": "0",
    "net.ipv4.tcp_timestamps": "1",
    "net.ipv4.tcp_fastopen": "1",
    "net.ipv4.tcp_migrate_req": "0",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "432000",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "0",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "0",
}


def verdicts(**changes: str | None) -> dict[str, Verdict]:
    """Verdicts that are not fine, by the last part of the name, for the defaults with these changes."""
    full = {name.rpartition(".")[2]: name for name in DEFAULTS}
    values = DEFAULTS | {full[name]: value for name, value in changes.items()}
    return {j.name.rpartition(".")[2]: j.verdict for j in judge(values) if j.verdict != Verdict.FINE}


USUAL = {
    "tcp_keepalive_time": Verdict.NOTE,
    "tcp_keepalive_intvl": Verdict.NOTE,
    "tcp_retries2": Verdict.NOTE,
    "tcp_migrate_req": Verdict.NOTE,
    "nf_conntrack_tcp_be_liberal": Verdict.NOTE,
}


def test_the_defaults_are_all_known_and_none_is_risky() -> None:
    assert tuple(DEFAULTS) == NAMES
    assert verdicts() == USUAL


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("tcp_abort_on_overflow", "1", Verdict.RISKY),
        ("somaxconn", "128", Verdict.RISKY),
        ("somaxconn", "1023", Verdict.RISKY),
        ("somaxconn", "1024", Verdict.FINE),
        ("tcp_max_syn_backlog", "511", Verdict.NOTE),
        ("tcp_syncookies", "0", Verdict.RISKY),
        ("tcp_syncookies", "2", Verdict.RISKY),
        ("tcp_fin_timeout", "14", Verdict.NOTE),
        ("tcp_fin_timeout", "15", Verdict.FINE),
        ("tcp_max_orphans", "4095", Verdict.RISKY),
        ("tcp_orphan_retries", "3", Verdict.NOTE),
        ("tcp_orphan_retries", "4", Verdict.FINE),
        ("tcp_max_tw_buckets", "8191", Verdict.NOTE),
        ("tcp_keepalive_time", "350", Verdict.FINE),
        ("tcp_keepalive_intvl", "33", Verdict.FINE),
        ("tcp_keepalive_probes", "2", Verdict.RISKY),
        ("tcp_retries1", "0", Verdict.FINE),
        ("tcp_retries2", "7", Verdict.RISKY),
        ("tcp_retries2", "8", Verdict.FINE),
        ("tcp_syn_retries", "1", Verdict.RISKY),
        ("tcp_challenge_ack_limit", "1000", Verdict.RISKY),
        ("tcp_rfc1337", "1", Verdict.FINE),
        ("tcp_timestamps", "0", Verdict.RISKY),
        ("tcp_fastopen", "0", Verdict.FINE),
        ("tcp_migrate_req", "1", Verdict.FINE),
        ("nf_conntrack_tcp_timeout_established", "7200", Verdict.RISKY),
        ("nf_conntrack_tcp_timeout_established", "7201", Verdict.FINE),
        ("nf_conntrack_tcp_timeout_established", None, Verdict.ABSENT),
        ("nf_conntrack_tcp_be_liberal", "1", Verdict.FINE),
        ("nf_conntrack_max", "1", Verdict.FINE),
        ("nf_conntrack_count", "209716", Verdict.RISKY),
        ("nf_conntrack_count", "209715", Verdict.FINE),
        ("nf_conntrack_count", "many", Verdict.ABSENT),
    ],
)
def test_limits(name: str, value: str | None, verdict: Verdict) -> None:
    assert verdicts(**{name: value}).get(name, Verdict.FINE) == verdict


def test_advice_can_follow_another_setting() -> None:
    found = {j.name.rpartition(".")[2]: j.advice for j in judge(DEFAULTS)}
    assert found["tcp_keepalive_intvl"] == (
        "A dead peer is noticed 675 s after the first of these probes; 15 s x 4 is usual."
    )
    full = judge(DEFAULTS | {"net.netfilter.nf_conntrack_count": "262144"})
    assert full[-1].advice == ("The table is 100 % full: raise nf_conntrack_max or shorten its timeouts.")


def test_a_host_without_any_of_them() -> None:
    assert {j.verdict for j in judge({})} == {Verdict.ABSENT}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.text(), st.integers().map(str))))
def test_any_values_are_survived(values: dict[str, str | None]) -> None:
    for judgement in judge(values):
        assert (judgement.advice == "") == (judgement.verdict in (Verdict.FINE, Verdict.ABSENT))
        assert judgement.decides.endswith(".")
        assert judgement.advice[-1:] in ("", ".")


def test_values_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "net" / "core").mkdir(parents=True)
    (tmp_path / "net" / "core" / "somaxconn").write_text("128\n")
    assert {k: v for k, v in sysctls.read(tmp_path).items() if v is not None} == {"net.core.somaxconn": "128"}

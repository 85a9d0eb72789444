"""Write the reference pages that come from the code's own tables: ``make docs``, or ``python tools/docs.py``.

With ``--check`` nothing is written and the exit code says whether the pages are up to date.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path

from holdfast import policy
from holdfast.causes import CAUSES, IETF_CODES, MPTCP_CODES, NOISE, Cause, Family, NoiseClass
from holdfast.hold.classify import Phase, Verdict, classify
from holdfast.hold.session.codes import Code
from holdfast.hold.session.states import Event, State, diagram
from holdfast.watch.kernel.abilities import ABILITIES, UNTOLD_WITHOUT_REASON, KernelAbility, Version

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by `make docs` from the code's tables. Change those, not this page. -->\n"

FAMILIES = {
    Family.SENT: (
        "Resets that this host sent",
        "This host's own TCP decided to reset. From Linux 6.10 (answers to a segment) and 6.12 (the "
        "decisions of "
        "a program or timer) the kernel names a reason; Holdfast divides the reasons that stand for "
        "several "
        "different events.",
    ),
    Family.ENDING: (
        "Endings without a reset",
        "The program got an error, but no RST came. Such endings are shown as what they are: a timeout, an "
        "unreachable peer, a refusal by ICMP, or a mistake inside the program.",
    ),
    Family.RECEIVED: (
        "Resets that arrived",
        "The kernel gives no reason for a reset that arrives. Who sent it is concluded from the segment, "
        "the "
        "connection and what happened around it, so the basis is `inferred`, unless the sender is on "
        "this host too.",
    ),
}

SLOT_WORDS = {
    "who": "*the process*",
    "peer": "*the peer*",
    "local": "*the local address*",
    "bytes": "*the bytes at risk*",
}

# Kernels that people run: long-term ones and those where an ability arrived.
COLUMNS: tuple[Version, ...] = ((4, 18), (5, 4), (5, 10), (5, 15), (6, 1), (6, 6), (6, 12), (6, 18))


def rfc_link(rfc: str) -> str:
    """A Markdown link to a section, or a dash."""
    if not rfc:
        return "-"
    _, number, *section = rfc.split()
    anchor = f"#section-{section[0]}" if section else ""
    return f"[{rfc}](https://www.rfc-editor.org/rfc/rfc{number}.html{anchor})"


def in_words(sentence: str) -> str:
    """A cause's sentence with its slots named instead of filled."""
    words = re.sub(r"\{(\w+)\}", lambda slot: SLOT_WORDS[slot[1]], sentence)
    return words.replace("*the", "*The", 1) if words.startswith("*") else words


def cause_section(row: Cause) -> list[str]:
    """The heading of one cause and all that the table knows of it."""
    code = f"{row.ietf_code} ({IETF_CODES[row.ietf_code]})" if row.ietf_code else "-"
    reasons = ", ".join(f"`{name}`" for name in row.kernel_reasons) or "-"
    made = f"`holdfast lab run {row.id}`" if row.not_made is None else f"not in the lab: {row.not_made}"
    return [
        f"### {row.id}",
        "",
        in_words(row.sentence),
        "",
        f"**Why it happens.** {row.why}",
        "",
        "**What to do.** " + " ".join(row.remedy),
        "",
        f"- Severity: {row.severity}" + ("; noise: folded unless `--all` is given" if row.noise else ""),
        f"- Kernel reason: {reasons}",
        f"- Standard: {rfc_link(row.rfc)}; code of the IETF draft: {code}",
        f"- Reproduce: {made}",
        "",
    ]


def family_section(family: Family) -> list[str]:
    """One family: an index table, then each of its causes."""
    title, text = FAMILIES[family]
    rows = [row for row in CAUSES.values() if row.family is family]
    index = [f"| [`{row.id}`](#{row.id}) | {row.severity} | {in_words(row.sentence)} |" for row in rows]
    lines = [f"## {title}", "", text, "", "| cause | severity | what happened |", "|---|---|---|", *index, ""]
    for row in rows:
        lines += cause_section(row)
    return lines


def noise_section(row: NoiseClass) -> list[str]:
    """The heading of one noise class."""
    return [
        f"### {row.id}",
        "",
        f"{row.sentence} {row.harmless}",
        "",
        f"**Look at it after all if:** {row.unless[0].lower()}{row.unless[1:]}",
        "",
    ]


def reason_table() -> list[str]:
    """Every kernel reason with the causes it may stand for."""
    meanings: dict[str, list[str]] = {}
    for row in CAUSES.values():
        for name in row.kernel_reasons:
            meanings.setdefault(name, []).append(f"[`{row.id}`](#{row.id})")
    lines = [f"| `{name}` | {', '.join(links)} |" for name, links in meanings.items()]
    return ["| kernel reason | causes |", "|---|---|", *lines, ""]


def code_table(codes: dict[int, str]) -> list[str]:
    """A registry of numbers and their names."""
    return ["| code | name |", "|---|---|", *(f"| {code} | {name} |" for code, name in codes.items()), ""]


def causes_page() -> str:
    """docs/reference/causes.md."""
    lines = [
        GENERATED,
        "# Causes",
        "",
        "Every reset, and every ending that looks like one, gets exactly one of these identifiers. They "
        "are the "
        "value of `cause` in [JSON](json.md), of `--cause` on the command line and of labels in metrics. "
        "An identifier keeps its meaning for ever.",
        "",
        "Words in *italics* are filled in when a cause is shown. What cannot be seen is said to be unknown.",
        "",
    ]
    for family in Family:
        lines += family_section(family)
    lines += [
        "## Noise",
        "",
        "Usual, harmless traffic is put in one of these classes and folded: it is counted and one line "
        "says how "
        "much there was. `--all` shows it. Nothing is dropped.",
        "",
    ]
    for noise in NOISE.values():
        lines += noise_section(noise)
    lines += [
        "## What the kernel's reasons can mean",
        "",
        "Names of `enum sk_rst_reason` without `SK_RST_REASON_`. A name that is not in this table is "
        "kept as it is "
        "in `kernel_reason`, and its cause is [`unknown`](#unknown).",
        "",
        *reason_table(),
        "## Codes of draft-ietf-tcpm-rst-diagnostic-payload",
        "",
        "The draft puts a reason code into the RST itself. It is not a standard yet and its codes may "
        "change.",
        "",
        *code_table(IETF_CODES),
        "## Codes of MP_TCPRST",
        "",
        "Reasons that [RFC 8684, section 3.6](https://www.rfc-editor.org/rfc/rfc8684.html#section-3.6) "
        "lets a "
        "subflow's reset carry.",
        "",
        *code_table(MPTCP_CODES),
    ]
    return "\n".join(lines).rstrip() + "\n"


def version_word(version: Version) -> str:
    """6.12 for (6, 12)."""
    return f"{version[0]}.{version[1]}"


def ability_section(ability: KernelAbility) -> list[str]:
    """The heading of one ability."""
    return [
        f"### {ability.name}",
        "",
        f"Since Linux {version_word(ability.since)}. {ability.tells}",
        "",
        f"**Without it:** {ability.without}",
        "",
        f"Found by: {ability.found_by}.",
        "",
    ]


def compatibility_page() -> str:
    """docs/reference/compatibility.md."""
    header = "| ability | since | " + " | ".join(version_word(column) for column in COLUMNS) + " |"
    rows = [
        f"| [`{ability.name}`](#{ability.name}) | {version_word(ability.since)} | "
        + " | ".join("yes" if ability.since <= column else "-" for column in COLUMNS)
        + " |"
        for ability in ABILITIES
    ]
    lines = [
        GENERATED,
        "# Compatibility",
        "",
        "Holdfast asks the running kernel what it can do (through BTF, the kernel's own description of "
        "its types) "
        "and never trusts a version number. The versions here are those of mainline Linux; distributions "
        "carry "
        "some abilities back to older kernels. `holdfast doctor` prints what this machine has.",
        "",
        "## By kernel version",
        "",
        header,
        "|---|---|" + "---|" * len(COLUMNS),
        *rows,
        "",
        "## Without reasons",
        "",
        "Before Linux 6.10, and for resets that the stack decides itself before 6.12, the kernel gives no "
        "reason. The cause is then inferred from the state of the socket, its flags and the call path, and "
        "every scenario of the lab but these is explained as it was made on Linux 6.1, the kernel of Debian "
        "12 (`make kernel-test` shows it):",
        "",
        "| cause | what is said instead |",
        "|---|---|",
        *(f"| `{cause}` | `{said}`, basis `none` |" for cause, said in UNTOLD_WITHOUT_REASON.items()),
        "",
        "## Each ability",
        "",
    ]
    for ability in ABILITIES:
        lines += ability_section(ability)
    return "\n".join(lines) + "\n" + COMPATIBILITY_END


COMPATIBILITY_END = """\
## Version is not permission

| condition | effect |
|---|---|
| no root, no `CAP_BPF` and `CAP_PERFMON` | no BPF; see the steps below |
| no BTF (`/sys/kernel/btf/vmlinux`) | no BPF; tracepoints are read by their format files |
| the kernel refuses to attach to functions | `received_segment` is replaced by a packet filter; before \
6.10 resets in answer to segments are only counted |
| kernel without kprobes | no effect: Holdfast uses none |
| a container | it sees what its rights allow; resets of other network namespaces need the host's |

## Steps down

Each step is shown by `holdfast doctor` and in the header of `holdfast watch`.

1. **BPF**: everything in the table above that the kernel has.
2. **Tracepoints through `perf_event_open`** (root, no BPF): every reset that the kernel's tracepoints show,
   with less about the connection.
3. **No rights**: socket ends with their last counters (`sock_diag`) and the rates of `/proc/net/netstat`:
   that connections were reset and how often, seldom why.

`import holdfast` needs none of this.
"""

TUNING = "docs/reference/hold/tuning.md"
BEGIN = "<!-- From here: written by `make docs` from the code's table of profiles. -->\n"
END = "<!-- To here. -->\n"


def with_part(path: str, begin: str, lines: list[str]) -> str:
    """A page whose part between two marks is written anew and whose prose stays."""
    before, _, rest = (ROOT / path).read_text(encoding="utf-8").partition(begin)
    return before + begin + "\n".join(lines) + END + rest.partition(END)[2]


def seconds(number: float | None) -> str:
    """A cell for a time, or a dash."""
    return "-" if number is None else f"{number:.0f} s"


def profile_row(profile: policy.Profile) -> str:
    """One line of the overview."""
    alive, found = profile.policy.keepalive, profile.policy.detection()
    times = f"{alive.idle_s}/{alive.interval_s}/{alive.count}" if alive else "off"
    cells = [
        f"[`{profile.name}`](#{profile.name})",
        times,
        f"{profile.policy.user_timeout_ms} ms",
        seconds(profile.heartbeat_s),
        seconds(profile.path_idle_s),
        f"{seconds(found.idle_s)}, {seconds(found.busy_s)}",
        seconds(found.survived_s),
    ]
    return "| " + " | ".join(cells) + " |"


def profile_section(profile: policy.Profile) -> list[str]:
    """The heading of one profile and where its numbers come from."""
    path = f"{profile.path[0].upper()}{profile.path[1:]}"
    rows = [f"| `{source.number}` | {source.says} | {source.where} |" for source in profile.sources]
    return [
        f"### {profile.name}",
        "",
        f"{path}. It {profile.at_expiry}.",
        "",
        "| number | why | source |",
        "|---|---|---|",
        *rows,
        "",
    ]


def tuning_page() -> str:
    """docs/reference/hold/tuning.md, whose profiles come from their table and whose prose stays."""
    shared = policy.DEFAULT_PROFILE.policy
    lines = [
        "",
        f"All set `nodelay` and `notsent_lowat_bytes` = {shared.notsent_lowat_bytes}.",
        "",
        "| profile | keep-alive | user timeout | heartbeat | idle limit | noticed | outage |",
        "|---|---|---|---|---|---|---|",
        *(profile_row(profile) for profile in policy.PROFILES.values()),
        "",
    ]
    for profile in policy.PROFILES.values():
        lines += profile_section(profile)
    return with_part(TUNING, BEGIN, lines)


ERRORS = "docs/reference/hold/errors.md"
ERRORS_BEGIN = "<!-- From here: written by `make docs` from the code's table of errno and phase. -->\n"


def verdict_cell(verdict: Verdict) -> str:
    """The class and the cause, linked."""
    name = verdict.error.__name__
    return f"[`{name}`](#{name.lower()}): [`{verdict.cause}`](../causes.md#{verdict.cause})"


def errors_page() -> str:
    """docs/reference/hold/errors.md, whose table of errno and phase comes from the code's."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for number, name in sorted(errno.errorcode.items(), key=lambda one: one[1]):
        verdicts = [classify(number, phase) for phase in Phase]
        found = tuple(verdict_cell(verdict) for verdict in verdicts if verdict is not None)
        if found:
            rows.setdefault(found, []).append(f"`{name}`")
    lines = [
        "",
        "| errno | " + " | ".join(f"`{phase}`" for phase in Phase) + " |",
        "|---|" + "---|" * len(Phase),
        *(f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in rows.items()),
        "",
    ]
    return with_part(ERRORS, ERRORS_BEGIN, lines)


PROTOCOL = "docs/reference/protocol.md"
PROTOCOL_BEGIN = "<!-- From here: written by `make docs` from the code's tables of states and codes. -->\n"


def protocol_page() -> str:
    """docs/reference/protocol.md, whose states and codes come from the code's and whose prose stays."""
    lines = [
        "",
        "## States",
        "",
        "What is not in this diagram may not happen: from the peer it is a violation, and the state stays.",
        "",
        "```mermaid",
        diagram(),
        "```",
        "",
        "| state | meaning |",
        "|---|---|",
        *(f"| `{state}` | {state.sentence} |" for state in State),
        "",
        "| event | meaning |",
        "|---|---|",
        *(f"| `{event}` | {event.sentence} |" for event in Event),
        "",
        "## Codes",
        "",
        "Of `RESET`, where *its* is the sender's, and of the violations that end a transport. "
        "Applications may use those from 256 on.",
        "",
        "| code | name | meaning |",
        "|---|---|---|",
        *(f"| {code:d} | `{code.name}` | {code.sentence} |" for code in Code),
        "",
    ]
    return with_part(PROTOCOL, PROTOCOL_BEGIN, lines)


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/causes.md": causes_page,
    "docs/reference/compatibility.md": compatibility_page,
    ERRORS: errors_page,
    PROTOCOL: protocol_page,
    TUNING: tuning_page,
}


def stale() -> list[str]:
    """The generated pages that differ from the tables."""
    return [
        path
        for path, page in PAGES.items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != page()
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` say which are stale; the exit code."""
    old = stale()
    if "--check" in arguments:
        for path in old:
            print(f"{path} is not up to date: run make docs", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(PAGES[path](), encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``holdfast lab``: make resets for real, and hold what was made against what was explained."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.text import Text

from holdfast.cli import checked, render
from holdfast.errors import KernelUnavailable, UsageError
from holdfast.lab import NOT_MADE, SCENARIOS, Made, NoNetwork, Scenario, ScenarioFailed, find, make
from holdfast.lab.matrix import UNSEEN, Pairing, Records, observe
from holdfast.watch.kernel.source import EVERYTHING, KernelSource
from holdfast.watch.session import Background, Session

EPILOG = """\b
Everything happens in private network namespaces: no other address, process
or setting is touched, and nothing stays behind.

\b
Exit codes:
  0  everything that was made was explained (or, without rights, was made)
  1  something was made and not explained as it was made, or could not be made
  2  wrong usage
  3  not available on this kernel, or not without more rights

\b
Examples:
  holdfast lab list                          what can be made here
  holdfast lab run closed_port               make it once and explain it
  holdfast lab run linger_zero --count 23 --family 6
  holdfast lab run --all --json              one object for each reset made
"""

LIST_EPILOG = """\b
Examples:
  holdfast lab list
  holdfast lab list --json                   one object for each scenario
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Make every kind of reset for real, and see it explained."""


@command.command("list", epilog=LIST_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_command(as_json: bool) -> None:
    """List what can be made, and which causes cannot and why."""
    if as_json:
        for one in SCENARIOS.values():
            click.echo(json.dumps(_listed(one)))
        return
    console = render.Page()
    for one in SCENARIOS.values():
        console.print(Text(one.name, style="bold"), Text(f"({one.needs})", style="dim"))
        console.print("\n".join(render.wrap(one.sentence, render.WIDTH, "    ")))
    console.print(Text("\nCauses that the lab cannot make:", style="bold"))
    for cause, reason in NOT_MADE.items():
        console.print("\n".join(render.wrap(f"{cause}: {reason}", render.WIDTH)))


def _listed(one: Scenario) -> dict[str, object]:
    return {
        "scenario": one.name,
        "cause": one.cause,
        "sentence": one.sentence,
        "needs": str(one.needs),
        "families": list(one.families),
        "vm_only": one.vm_only,
    }


@command.command("run", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every scenario that can run on this machine.")
@click.option("--family", type=click.Choice(["4", "6", "both"]), default="4", show_default=True)
@click.option(
    "--count",
    type=checked.Whole(1, 1000),
    metavar="NUMBER",
    default=1,
    show_default=True,
    help="Connections of each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each reset made.")
@click.option("-v", "--verbose", is_flag=True, help="Tell the whole story of each reset.")
@click.pass_context
def run_command(
    ctx: click.Context,
    names: Sequence[str],
    everything: bool,
    family: str,
    count: int,
    as_json: bool,
    verbose: bool,
) -> None:
    """Make the named resets and say of each what was seen."""
    if bool(names) == everything:
        raise UsageError("name the scenarios to run, or say --all: see holdfast lab list.")
    chosen = (
        [one for one in SCENARIOS.values() if not one.vm_only] if everything else [find(n) for n in names]
    )
    families = (4, 6) if family == "both" else (int(family),)
    show = _Show(as_json, verbose)
    good = True
    with explaining() as records:
        for one in chosen:
            for version in families:
                if version in one.families:
                    good &= show.run(one, version, count, records, pass_over=everything)
                elif not everything:
                    show.say(f"{one.name} is for IPv{one.families[0]} only.")
    ctx.exit(0 if good else 1)


@contextmanager
def explaining() -> Iterator[Records | None]:
    """Records of a watch by BPF that runs meanwhile; None, with the reason on standard error, without it."""
    records = Records()
    try:
        source = KernelSource(keep=EVERYTHING)
    except KernelUnavailable as error:
        click.echo(f"Made, but not explained: {error}", err=True)
        yield None
        return
    try:
        with Background(Session(source, tap=records.tap), records.add):
            yield records
    finally:
        source.close()


class _Show:
    def __init__(self, as_json: bool, verbose: bool) -> None:
        self._as_json, self._verbose = as_json, verbose
        self._out, self._talk = render.Page(), render.talk()

    def say(self, words: str) -> None:
        """Talk, on standard error."""
        self._talk.print(Text(words, style="dim"))

    def run(
        self, one: Scenario, family: int, count: int, records: Records | None, *, pass_over: bool
    ) -> bool:
        """Make one scenario and print what came of it; whether all is as it was made.

        Args:
            pass_over: say which scenario cannot be made on this machine, instead of giving up.
        """

        def again(made: Made) -> None:
            self.say(f"{made.scenario.name}: {UNSEEN}")

        try:
            with (
                self._talk.status(f"{one.name} over IPv{family}")
                if sys.stderr is not None and sys.stderr.isatty()
                else _quiet()
            ):
                if records is not None:
                    pairings = observe(one, family, count, records, again)
                else:
                    made = make(one, family, count)
                    pairings = [Pairing(made, None) for _ in made.label.pairs]
        except ScenarioFailed as error:
            self.say(f"{one.name}: {error}")
            return False
        except KernelUnavailable as error:
            if isinstance(error, NoNetwork) or not pass_over:
                raise
            self.say(str(error))
            return True
        for pairing in pairings:
            self._print(pairing)
        return records is None or all(pairing.explained or pairing.untold for pairing in pairings)

    def _print(self, pairing: Pairing) -> None:
        if self._as_json:
            click.echo(json.dumps(pairing.as_json()))
        elif pairing.reset is None:
            verdict = "nothing to explain" if pairing.explained else "not explained"
            self._out.print(Text(f"{pairing.made.scenario.name}: made, {verdict}."))
        elif self._verbose:
            self._out.print(render.story(pairing.reset), end="\n\n")
        else:
            self._out.print(render.told(pairing.reset))
        if pairing.reset is not None and not pairing.explained and not self._as_json:
            differences = ", ".join(
                f"{key} was {made}, explained as {said}"
                for key, (made, said) in pairing.differences().items()
            )
            self._out.print(Text(f"  Differs: {differences}.", style="red"))


@contextmanager
def _quiet() -> Iterator[None]:
    yield

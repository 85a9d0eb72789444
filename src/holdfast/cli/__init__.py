"""The command line: ``holdfast COMMAND``; each command lives in the module of its name."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from holdfast.cli.render import printable
from holdfast.errors import HoldfastError, KernelUnavailable, UsageError

COMMANDS = ("watch", "explain", "inspect", "doctor", "lab", "demo")
"""Every command, in the order of the help: ``holdfast.cli.<name>`` holds it as ``command``."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it: 128 + SIGINT."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)

EXAMPLES = """\b
Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    not available on this kernel, or not without more rights
  4    a capture was damaged: what came before was told (explain)
  130  interrupted

\b
Examples:
  holdfast demo               make every kind of reset here and explain each
  holdfast watch              explain the resets of this host as they happen
  holdfast watch --json       one object per line, for another program
  holdfast explain FILE       why each connection in a capture was reset
  holdfast inspect :443       what the kernel does to these connections now
  holdfast doctor             what this machine can tell, and what is missing
"""


def exit_code_of(error: HoldfastError) -> int:
    """What the process answers for this error: 2 for wrong usage, 3 for a missing kernel feature, else 1."""
    if isinstance(error, UsageError):
        return 2
    if isinstance(error, KernelUnavailable):
        return 3
    return 1


class Commands(click.Group):
    """A group that imports a command when it is called for, and turns our errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of :data:`COMMANDS`, in their order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of this name; one that explains itself if this build lacks the module.

        Raises:
            UsageError: there is none of that name.
        """
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else " See holdfast --help."
            raise UsageError(f"there is no command '{cmd_name}'.{hint}")
        module_name = f"holdfast.cli.{cmd_name}"
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None:
                raise
            return _absent(cmd_name, error.name)
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but a mistake before the command's name is one sentence too."""
        with _in_sentences(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: no traceback for our errors, Ctrl-C, a full disk, or a reader that has left."""
        with _in_sentences(ctx):
            _write_anything()
            try:
                return super().invoke(ctx)
            finally:
                # Here and not when the interpreter ends: there, nobody could turn a failure into a sentence.
                if sys.stdout is not None:
                    sys.stdout.flush()


@contextmanager
def _in_sentences(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except HoldfastError as error:
        _say(str(error))
        ctx.exit(exit_code_of(error))
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "holdfast"
        _say(f"{_ended(error.format_message())} See {command} --help.")
        ctx.exit(error.exit_code)
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    except BrokenPipeError:
        _discard_stdout()
        ctx.exit(0)
    except OSError as error:
        if error.errno in _TOO_MANY:
            _say("too many files are open; allow more of them (ulimit -n 1024).")
            ctx.exit(1)
        if error.errno not in _FULL:
            raise
        _discard_stdout()
        _say(f"the output cannot be written ({error.strerror}).")
        ctx.exit(1)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(("?", "!")) else f"{sentence.rstrip('.')}."


def _say(sentence: str) -> None:
    click.echo(f"holdfast: {printable(sentence)}", err=True)


def _write_anything() -> None:
    # A terminal that is not UTF-8 lacks our arrows, and process names may hold anything.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _absent(name: str, module: str) -> click.Command:
    @click.command(
        name,
        short_help=f"Not in this build (no module {module}).",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def stub() -> None:
        raise UsageError(f"this build has no command '{name}': the module {module} is missing.")

    return stub


def _discard_stdout() -> None:
    # The interpreter flushes stdout once more at exit; into the closed pipe that would print a warning.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="holdfast", message="%(prog)s %(version)s")
def main() -> None:
    """Say of every TCP reset who sent it, why, what was lost and what to do."""
    # The command is imported by now: from here on Ctrl-C is ours to answer (see holdfast.__main__).
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)

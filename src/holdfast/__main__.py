"""``holdfast`` and ``python -m holdfast``: the command line, quiet if interrupted while it starts."""

# SPDX-License-Identifier: Apache-2.0
import signal


def main() -> None:
    """Run the command line."""
    # In the middle of an import nobody can answer Ctrl-C with a sentence: until a command begins, it ends us
    # as it ends any program. Unless it was ignored from the start, as by nohup.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from holdfast.cli import main as command

    command(prog_name="holdfast")


if __name__ == "__main__":
    main()

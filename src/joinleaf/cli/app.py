"""All verbs as one program."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from joinleaf import COMPILED, __version__
from joinleaf.cli.authority import keys
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.leaf import leaf
from joinleaf.cli.output import hush_stdout
from joinleaf.cli.protocols import protocols
from joinleaf.cli.receive import receive
from joinleaf.cli.root import root
from joinleaf.cli.send import send
from joinleaf.cli.who import who

__all__ = ["app", "run"]

app = typer.Typer(
    name="joinleaf",
    help="One-to-many sessions: send files to everybody who joins, live feeds, who is there.",
    epilog=(
        "Exit codes: 0 all well, 1 failure, 2 usage, 3 not every leaf has everything, "
        "4 refused by the root, 130 interrupted. Every option can be set by an environment "
        "variable too, JOINLEAF_RATE for --rate and so on."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"joinleaf {__version__}" + " (compiled)" * COMPILED)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """The options of the program itself; the verbs have their own."""


for verb in (send, receive, root, leaf, who, keys, protocols):
    app.command()(verb)


def run(arguments: list[str]) -> int:
    """Parse the command line, run the verb, give the exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="joinleaf", standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # while printing a help page
        hush_stdout()
        return ExitCode.OK
    except Exception as error:
        # Typer has brought its own copy of click along since 0.20 or so; what both have in common
        # is the method.
        if (describe := getattr(error, "format_message", None)) is None:
            raise
        return _usage(str(describe()), getattr(error, "ctx", None))
    return int(code or 0)


def _usage(text: str, context: object) -> int:
    path = getattr(context, "command_path", "joinleaf")
    text = " ".join(text.split()).rstrip(".")
    if text:  # without a verb the help page has been printed, and there is nothing to add
        sys.stderr.write(f"joinleaf: error: {text}. See {path} --help\n")
    return ExitCode.USAGE

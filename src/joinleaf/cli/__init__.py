"""The command line, ``joinleaf``: one module per verb. Needs the extra ``joinleaf[cli]``."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and give the exit code (``cli.exits.ExitCode``).

    Nothing of the extra is imported before it is known to be there.

    Args:
        arguments: What follows the program's name; None takes it from ``sys.argv``.
    """
    for module in ("typer", "rich"):
        if importlib.util.find_spec(module) is None:
            sys.stderr.write(
                f'joinleaf: error: the command line needs {module}: pip install "joinleaf[cli]"\n'
            )
            return 2
    from joinleaf.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)

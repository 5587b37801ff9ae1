"""Exit codes: the same for every verb."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """What the shell sees; scripts may rely on these numbers."""

    OK = 0  # all well; for send: every leaf has everything, verified
    FAILURE = 1  # it did not come about; the last line says why
    USAGE = 2  # the command line is wrong; nothing has happened
    PARTIAL = 3  # sent, but not every leaf has everything
    REFUSED = 4  # the root turned this host away, or out
    INTERRUPTED = 130  # Ctrl-C, SIGTERM or a closed terminal; the others saw a clean leave

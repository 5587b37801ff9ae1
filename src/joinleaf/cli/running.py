"""Runs one verb: signals, logging, and one line of text with an exit code for every failure."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final

from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk, hush_stdout
from joinleaf.cli.signals import Stop
from joinleaf.cli.units import clean
from joinleaf.errors import (
    AdmissionRefusedError,
    JoinleafError,
    JoinRefusedError,
    ProviderNotFoundError,
    SessionOSError,
)
from joinleaf.spi.codes import WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT
from joinleaf.spi.provider import EndReason

__all__ = ["UsageError", "failure_text", "run_verb", "was_refused"]

_log: Final = logging.getLogger("joinleaf")

Body = Callable[[Talk, Stop], tuple[ExitCode, dict[str, Any]]]
"""A verb's work: gives the exit code and what the JSON summary holds."""


class UsageError(Exception):
    """The command line contradicts itself; the text says how and what to write instead."""


def run_verb(verb: str, common: Common, body: Body) -> ExitCode:
    """Run a verb's work; whatever the user, a peer or the system did wrong becomes one line."""
    talk, stop = Talk(verb, common), Stop()
    facts: dict[str, Any] = {}
    talk.start_logging()
    try:
        with stop.listening():
            code, facts = _guarded(body, talk, stop)
            talk.event("summary", verb=verb, exit=int(code), **facts)
    except BrokenPipeError:
        # Whoever read standard output (head, a pager that was quit) has had enough.
        hush_stdout()
        code = ExitCode.OK
    except KeyboardInterrupt:  # a second one, while the first was being seen to
        code = ExitCode.INTERRUPTED
    finally:
        talk.stop_logging()
    return code


def _guarded(body: Body, talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
    try:
        return body(talk, stop)
    except KeyboardInterrupt:
        talk.say("interrupted", "yellow")
        return ExitCode.INTERRUPTED, {"error": "interrupted"}
    except BrokenPipeError:
        raise
    except (JoinleafError, OSError, ValueError, UsageError) as error:
        _log.debug("in full", exc_info=error)
        text = failure_text(error)
        talk.complain(text)
        return _code_for(error), {"error": text}


# No address or interface of this host, or not of this kind: nothing has happened, and nothing will.
_WRONG_ARGUMENTS: Final = frozenset({WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT})


def _code_for(error: BaseException) -> ExitCode:
    if isinstance(error, UsageError | ValueError | ProviderNotFoundError):
        return ExitCode.USAGE
    if isinstance(error, SessionOSError) and error.code in _WRONG_ARGUMENTS:
        return ExitCode.USAGE
    return ExitCode.REFUSED if was_refused(error) else ExitCode.FAILURE


def was_refused(error: BaseException) -> bool:
    """Whether a root said no, rather than nobody being there."""
    return isinstance(error, AdmissionRefusedError) or (
        isinstance(error, JoinRefusedError) and error.reason == EndReason.REFUSED
    )


def failure_text(error: BaseException) -> str:
    """One line: what failed, and the way out."""
    if isinstance(error, JoinRefusedError) and was_refused(error):
        said = f" ({_said(error.data)})" if error.data else ""
        return f"refused by the root: {_without_hint(error)}{said}"
    if isinstance(error, JoinRefusedError):
        return f"{_without_hint(error)}. Is the other side running, and the port right?"
    if isinstance(error, SessionOSError) and error.code == WSAEADDRINUSE:
        return f"{_without_hint(error)}. Stop the other program, or choose another port (0: any)"
    if isinstance(error, OSError) and not isinstance(error, JoinleafError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        return clean(f"{name}: {error.strerror}" if name else error.strerror)
    return clean(str(error))


def _without_hint(error: JoinleafError) -> str:
    text = str(error)
    return clean(text.removesuffix(error.hint).rstrip(". ") if error.hint else text)


def _said(data: bytes) -> str:
    return clean(data[:200].decode(errors="replace"))

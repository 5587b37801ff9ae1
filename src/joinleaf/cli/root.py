"""``joinleaf root``: a live session's root, at the terminal or in a pipe."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from joinleaf.cli import carriage, options
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.live import Live, stdin_is_terminal
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import run_verb
from joinleaf.cli.serving import ONLY_HERE, line_note, reachable, served, shell_word
from joinleaf.cli.signals import Stop
from joinleaf.errors import SessionTimeoutError
from joinleaf.messages import Request
from joinleaf.spi.provider import Accept
from joinleaf.spi.qos import FlowSpec
from joinleaf.sync import Admit, Root, open_root

__all__ = ["root"]


def root(
    address: Annotated[
        str | None,
        typer.Argument(
            envvar="JOINLEAF_ADDRESS",
            help="Where to listen. Default: jls://:7400, with --open jl://:7400.",
        ),
    ] = None,
    open_: options.Open = False,
    cert: options.Cert = None,
    key: options.Key = None,
    ca: options.Ca = None,
    leaves: Annotated[
        int | None,
        typer.Option(
            "--leaves",
            "-n",
            envvar="JOINLEAF_LEAVES",
            min=0,
            help="Send nothing before so many are there. Default: 1 in a pipe, 0 at a terminal.",
        ),
    ] = None,
    max_wait: options.MaxWait = None,
    raw: options.Raw = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", envvar="JOINLEAF_KEEP", help="Go on when standard input has ended."),
    ] = False,
    slow: Annotated[
        options.Slow,
        typer.Option(
            "--slow",
            envvar="JOINLEAF_SLOW",
            help="A leaf that does not keep up: wait for it, drop messages to it, or expel it.",
        ),
    ] = options.Slow.WAIT,
    max_leaves: Annotated[
        int | None,
        typer.Option(
            "--max-leaves",
            envvar="JOINLEAF_MAX_LEAVES",
            min=1,
            help="Refuse who comes when so many are there. Default: no such bound.",
        ),
    ] = None,
    group: options.RootCarrier = None,
    ttl: options.Ttl = 1,
    rate: options.Rate = None,
    role: options.RoleOption = options.Role.BOTH,
    data: Annotated[
        str,
        typer.Option("--data", envvar="JOINLEAF_DATA", help="A welcome for everybody who joins."),
    ] = "",
    name: options.OwnName = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar="JOINLEAF_TIMEOUT",
            metavar="SECONDS",
            min=0.2,
            help="A leaf that is silent for this long is gone.",
        ),
    ] = 10.0,
    interface: options.Interface = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Open a live session: what comes in on standard input goes to everybody who joined.

    A line is a message. What leaves send comes out on standard output; who joined, left or was
    refused is said on standard error. In a pipe the session ends with its input.
    """

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        where = served(address, open_to_all=open_, interface=interface, cert=cert, ca=ca)
        limit = options.bytes_per_s(rate)
        open_it = partial(
            open_root,
            hops=ttl,
            admit=_welcome(data.encode()) if data else None,  # served() has seen to who may come
            open=open_ or None,
            qos=None if limit is None else FlowSpec(token_rate=limit),
            slow=slow.value,
            role=role.value,
            name=name,
            dead_after=timeout,
            max_leaves=max_leaves,
            cert=cert,
            key=key,
            ca=ca,
        )
        opened, why_not = carriage.open_by(group, where, open_it, worth=False)
        with opened as session:
            _announce(talk, session, why_not, sends=role.sends)
            typed = stdin_is_terminal()
            number = leaves if leaves is not None else 0 if typed else 1
            live = Live(
                talk,
                session,
                raw=raw,
                sends=role.sends,
                closes=not keep,
                receives=role.receives,
                ready=lambda: _wait(session, number, max_wait),
            )
            return live.run()

    return run_verb("root", Common(json, quiet, verbose), body)


def _welcome(data: bytes) -> Admit:
    def admit(request: Request) -> Accept:
        return request.accept(data)

    return admit


def _wait(session: Root, number: int, max_wait: float | None) -> None:
    try:
        session.wait_for_leaves(number, timeout=max_wait)
    except SessionTimeoutError:
        return  # as announced: go on with those there are


def _announce(talk: Talk, session: Root, why_not: str, *, sends: bool) -> None:
    addresses = [shell_word(one.line) for one in reachable(session.join_line)]
    command = f"joinleaf leaf {addresses[0]}"
    talk.event(
        "listening",
        addresses=addresses,
        command=command,
        group=carriage.group_of(session),
        why_no_group=why_not,
    )
    talk.say("Session open. To join it, run:")
    talk.say(f"    {command}", "bold")
    for other in addresses[1:]:
        talk.say(f"    joinleaf leaf {other}   (by another way to this host)", "dim")
    if session.address.address.is_loopback:
        talk.say(ONLY_HERE, "dim")
    elif session.address.scheme == "jls":
        talk.say(line_note(session.join_line), "dim")
    carriage.tell(talk, session, why_not)
    if sends and stdin_is_terminal():
        talk.say(
            "What you type goes to every leaf, line by line. Ctrl-D ends the session.",
            "dim",
        )

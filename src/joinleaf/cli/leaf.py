"""``joinleaf leaf``: join a live session, at the terminal or in a pipe."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from joinleaf.cli import carriage, options, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.live import Live, stdin_is_terminal
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import run_verb
from joinleaf.cli.serving import DEFAULT_PORT, local_on
from joinleaf.cli.signals import Stop
from joinleaf.spi.qos import FlowSpec
from joinleaf.sync import Leaf, join
from joinleaf.values import SessionAddress

__all__ = ["leaf"]


def leaf(
    address: Annotated[
        str,
        typer.Argument(
            envvar="JOINLEAF_ADDRESS",
            help="jl://host:port, a join line (jls://host:port/#key), udp://group:port or "
            "ssm://source@group:port; the last two with #key, sealed.",
        ),
    ] = f"jl://127.0.0.1:{DEFAULT_PORT}",
    raw: options.Raw = False,
    rate: options.Rate = None,
    role: options.RoleOption = options.Role.BOTH,
    data: Annotated[
        str,
        typer.Option("--data", envvar="JOINLEAF_DATA", help="What to tell the root on joining."),
    ] = "",
    name: options.OwnName = None,
    ttl: options.Ttl = 1,
    no_loopback: Annotated[
        bool,
        typer.Option(
            "--no-loopback",
            envvar="JOINLEAF_NO_LOOPBACK",
            help="Do not hear multicast senders on this host, oneself included.",
        ),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar="JOINLEAF_TIMEOUT",
            metavar="SECONDS",
            min=0.1,
            help="Longest wait for the root's answer.",
        ),
    ] = 30.0,
    group: options.LeafCarrier = None,
    cert: options.Cert = None,
    key: options.Key = None,
    ca: options.Ca = None,
    interface: options.Interface = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Join a live session: messages come out on standard output, standard input goes in.

    A line is a message. When standard input has ended, receiving goes on until the session ends;
    a mere sender (--role sender) leaves then.
    """

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        where = carriage.at_leaf(group, SessionAddress.parse(address))
        multicast = where.scheme in ("udp", "ssm")
        limit = options.bytes_per_s(rate)
        joined = join(
            where,
            data=data.encode(),
            qos=None if limit is None else FlowSpec(token_rate=limit),
            role=role.value,
            timeout=timeout,
            interface=interface if multicast else None,
            hops=ttl,
            loopback=not no_loopback,
            local=None if multicast else local_on(interface, where.address),
            name=name,
            cert=cert,
            key=key,
            ca=ca,
        )
        with joined as session:
            _announce(talk, session, sends=role.sends)
            live = Live(
                talk,
                session,
                raw=raw,
                sends=role.sends,
                closes=not role.receives,
                receives=role.receives,
            )
            return live.run()

    return run_verb("leaf", Common(json, quiet, verbose), body)


def _announce(talk: Talk, session: Leaf, *, sends: bool) -> None:
    welcome = units.clean(session.welcome.decode(errors="replace"))
    talk.event("joined", address=str(session.address), welcome=welcome)
    talk.say(f"joined {session.address}" + (f": {welcome}" if welcome else ""), "green")
    if sends and stdin_is_terminal():
        talk.say("What you type is sent, line by line. Ctrl-C leaves.", "dim")

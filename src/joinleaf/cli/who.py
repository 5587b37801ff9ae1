"""``joinleaf who``: the members of a running root, and why the last ones left."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from joinleaf.cli import options, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import UsageError, run_verb
from joinleaf.cli.serving import DEFAULT_PORT
from joinleaf.cli.signals import Stop
from joinleaf.core.wire.control import Roster, RosterRow
from joinleaf.errors import SpiError
from joinleaf.providers.rooted._who import query_roster
from joinleaf.spi.codes import session_error
from joinleaf.spi.provider import JoinRole
from joinleaf.values import SessionAddress

__all__ = ["who"]

_ROLES = {
    JoinRole.BOTH: "both",
    JoinRole.SENDER_ONLY: "sender",
    JoinRole.RECEIVER_ONLY: "receiver",
}


def who(
    address: Annotated[
        str, typer.Argument(envvar="JOINLEAF_ADDRESS", help="Where the root listens.")
    ] = f"jl://127.0.0.1:{DEFAULT_PORT}",
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar="JOINLEAF_TIMEOUT",
            metavar="SECONDS",
            min=0.1,
            help="Longest wait for the answer.",
        ),
    ] = 5.0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Show who is in the session of a root on this host, and why the last ones left."""

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        where = SessionAddress.parse(address)
        if where.scheme != "jl":
            raise UsageError(f"{where}: only a root can be asked, jl://host:port")
        try:
            roster = query_roster(where.address, timeout)
        except SpiError as error:
            raise session_error(error) from error
        if not json:
            _print(roster)
        return ExitCode.OK, {
            "session": roster.session.hex(),
            "view": roster.number,
            "members": [_facts(row) for row in roster.members],
            "former": [_facts(row) for row in roster.former],
        }

    return run_verb("who", Common(json, quiet, verbose), body)


def _facts(row: RosterRow) -> dict[str, Any]:
    facts = {
        "name": row.name,
        "address": row.address,
        "role": _ROLES.get(JoinRole(row.role), ""),
        "since": row.since_ms / 1000,
        "lag": row.queued_bytes,
        "dropped": row.dropped,
    }
    return {**facts, "left": row.left, "left_at": row.left_ms / 1000} if row.left else facts


def _print(roster: Roster) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(Text(f"{units.count(len(roster.members), 'leaf', 'leaves')}", style="bold"))
    if roster.members:
        console.print(_members(roster), soft_wrap=True)
    if roster.former:
        console.print(Text("\nleft lately", style="bold"))
        console.print(_former(roster), soft_wrap=True)


def _members(roster: Roster) -> Table:
    table = _table("name", "address", "role", "since", "lag", "dropped")
    for row in roster.members:
        table.add_row(
            Text(units.clean(row.name or "unnamed")),
            Text(units.clean(row.address)),
            Text(_ROLES.get(JoinRole(row.role), "")),
            Text(_clock(row.since_ms)),
            Text(units.size(row.queued_bytes), style="yellow" if row.queued_bytes else ""),
            Text(str(row.dropped), style="red" if row.dropped else ""),
        )
    return table


def _former(roster: Roster) -> Table:
    table = _table("name", "address", "left", "dropped", "reason")
    for row in reversed(roster.former[-20:]):
        table.add_row(
            Text(units.clean(row.name or "unnamed")),
            Text(units.clean(row.address)),
            Text(_clock(row.left_ms)),
            Text(str(row.dropped)),
            Text(units.clean(row.left)),
        )
    return table


def _table(*headers: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for header in headers:
        table.add_column(justify="right" if header in ("lag", "dropped") else "left", no_wrap=True)
    table.add_row(*(Text(header, style="dim") for header in headers))
    return table


def _clock(milliseconds: int) -> str:
    """Time of day; with the date where it was not today."""
    then = time.localtime(milliseconds / 1000)
    today = time.localtime()
    same_day = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)

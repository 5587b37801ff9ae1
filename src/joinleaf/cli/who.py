"""``joinleaf who``: the members of a running root, and why the last ones left."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from joinleaf.cli import options, units
from joinleaf.cli.columns import aligned
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import UsageError, run_verb
from joinleaf.cli.serving import DEFAULT_PORT
from joinleaf.cli.signals import Stop
from joinleaf.core.wire.control import Roster, RosterRow
from joinleaf.errors import SpiError
from joinleaf.opening import trust_of
from joinleaf.providers.rooted import query_roster
from joinleaf.spi.codes import session_error
from joinleaf.spi.provider import JoinRole
from joinleaf.values import SessionAddress

__all__ = ["who"]

_LEAVERS_SHOWN: Final = 20
_ROLES: Final = {
    JoinRole.BOTH: "both",
    JoinRole.SENDER_ONLY: "sender",
    JoinRole.RECEIVER_ONLY: "receiver",
}


def who(
    address: Annotated[
        str, typer.Argument(envvar="JOINLEAF_ADDRESS", help="Where the root listens.")
    ] = f"jl://127.0.0.1:{DEFAULT_PORT}",
    cert: options.Cert = None,
    key: options.Key = None,
    ca: options.Ca = None,
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
        if where.scheme not in ("jl", "jls"):
            raise UsageError(f"{where}: only a root can be asked, jl://host:port")
        try:
            roster = query_roster(
                where.address,
                timeout,
                secured=where.scheme == "jls",
                trust=trust_of(cert, key, ca, None),
                key=where.key,
            )
        except SpiError as error:
            raise session_error(error) from error
        if not json:
            talk.write(_listing(roster).encode())
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
        "carrier": row.carrier,
        "identity": row.identity,
    }
    return {**facts, "left": row.left, "left_at": row.left_ms / 1000} if row.left else facts


def _listing(roster: Roster) -> str:
    members = [_member(row) for row in roster.members]
    lines = [units.count(len(members), "leaf", "leaves")]
    if members:
        titles = ("name", "address", "role", "since", "by", "lag", "dropped", "identity")
        shown = len(titles) - (not any(row.identity for row in roster.members))
        rows = [row[:shown] for row in (titles, *members)]
        lines += aligned(rows, right=frozenset({5, 6}))
    if roster.former:
        former = [_leaver(row) for row in reversed(roster.former[-_LEAVERS_SHOWN:])]
        heads = ("name", "address", "left", "dropped", "reason")
        lines += ["", "left lately", *aligned([heads, *former], right=frozenset({3}))]
    return "\n".join(lines) + "\n"


def _member(row: RosterRow) -> tuple[str, ...]:
    return (
        units.clean(row.name or "unnamed"),
        units.clean(row.address),
        _ROLES.get(JoinRole(row.role), ""),
        _clock(row.since_ms),
        units.clean(row.carrier),
        units.size(row.queued_bytes),
        str(row.dropped),
        units.clean(row.identity),
    )


def _leaver(row: RosterRow) -> tuple[str, ...]:
    return (
        units.clean(row.name or "unnamed"),
        units.clean(row.address),
        _clock(row.left_ms),
        str(row.dropped),
        units.clean(row.left),
    )


def _clock(milliseconds: int) -> str:
    """Time of day; with the date where it was not today."""
    then = time.localtime(milliseconds / 1000)
    today = time.localtime()
    same_day = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)

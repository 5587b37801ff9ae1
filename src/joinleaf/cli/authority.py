"""``joinleaf keys``: a small authority of one's own, and certificates for roots and leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from joinleaf.cli import options, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import UsageError, run_verb
from joinleaf.cli.serving import shell_word
from joinleaf.cli.signals import Stop
from joinleaf.drivers.certificates import Authority, Credential, write_private

__all__ = ["keys"]

CA: Final = "ca.pem"
CA_KEY: Final = "ca-key.pem"
CA_DAYS: Final = 3650


def keys(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Host names and addresses that a root is reached by, or what a leaf is called. "
            "None: only the authority.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        str,
        typer.Option(
            "--folder",
            "-f",
            envvar="JOINLEAF_FOLDER",
            metavar="FOLDER",
            help="Where the authority is, or is made.",
        ),
    ] = "keys",
    leaf: Annotated[
        bool,
        typer.Option("--leaf", envvar="JOINLEAF_LEAF", help="Good for joining, not for a root."),
    ] = False,
    days: Annotated[
        int,
        typer.Option(
            "--days",
            envvar="JOINLEAF_DAYS",
            min=1,
            max=CA_DAYS,
            help="How long the certificate lasts.",
        ),
    ] = 365,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Make an authority, the first time, and with it a certificate for a root or a leaf.

    Writes FOLDER/ca.pem and FOLDER/NAME.pem, and the private keys beside them, which only their
    owner can read. Nothing is written over. Keep ca-key.pem to yourself; give everybody ca.pem.
    """

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        place = Path(folder)
        facts = {"ca": str(place / CA)}
        try:
            authority = _authority(talk, place)
            if names:
                facts |= _issue(talk, authority, place, names, days, leaf=leaf)
        except FileExistsError as error:
            raise UsageError(
                f"{error.filename} is there already: take another name or --folder, or remove it"
            ) from error
        except ValueError as error:
            raise UsageError(str(error)) from error
        return ExitCode.OK, facts

    return run_verb("keys", Common(json, quiet, verbose), body)


def _authority(talk: Talk, place: Path) -> Authority:
    """The one in the folder; a new one if there is none."""
    certificate, key = place / CA, place / CA_KEY
    if certificate.exists() and key.exists():
        return Authority(Credential(certificate.read_bytes(), key.read_bytes()))
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.create("joinleaf authority", CA_DAYS)
    write_private(certificate, authority.credential, key)
    talk.say(f"{certificate}: the authority, for everybody", "bold")
    talk.say(f"{key}: its private key, for nobody", "dim")
    return authority


def _issue(
    talk: Talk, authority: Authority, place: Path, names: list[str], days: int, *, leaf: bool
) -> dict[str, str]:
    stem = _file_name(names[0])
    certificate, key = place / f"{stem}.pem", place / f"{stem}-key.pem"
    write_private(certificate, authority.issue(names, days, server=not leaf), key)
    who = units.clean(", ".join(names))
    talk.say(f"{certificate}: for {who}, {units.count(days, 'day')}", "bold")
    talk.say(f"{key}: its private key", "dim")
    options_ = f"--cert {certificate} --key {key} --ca {place / CA}"
    if leaf:
        talk.say(f"To join: joinleaf receive jls://HOST:7400 {options_}")
    else:
        host = f"[{names[0]}]" if ":" in names[0] else names[0]
        talk.say(f"A root there: joinleaf send FILE {options_}")
        talk.say(f"Leaves join: {shell_word(f'jls://{host}:7400')}, each with its own certificate")
    return {"cert": str(certificate), "key": str(key)}


def _file_name(name: str) -> str:
    """What a certificate's files are called; ValueError for what could leave the folder."""
    stem = name.replace(":", "-").replace("*", "any")
    if not stem.strip(".") or os.sep in stem or "/" in stem or stem in ("ca", "ca-key"):
        raise ValueError(f"{name!r} is no name for a file: begin with a host name or an address")
    return stem

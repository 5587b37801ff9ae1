"""Options that several verbs share, each with its environment variable."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from joinleaf.spi.qos import parse_rate

__all__ = [
    "Ca",
    "Cert",
    "Digest",
    "DigestOption",
    "Interface",
    "Json",
    "Key",
    "LeafCarrier",
    "MaxWait",
    "Open",
    "OwnName",
    "Quiet",
    "Rate",
    "Raw",
    "ReceiveCarrier",
    "Role",
    "RoleOption",
    "RootCarrier",
    "SendCarrier",
    "Slow",
    "Ttl",
    "Verbose",
    "bytes_per_s",
]


class Slow(enum.StrEnum):
    """What to do about a leaf that does not keep up."""

    WAIT = "wait"
    DROP = "drop"
    EXPEL = "expel"


class Digest(enum.StrEnum):
    """What each file is verified by."""

    GMAC = "gmac"
    SHA256 = "sha256"


class Role(enum.StrEnum):
    """Which directions a member takes part in."""

    BOTH = "both"
    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def sends(self) -> bool:
        """Whether standard input is of use."""
        return self is not Role.RECEIVER

    @property
    def receives(self) -> bool:
        """Whether anything can come."""
        return self is not Role.SENDER


RoleOption = Annotated[
    Role,
    typer.Option("--role", envvar="JOINLEAF_ROLE", help="Send, receive, or both."),
]
Json = Annotated[
    bool,
    typer.Option("--json", envvar="JOINLEAF_JSON", help="JSON lines on standard output."),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", envvar="JOINLEAF_QUIET", help="Say nothing but errors."),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        envvar="JOINLEAF_VERBOSE",
        show_default=False,
        help="Say more; twice: all.",
    ),
]
Interface = Annotated[
    str | None,
    typer.Option(
        "--interface",
        envvar="JOINLEAF_INTERFACE",
        metavar="NAME",
        help="Network interface to use: name, index or address. Default: the system chooses.",
    ),
]
Open = Annotated[
    bool,
    typer.Option(
        "--open",
        envvar="JOINLEAF_OPEN",
        help="Serve other hosts and admit everybody, without encryption (jl://). Not needed "
        "otherwise: who has the join line of jls:// is let in.",
    ),
]
Cert = Annotated[
    str | None,
    typer.Option(
        "--cert",
        envvar="JOINLEAF_CERT",
        metavar="FILE",
        help="Certificate to show (PEM), for jls://. See joinleaf keys.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="JOINLEAF_KEY",
        metavar="FILE",
        help="Private key of the certificate (PEM). Default: it is in the same file.",
    ),
]
Ca = Annotated[
    str | None,
    typer.Option(
        "--ca",
        envvar="JOINLEAF_CA",
        metavar="FILE",
        help="Authority whose certificates are taken (PEM). A root that has one asks every leaf "
        "for a certificate.",
    ),
]
_CARRIER_WAYS = "GROUP:PORT, a multicast group of your own; auto, one that is chosen"
SendCarrier = Annotated[
    str | None,
    typer.Option(
        "--data",
        "--group",
        envvar="JOINLEAF_GROUP",
        metavar="GROUP:PORT|auto|leg",
        help=f"What carries the data: {_CARRIER_WAYS}; leg, a connection for each leaf. Default: "
        "auto for two leaves or more (or --start-now) on a network, else leg. A leaf that does "
        "not hear the group is served by its connection.",
    ),
]
ReceiveCarrier = Annotated[
    str | None,
    typer.Option(
        "--data",
        "--group",
        envvar="JOINLEAF_GROUP",
        metavar="leg",
        help="leg: take nothing from a multicast group, all by the own connection. Default: the "
        "group, if the sender has one and it is heard here.",
    ),
]
RootCarrier = Annotated[
    str | None,
    typer.Option(
        "--group",
        envvar="JOINLEAF_GROUP",
        metavar="GROUP:PORT|auto|leg",
        help=f"What carries messages to all: {_CARRIER_WAYS}; or leg, a connection for each leaf, "
        "the default. A leaf that does not hear the group is served by its connection.",
    ),
]
LeafCarrier = Annotated[
    str | None,
    typer.Option(
        "--group",
        envvar="JOINLEAF_GROUP",
        metavar="leg",
        help="leg: take nothing from a multicast group, all by the own connection. Default: the "
        "group, if the root has one and it is heard here.",
    ),
]
Ttl = Annotated[
    int,
    typer.Option(
        "--ttl",
        envvar="JOINLEAF_TTL",
        min=0,
        max=255,
        help="How many routers multicast may pass; 1 stays on the segment.",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        envvar="JOINLEAF_RATE",
        metavar="RATE",
        help="Send no faster than this: 200M is 200 million bits per second, 25MB/s are bytes.",
    ),
]
DigestOption = Annotated[
    Digest,
    typer.Option(
        "--digest",
        envvar="JOINLEAF_DIGEST",
        help="What each file is verified by. gmac costs little; sha256 can be compared with one "
        "from elsewhere.",
    ),
]
MaxWait = Annotated[
    float | None,
    typer.Option(
        "--max-wait",
        envvar="JOINLEAF_MAX_WAIT",
        metavar="SECONDS",
        min=0,
        help="Wait no longer than this for the leaves, then start with those there are.",
    ),
]
OwnName = Annotated[
    str | None,
    typer.Option(
        "--as",
        envvar="JOINLEAF_AS",
        metavar="NAME",
        help="What to be called at the other side. Default: host name and process number.",
    ),
]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw", envvar="JOINLEAF_RAW", help="Chunks of bytes as they come, instead of lines."
    ),
]


def bytes_per_s(rate: str | None) -> int | None:
    """The rate option's value. ValueError, with the forms there are, if it is none."""
    return None if rate is None else parse_rate(rate)

"""``joinleaf send``: a file, a folder or standard input to many leaves, with a verdict for each."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from joinleaf.cli import carriage, keys, options, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import run_verb
from joinleaf.cli.send_view import SendView
from joinleaf.cli.serving import ONLY_HERE, line_note, reachable, served, shell_word
from joinleaf.cli.signals import Stop
from joinleaf.messages import LeafJoined, LeafLeft, LeafRefused
from joinleaf.sync import Root, open_root
from joinleaf.sync._root import RootSide
from joinleaf.transfer import (
    DEFAULT_DIGEST,
    DigestKind,
    PathSource,
    SendProgress,
    Source,
    StreamSource,
    TransferResult,
    send_object,
)

__all__ = ["Sending", "send"]


def send(
    source: Annotated[
        str, typer.Argument(help="A file, a folder, or - for standard input.", show_default=False)
    ],
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            "-a",
            envvar="JOINLEAF_ADDRESS",
            help="Where to listen. Default: jls://:7400, with --open jl://:7400.",
        ),
    ] = None,
    open_: options.Open = False,
    cert: options.Cert = None,
    key: options.Key = None,
    ca: options.Ca = None,
    leaves: Annotated[
        int,
        typer.Option(
            "--leaves", "-n", envvar="JOINLEAF_LEAVES", min=1, help="How many leaves to wait for."
        ),
    ] = 1,
    max_wait: options.MaxWait = None,
    start_now: Annotated[
        bool,
        typer.Option(
            "--start-now",
            envvar="JOINLEAF_START_NOW",
            help="Start with the first leaf; whoever comes later gets what it missed.",
        ),
    ] = False,
    data: options.SendCarrier = None,
    ttl: options.Ttl = 1,
    rate: options.Rate = None,
    digest: options.DigestOption = options.Digest.GMAC,
    name: Annotated[
        str | None,
        typer.Option("--name", envvar="JOINLEAF_NAME", help="Under which name receivers keep it."),
    ] = None,
    linger: Annotated[
        float,
        typer.Option(
            "--linger",
            envvar="JOINLEAF_LINGER",
            metavar="SECONDS",
            min=0,
            help="At the end, how long to wait for leaves that are gone to come back.",
        ),
    ] = 5.0,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            envvar="JOINLEAF_TIMEOUT",
            metavar="SECONDS",
            min=0.2,
            help="A leaf that is silent or stands still for this long has failed.",
        ),
    ] = 30.0,
    interface: options.Interface = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Send a file, a folder or standard input to every leaf that joins; know who has it.

    Prints the line to run at the receiving ends. Late leaves get what they missed; interrupted
    ones go on where they were. Exit code 0: every leaf has everything, verified; 3: some do not.
    """

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        sending = Sending(
            leaves=leaves,
            max_wait=max_wait,
            start_now=start_now,
            rate=options.bytes_per_s(rate),
            digest=digest.value,
            linger=linger,
            timeout=timeout,
        )
        where = served(address, open_to_all=open_, interface=interface, cert=cert, ca=ca)
        from_pipe = source == "-"
        opened = _open_source(source, name)
        try:
            root, why_not = carriage.open_by(
                data,
                where,
                partial(
                    open_root,
                    open=open_ or None,
                    linger=2.0,
                    hops=ttl,
                    cert=cert,
                    key=key,
                    ca=ca,
                ),
                worth=carriage.worth_a_group(where, None if start_now else leaves),
            )
            with root:
                _announce(talk, root, opened, why_not)
                result = sending.run(talk, stop, root, opened, use_keys=not from_pipe)
                carried = carriage.facts(root)
        finally:
            opened.close()
        return sending.exit_code(result, talk), {**result.as_dict(), **carried}

    return run_verb("send", Common(json, quiet, verbose), body)


def _open_source(source: str, name: str | None) -> Source:
    if source != "-":
        return PathSource(source, name=name)
    # Not sys.stdin: its buffer would be locked by the reading thread when the interpreter ends.
    return StreamSource(open(0, "rb", buffering=0, closefd=False), name=name or "stdin")


def _announce(talk: Talk, root: Root, source: Source, why_not: str) -> None:
    manifest = source.manifest
    addresses = [shell_word(address.line) for address in reachable(root.join_line)]
    commands = [f"joinleaf receive {address}" for address in addresses]
    talk.event(
        "listening",
        name=manifest.name,
        kind=manifest.kind,
        size=manifest.size,
        addresses=addresses,
        command=commands[0],
        group=carriage.group_of(root),
        why_no_group=why_not,
    )
    what = units.clean(manifest.name)
    if manifest.size is not None:
        what += f" ({units.size(manifest.size)}"
        what += (
            f", {units.count(len(manifest.files), 'file')})" if manifest.kind == "folder" else ")"
        )
    talk.say(f"Sending {what}. To receive it, run:")
    for number, command in enumerate(commands):
        talk.say(f"    {command}", "bold" if number == 0 else "", end="")
        talk.say("" if number == 0 else "   (by another way to this host)", "dim")
    if root.address.address.is_loopback:
        talk.say(ONLY_HERE, "dim")
    elif root.address.scheme == "jls":
        talk.say(line_note(root.join_line), "dim")
    carriage.tell(talk, root, why_not)


@dataclass(frozen=True, slots=True)
class Sending:
    """One object to the leaves of one root, shown as it goes.

    Attributes:
        leaves: How many to wait for.
        max_wait: Seconds to wait for them; None: as long as it takes.
        start_now: Start with the first.
        rate: Bytes per second; None: no limit.
        digest: What each file is verified by.
        linger: Seconds to wait at the end for those that are gone.
        timeout: Seconds of silence or standstill after which a leaf has failed.
    """

    leaves: int = 1
    max_wait: float | None = None
    start_now: bool = False
    rate: int | None = None
    digest: DigestKind = DEFAULT_DIGEST
    linger: float = 5.0
    timeout: float = 30.0

    def run(
        self, talk: Talk, stop: Stop, root: Root, source: Source, *, use_keys: bool = False
    ) -> TransferResult:
        """Wait for the leaves, send, give the verdict."""
        use_keys = use_keys and keys.can_press() and talk.live
        view = SendView(
            talk,
            keys=use_keys and not self.start_now,
            group=carriage.group_of(root),
            carried=root.stats,
        )

        def show(progress: SendProgress) -> None:
            _tell_events(talk, root)
            view.show(progress)

        view.leaves_out(source.notices)
        with stop.gently(), view, _start_key(use_keys) as key:
            result = send_object(
                RootSide(root),
                source,
                leaves=1 if self.start_now else self.leaves,
                max_wait=self.max_wait,
                start_now=key,
                rate=self.rate,
                digest=self.digest,
                stall_timeout=self.timeout,
                linger=self.linger,
                cancel=stop,
                on_progress=show,
            )
        _tell_events(talk, root)
        view.verdict(result)
        return result

    def exit_code(self, result: TransferResult, talk: Talk) -> ExitCode:
        """What the shell gets; says it where nobody came at all."""
        if result.cancelled:
            talk.say("interrupted", "yellow")
            return ExitCode.INTERRUPTED
        if not result.leaves:
            wait = "" if self.max_wait is None else f" within {units.duration(self.max_wait)}"
            talk.complain(f"nobody joined{wait}: run the line above elsewhere, or raise --max-wait")
            return ExitCode.FAILURE
        return ExitCode.OK if result.ok else ExitCode.PARTIAL


def _start_key(use_keys: bool) -> contextlib.AbstractContextManager[threading.Event]:
    return keys.pressed() if use_keys else contextlib.nullcontext(threading.Event())


def _tell_events(talk: Talk, root: Root) -> None:
    """Joins and leaves as JSON lines; refusals for everybody. The view shows the rest."""
    for event in root.events(timeout=0):
        match event:
            case LeafJoined(leaf, view):
                talk.event("joined", name=leaf.name, address=str(leaf.address), view=view)
            case LeafLeft(leaf, view, reason):
                facts = {"name": leaf.name, "address": str(leaf.address), "view": view}
                talk.event("left", **facts, reason=reason)
            case LeafRefused(address, name, reason):
                talk.event("refused", name=name, address=str(address), reason=reason)
                talk.say(f"{units.clean(name)} ({address}) was refused: {reason}", "yellow")

"""``joinleaf receive``: take what a root sends, verified, into a folder or to standard output."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO, Annotated, Any, Final

import typer

from joinleaf.cli import carriage, options, units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.receive_view import ReceiveView
from joinleaf.cli.running import UsageError, failure_text, run_verb, was_refused
from joinleaf.cli.serving import DEFAULT_PORT, local_on
from joinleaf.cli.signals import Stop
from joinleaf.errors import (
    JoinRefusedError,
    JoinTimeoutError,
    SessionBrokenError,
    SessionClosedError,
    SessionOSError,
    SessionTimeoutError,
)
from joinleaf.spi.codes import (
    WSAECONNABORTED,
    WSAECONNRESET,
    WSAEHOSTDOWN,
    WSAEHOSTUNREACH,
    WSAENETDOWN,
    WSAENETUNREACH,
)
from joinleaf.spi.provider import EndReason
from joinleaf.spi.qos import parse_size
from joinleaf.sync import Leaf, join
from joinleaf.transfer import ReceiveProgress, ReceiveResult
from joinleaf.values import SessionAddress

__all__ = ["receive"]

_TRY_EVERY_S: Final = 0.5
_ONE_TRY_S: Final = 10.0  # longest single attempt; a host that is down answers nothing at all
_ROOT_GONE_S: Final = 15.0  # how long a root that vanished in the middle is looked for

# What a host answers, or does not, that is still starting or has lost its network for a moment.
_NOT_YET: Final = frozenset(
    {
        WSAECONNABORTED,
        WSAECONNRESET,
        WSAEHOSTDOWN,
        WSAEHOSTUNREACH,
        WSAENETDOWN,
        WSAENETUNREACH,
    }
)


def receive(
    address: Annotated[
        str,
        typer.Argument(
            envvar="JOINLEAF_ADDRESS", help="Where the sender is, as joinleaf send prints it."
        ),
    ] = f"jl://127.0.0.1:{DEFAULT_PORT}",
    to: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="JOINLEAF_TO",
            metavar="FOLDER",
            help="A folder, or - for standard output.",
        ),
    ] = ".",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", envvar="JOINLEAF_OVERWRITE", help="Replace files that are there."
        ),
    ] = False,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            envvar="JOINLEAF_CLEAN",
            help="First remove what interrupted runs left of earlier objects of this name.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", envvar="JOINLEAF_NAME", help="Keep it under this name instead."),
    ] = None,
    own_name: options.OwnName = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size", envvar="JOINLEAF_MAX_SIZE", metavar="SIZE", help="Take no more, 10GB say."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            envvar="JOINLEAF_TIMEOUT",
            metavar="SECONDS",
            min=0,
            help="Longest wait for the sender to appear and to offer something. Default: no limit.",
        ),
    ] = None,
    data: options.ReceiveCarrier = None,
    cert: options.Cert = None,
    key: options.Key = None,
    ca: options.Ca = None,
    interface: options.Interface = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Receive what joinleaf send sends, and verify it.

    Waits for a sender that has not been started yet. After an interruption, run the same line
    again: only what is missing is fetched. A name never stands for half a file.
    """

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        if to == "-" and json:
            raise UsageError("--json and --to - both want standard output; leave one out")
        where = SessionAddress.parse(address)
        if where.scheme in ("udp", "ssm"):
            raise UsageError(f"{where}: files are received from a root, jl://host:port")
        where = carriage.at_leaf(data, where)
        receiving = _Receiving(
            talk,
            stop,
            where,
            to=to,
            name=name,
            overwrite=overwrite,
            clean=clean,
            own_name=own_name,
            interface=interface,
            certificates=(cert, key, ca),
            max_bytes=None if max_size is None else parse_size(max_size),
            timeout=timeout,
        )
        return receiving.run()

    return run_verb("receive", Common(json, quiet, verbose), body)


class _InterruptedError(Exception):
    """A signal came while receiving; unlike KeyboardInterrupt it makes no report of failure."""


@dataclass(slots=True)
class _Receiving:
    """One run: joins, as often as it takes, until the object is here or cannot be had."""

    talk: Talk
    stop: Stop
    where: SessionAddress
    to: str
    name: str | None
    overwrite: bool
    clean: bool
    own_name: str | None
    interface: str | None
    certificates: tuple[str | None, str | None, str | None]
    max_bytes: int | None
    timeout: float | None
    begun: float = field(default_factory=time.monotonic)
    joined: bool = False  # whether there was a root in this run
    offered: bool = False  # whether anything was offered in this run
    lost_at: float | None = None  # since when the root has been missing, in the middle
    said: str = ""

    def run(self) -> tuple[ExitCode, dict[str, Any]]:
        """Until there is a verdict; gives the exit code and the facts for the summary."""
        try:
            return self._verdict(self._until_received(self._destination()))
        except _InterruptedError:
            kept = "" if self.to == "-" else "; run the same line again to go on"
            self.talk.say(f"interrupted{kept}", "yellow")
            return ExitCode.INTERRUPTED, {"error": "interrupted", "to": self.to}

    def _until_received(self, destination: str | IO[bytes]) -> ReceiveResult:
        while True:
            with self._join() as leaf, ReceiveView(self.talk) as view:
                self.joined = True
                self.talk.event("joined", address=str(self.where), local=str(leaf.local_address))
                self._say(f"joined {self.where}; waiting for it to begin")
                try:
                    return self._receive(leaf, destination, view)
                except (SessionClosedError, SessionBrokenError) as error:
                    self._ended(error)

    def _destination(self) -> str | IO[bytes]:
        if self.to == "-":
            return sys.stdout.buffer
        os.makedirs(self.to, exist_ok=True)  # found out now rather than once it has begun
        try:
            # Really tried: of a place like /proc, or a read-only mount, permissions say nothing.
            with tempfile.TemporaryFile(dir=self.to, prefix=".joinleaf-"):
                pass
        except OSError as error:
            number, why = error.errno or errno.EACCES, error.strerror or "not possible"
            raise OSError(number, f"files cannot be made there: {why}", self.to) from error
        return self.to

    def _receive(
        self, leaf: Leaf, destination: str | IO[bytes], view: ReceiveView
    ) -> ReceiveResult:
        def show(progress: ReceiveProgress) -> None:
            if self.stop.is_set():
                # Leaving is all: a report of failure would be final, and the sender waits a while
                # for those that are gone. What has arrived is kept.
                raise _InterruptedError
            if progress.name:
                self.offered, self.lost_at = True, None
            view.show(progress)

        with self.stop.gently():
            return leaf.receive_file(
                destination,
                name=self.name,
                overwrite=self.overwrite,
                clean=self.clean,
                max_bytes=self.max_bytes,
                timeout=self._left(),
                on_progress=show,
            )

    # Joining

    def _join(self) -> Leaf:
        """A leaf, however long it takes; raises what waiting cannot mend."""
        while True:
            try:
                cert, key, ca = self.certificates
                return join(
                    self.where,
                    cert=cert,
                    key=key,
                    ca=ca,
                    timeout=self._one_try(),
                    name=self.own_name,
                    local=local_on(self.interface, self.where.address),
                    linger=2.0,
                )
            except (
                JoinRefusedError,
                JoinTimeoutError,
                SessionBrokenError,  # a root that just ends resets who connects
                SessionOSError,
            ) as error:
                if not self._may_come(error):
                    raise
                self._wait_for_root(error)

    def _may_come(self, error: Exception) -> bool:
        """Whether waiting may help: nobody listens there yet, or the way is down for the moment."""
        match error:
            case JoinTimeoutError():
                return True
            case JoinRefusedError():
                return not was_refused(error)
            case SessionBrokenError():
                # Broken off in the middle of a handshake: by a root that restarts if there was one
                # to join before, else by something that is none.
                return error.code in _NOT_YET and (self.joined or error.code == WSAECONNRESET)
            case SessionOSError():
                return error.code in _NOT_YET
        return False

    def _one_try(self) -> float:
        left = self._left()
        return _ONE_TRY_S if left is None else max(0.1, min(_ONE_TRY_S, left))

    def _wait_for_root(self, error: Exception) -> None:
        now = time.monotonic()
        if self.lost_at is not None and now - self.lost_at >= _ROOT_GONE_S:
            raise SessionBrokenError(
                f"the sender at {self.where} is gone",
                hint=f"What has arrived is kept in {self.to}; run the same line again",
            ) from error
        left = self._left()
        if left is not None and left <= 0:
            raise SessionTimeoutError(
                f"no sender at {self.where} within {self.timeout:g} s",
                hint="Start joinleaf send there, check the address, or raise --timeout",
            ) from error
        self._say(f"waiting for {self.where}")
        self.talk.event("waiting", address=str(self.where), why=failure_text(error))
        time.sleep(_TRY_EVERY_S if left is None else min(_TRY_EVERY_S, left))

    def _left(self) -> float | None:
        """Seconds left for an offer to come; no limit once one has come."""
        if self.timeout is None or self.offered:
            return None
        return max(0.0, self.begun + self.timeout - time.monotonic())

    def _say(self, text: str) -> None:
        if text != self.said:
            self.said = text
            self.talk.say(text, "dim")

    def _ended(self, error: SessionClosedError | SessionBrokenError) -> None:
        """The session is over before everything is here; return to try again."""
        if error.reason in (EndReason.EXPELLED, EndReason.SLOW):
            raise error
        if self.offered and (self.to == "-" or isinstance(error, SessionClosedError)):
            raise SessionBrokenError(
                f"the sender ended before everything was here ({error.reason})",
                hint="Run the same line again while it sends"
                + ("" if self.to == "-" else f"; what has arrived is kept in {self.to}"),
            ) from error
        self.said = ""
        if self.offered:
            self.lost_at = time.monotonic() if self.lost_at is None else self.lost_at
            self.talk.say(f"lost {self.where} ({error.reason}); joining again", "yellow")
        self.talk.event("lost", address=str(self.where), reason=error.reason)

    # The end

    def _verdict(self, result: ReceiveResult) -> tuple[ExitCode, dict[str, Any]]:
        facts = {**result.as_dict(), "to": self.to}
        if result.ok:
            self.talk.say(self._praise(result), "green")
            return ExitCode.OK, facts
        for failure in result.failures[:10]:
            self.talk.say(f"{units.clean(failure.path)}: {units.clean(failure.reason)}", "red")
        if (more := len(result.failures) - 10) > 0:
            self.talk.say(f"and {more} more", "red")
        self.talk.complain(self._blame(result))
        return ExitCode.FAILURE, facts

    def _praise(self, result: ReceiveResult) -> str:
        name = units.clean(result.name)
        where = "standard output" if self.to == "-" else os.path.join(self.to, name)
        text = f"{where}: {units.size(result.bytes_total)}"
        if result.kind == "folder":
            text += f" in {units.count(result.files, 'file')}"
        text += f", verified by {result.digest_kind}, {units.duration(result.seconds)}"
        if result.bytes_resumed:
            text += f"; {units.size(result.bytes_resumed)} were here already"
        return text + (f"\nsha256 {result.sha256}" if result.sha256 else "")

    def _blame(self, result: ReceiveResult) -> str:
        reason = units.clean(result.reason)
        if not reason and result.failures:
            reason = units.clean(f"{result.failures[0].path}: {result.failures[0].reason}")
        hint = ""
        if any("exists" in one for one in (reason, *(f.reason for f in result.failures))):
            hint = "; --overwrite replaces what is there, --to or --name keeps both"
        return f"{units.clean(result.name) or 'it'} did not arrive whole: {reason}{hint}"

"""A live session at the terminal or in a pipe: what both ``root`` and ``leaf`` do.

Three threads: the verb's own receives and writes messages to standard output, one reads standard
input and sends, one tells events. Messages on standard output are pure data; who said what appears
on a terminal, with ``-v`` or with ``--json``.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from joinleaf.cli import units
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Talk
from joinleaf.cli.running import failure_text
from joinleaf.errors import (
    MessageTooLargeError,
    SessionBrokenError,
    SessionClosedError,
    SessionError,
)
from joinleaf.messages import (
    Event,
    LeafJoined,
    LeafLeft,
    LeafRefused,
    MessagesLost,
    QosChanged,
    SessionEnded,
)
from joinleaf.spi.provider import Batch, EndReason
from joinleaf.sync import Leaf, Root, Session

__all__ = ["Live", "stdin_is_terminal"]

_PIECE: Final = 64 << 10
_LONGEST_LINE: Final = 1 << 20
"""A line without an end is sent in pieces of this size: input that is not text must not pile up."""
_DRAIN_S: Final = 60.0  # at the end of input, how long slow members may take for the rest
_HURRY_S: Final = 0.3  # after Ctrl-C: the leave itself goes at once, unsent data get this long


def stdin_is_terminal() -> bool:
    """Whether somebody types."""
    return sys.stdin is not None and sys.stdin.isatty()


class Live:
    """One session from joining to its end.

    Args:
        talk: Where to say things.
        session: A root or a leaf; closed at the end.
        raw: Chunks as they come instead of lines.
        sends: Whether standard input is sent.
        closes: Whether the end of standard input ends the session.
        ready: Waits until there is somebody to send to; called by the sending thread.
    """

    def __init__(
        self,
        talk: Talk,
        session: Session,
        *,
        raw: bool,
        sends: bool,
        closes: bool,
        receives: bool = True,
        ready: Callable[[], object] | None = None,
    ) -> None:
        self._talk, self._session = talk, session
        self._raw, self._sends, self._closes = raw, sends, closes
        self._receives, self._ready = receives, ready
        self._ended = threading.Event()
        self._ending = ""  # reason, as the event told it
        self._names: dict[str, str] = {}
        if isinstance(session, Leaf) and session.info.control_plane_rooted:
            self._names[str(session.peer_address)] = "root"
        self._received = self._sent = self._bytes_received = self._bytes_sent = 0
        self._shows_sender = talk.talks and (talk.common.verbose > 0 or sys.stdout.isatty())
        self._sanitizes = sys.stdout.isatty() and not raw

    def run(self) -> tuple[ExitCode, dict[str, Any]]:
        """Until the session ends here or there; KeyboardInterrupt leaves it at once."""
        events = threading.Thread(target=self._tell, name="joinleaf-events", daemon=True)
        sender = threading.Thread(target=self._send_stdin, name="joinleaf-stdin", daemon=True)
        events.start()
        if self._sends:
            sender.start()
        try:
            code, reason = self._receive()
            if self._session.closed and self._sends:
                sender.join()  # it is handing over what was sent last
        except (KeyboardInterrupt, BrokenPipeError):
            self._session.close(timeout=_HURRY_S)
            raise
        self._session.close(timeout=_HURRY_S)
        events.join(timeout=1.0)  # so that who left is told before the summary
        return code, self._facts(reason)

    def _facts(self, reason: str) -> dict[str, Any]:
        return {
            "reason": reason,
            "messages_received": self._received,
            "bytes_received": self._bytes_received,
            "messages_sent": self._sent,
            "bytes_sent": self._bytes_sent,
        }

    # Receiving

    def _receive(self) -> tuple[ExitCode, str]:
        if not self._receives:
            self._ended.wait()
            return self._verdict(self._ending)
        while True:
            try:
                batch = self._session.receive_many()
            except SessionClosedError as error:
                return self._verdict(error.reason)
            except SessionBrokenError as error:
                self._talk.complain(failure_text(error))
                return ExitCode.FAILURE, error.reason
            self._take(batch)

    def _verdict(self, reason: str) -> tuple[ExitCode, str]:
        if reason in (EndReason.EXPELLED, EndReason.SLOW):
            self._talk.complain(f"the root turned this member out: {reason}")
            return ExitCode.REFUSED, reason
        lost = reason in (EndReason.LOST, EndReason.TIMED_OUT, EndReason.PROTOCOL_ERROR)
        return ExitCode.FAILURE if lost else ExitCode.OK, reason

    def _take(self, batch: Batch) -> None:
        self._received += len(batch.messages)
        self._bytes_received += sum(map(len, batch.messages))
        if self._talk.common.json:
            self._as_events(batch)
        elif self._shows_sender:
            who = self._name_of(str(batch.sender))
            for message in batch.messages:
                self._talk.say(f"{who}> ", "dim", end="")
                self._write([message])
        else:
            self._write(batch.messages)

    def _write(self, messages: Sequence[bytes]) -> None:
        if self._sanitizes:
            lines = [units.clean(one.decode(errors="replace")).encode() for one in messages]
            self._talk.write(b"".join(line + b"\n" for line in lines))
        elif self._raw:
            self._talk.write(b"".join(messages))
        else:
            self._talk.write(b"".join(message + b"\n" for message in messages))

    def _as_events(self, batch: Batch) -> None:
        sender, sequence = str(batch.sender), batch.sequence
        for number, message in enumerate(batch.messages):
            facts: dict[str, Any] = {
                "sender": sender,
                "name": self._name_of(sender),
                "sequence": sequence + number if sequence >= 0 else None,
            }
            try:
                facts["text"] = message.decode()
            except UnicodeDecodeError:
                facts["base64"] = base64.b64encode(message).decode()
            self._talk.event("message", **facts)

    def _name_of(self, address: str) -> str:
        return units.clean(self._names.get(address, "") or address)

    # Sending

    def _send_stdin(self) -> None:
        if self._ready is not None:
            try:
                self._ready()
            except SessionError:
                return
        rest = b""
        while not self._ended.is_set():
            try:
                data = os.read(0, _PIECE)
            except OSError as error:
                self._talk.complain(f"standard input: {error.strerror}")
                data = b""
            messages, rest = (([data] if data else []), b"") if self._raw else _lines(rest, data)
            if not self._send(messages):
                return
            if not data:
                break
        if self._closes:
            self._session.close(timeout=_DRAIN_S)

    def _send(self, messages: Sequence[bytes]) -> bool:
        """Whether there is any use in sending more."""
        if not messages:
            return True
        if isinstance(self._session, Root) and not self._session.leaves:
            self._talk.say("nobody is here to hear that", "yellow")
            return True
        try:
            self._session.send_many(messages)
        except (SessionClosedError, SessionBrokenError):
            return False
        except (MessageTooLargeError, SessionError) as error:
            self._talk.complain(f"not sent: {failure_text(error)}")
            return True
        self._sent += len(messages)
        self._bytes_sent += sum(map(len, messages))
        return True

    # Events

    def _tell(self) -> None:
        try:
            for event in self._session.events():
                self._tell_one(event)
        except BrokenPipeError:
            pass  # the receiving thread finds out for itself
        finally:
            self._ended.set()

    def _tell_one(self, event: Event) -> None:
        talk = self._talk
        match event:
            case LeafJoined(leaf, view):
                self._names[str(leaf.address)] = leaf.name
                talk.event("joined", name=leaf.name, address=str(leaf.address), view=view)
                talk.say(f"{_who(leaf.name, leaf.address)} joined", "green")
            case LeafLeft(leaf, view, reason):
                self._names.pop(str(leaf.address), None)
                facts = {"name": leaf.name, "address": str(leaf.address), "view": view}
                talk.event("left", **facts, reason=reason)
                talk.say(f"{_who(leaf.name, leaf.address)} left: {reason}", "yellow")
            case LeafRefused(address, name, reason):
                talk.event("refused", name=name, address=str(address), reason=reason)
                talk.say(f"{_who(name, address)} was refused: {units.clean(reason)}", "yellow")
            case MessagesLost(sender, first, count):
                talk.event("lost", sender=str(sender), first=first, count=count)
                lost = units.count(count, "message")
                talk.say(f"{lost} of {self._name_of(str(sender))} missing", "yellow")
            case QosChanged():
                talk.event("qos")
            case SessionEnded(reason):
                self._ending = reason
                talk.event("ended", reason=reason)
                if reason != EndReason.CLOSED:
                    talk.say(f"the session has ended: {reason}", "yellow")
                self._ended.set()


def _lines(rest: bytes, data: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines without their ends, and what is left; at the end of input everything."""
    *lines, rest = (rest + data).split(b"\n")
    if rest and (not data or len(rest) >= _LONGEST_LINE):
        return [*lines, rest], b""
    return lines, rest


def _who(name: str, address: object) -> str:
    return f"{units.clean(name) or 'unnamed'} ({address})"

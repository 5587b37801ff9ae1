"""One object on its way to all leaves: plan and roster, put together; no clock, file or channel.

The driver (``sender.py``) tells it what happened and asks what to send. Inputs are ``join``,
``leave``, ``handle``, ``end_file``, ``fail_file`` and ``tick``; outputs are the plan's pieces and
the ``outbox``: messages for single leaves, in order. Nothing a leaf sends raises out of here: a
leaf that breaks the protocol fails, and nobody else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.manifest import Layout, Manifest, object_digest
from joinleaf.transfer.plan import Plan
from joinleaf.transfer.progress import FileFailure, LeafState
from joinleaf.transfer.roster import Roster, Row

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from joinleaf.transfer.channel import LeafHandle
    from joinleaf.transfer.digests import Digests

__all__ = ["Engine"]

_GROUP: Final = 1 << 20
"""Offers go out in groups of about this many bytes, so that none fills a leaf's queue alone."""
_AGAIN_SLACK: Final = 64 << 20
"""A leaf may ask again for three times the object and this much; more is not honest repair."""


class Engine:
    """See the module's text.

    Args:
        manifest: What is sent.
        object_id: 16 random bytes, new for every run.
        chunk_size: Longest piece in bytes.
        digests: How files are proved; offered to every leaf.

    Attributes:
        plan: Which bytes go to whom next.
        roster: Every leaf.
        ends: By file index, what has been made known; None: not at its end yet.
        outbox: (leaf, messages) still to be sent.
    """

    def __init__(
        self, manifest: Manifest, object_id: bytes, *, chunk_size: int, digests: Digests
    ) -> None:
        self.manifest = manifest
        self.object_id = object_id
        self.plan = Plan(Layout(manifest), chunk_size)
        self.roster = Roster()
        self.ends: list[wire.End | None] = [None] * len(manifest.files)
        self.outbox: deque[tuple[LeafHandle, list[bytes]]] = deque()
        self.failures: dict[int, str] = {}
        self.strange_messages = 0
        self._digest = b""
        self._changed_late: dict[int, wire.End] = {}
        self._offer = _groups(manifest.messages(object_id, digests))

    @property
    def total(self) -> int | None:
        """Bytes of the object; None while a stream goes on."""
        if self.manifest.kind == "stream" and self.ends[0] is None:
            return None
        return self.plan.layout.end

    @property
    def all_ended(self) -> bool:
        """Whether the end of every file has been made known."""
        return self.plan.next_end == len(self.ends) and None not in self.ends[-1:]

    @property
    def digest(self) -> bytes:
        """Object digest; ``b""`` until all files are at their ends."""
        if not self._digest and self.all_ended:
            self._digest = object_digest(self._digests())
        return self._digest

    def join(self, handle: LeafHandle, now_ns: int) -> None:
        """A leaf is in the session: offer it the object."""
        if self.roster.join(handle, now_ns) is not None:
            self.outbox.extend((handle, group) for group in self._offer)

    def leave(self, handle: LeafHandle, reason: str) -> None:
        """A leaf is out of the session; whatever it sent before has been handled."""
        if (row := self.roster.get(handle.key)) is not None:
            row.end(LeafState.GONE, reason or "left")
            self.plan.drop_leaf(handle.key)

    def handle(self, handle: LeafHandle, data: bytes, now_ns: int) -> None:
        """A message from a leaf."""
        row = self.roster.get(handle.key)
        if row is None or row.state.final:
            self.strange_messages += 1
            return
        try:
            message = wire.decode(data)
            if message.object_id != self.object_id:
                # Of a former object of this session, still under way when that one ended.
                self.strange_messages += 1
                return
            before, stands_at = row.heard_ns, (row.received, row.checked)
            row.heard_ns = now_ns
            self._handle(row, message)
            if row.state is LeafState.WAITING and (row.received, row.checked) <= stands_at:
                # It may take its time to look through what it has, but has to get somewhere:
                # signs of life alone would hold up the end for ever.
                row.heard_ns = before
        except RemoteProtocolError as error:
            self.fail(row, f"protocol error: {error}")

    def fail(self, row: Row, reason: str) -> None:
        """Give a leaf up, and tell it."""
        row.end(LeafState.FAILED, reason)
        self.plan.drop_leaf(row.handle.key)
        self._release(row)

    def tick(self, now_ns: int, limit_ns: int) -> None:
        """Give up leaves that are silent, or that have been sent everything and do not move."""
        waiting = not self.all_ended
        for row in self.roster:
            if waiting or self.plan.outstanding(row.handle.key):
                row.moved_ns = now_ns
        for row, reason in self.roster.silent(now_ns, limit_ns):
            self.fail(row, reason)

    def active(self) -> tuple[Hashable, ...]:
        """Keys of the leaves that take part, in order of joining."""
        return tuple(row.handle.key for row in self.roster if row.active)

    def end_file(self, index: int, digest: bytes) -> wire.End:
        """The first pass has read a file whole; gives what all active leaves are to be told."""
        start, end = self.plan.layout.span(index)
        self.ends[index] = told = wire.End(index, end - start, digest)
        return told

    def fail_file(self, index: int, reason: str, to: Iterable[Hashable] = ()) -> wire.End | None:
        """A file cannot be read, or changed. Gives what all active leaves are to be told.

        Args:
            index: The file.
            reason: One sentence.
            to: Leaves for which the piece that failed was meant.

        Returns:
            None if only some leaves are concerned, as the others had it; the outbox tells those.
        """
        reason = wire.clip_reason(reason)
        if self.manifest.kind == "stream" and self.ends[0] is None:
            self.plan.finish_stream(self.plan.read_to)
        short = {*self.plan.drop_file(index), *to}
        start, end = self.plan.layout.span(index)
        told = wire.End(index, end - start, bytes(wire.DIGEST_BYTES), reason)
        self.failures[index] = reason
        if self.ends[index] is None:
            self.ends[index] = told
            return told
        self._changed_late[index] = told
        message = wire.encode(wire.Ends(self.object_id, [told]))
        for row in self.roster:
            if row.active and row.handle.key in short:
                row.lost_files.add(index)
                self.outbox.append((row.handle, [message]))
        return None

    def _handle(self, row: Row, message: wire.Message) -> None:
        match message:
            case wire.Want():
                if self.roster.want(row, message):
                    self._start(row)
            case wire.Status():
                self.roster.status(row, message)
            case wire.Report():
                self._judge(row, message)
            case wire.Missing() if row.active:
                self._send_again(row, message)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is not for a leaf to send now")

    def _start(self, row: Row) -> None:
        for key in self.roster.take_over(row):
            self.plan.drop_leaf(key)
        self.plan.want(row.handle.key, row.have, in_order=row.in_order)
        known = [
            self._changed_late.get(i, end) for i, end in enumerate(self.ends) if end is not None
        ]
        row.lost_files.update(self._changed_late)
        step = wire.MAX_ENDS_PER_MESSAGE
        for first in range(0, len(known), step):
            page = [end for end in known[first : first + step] if end is not None]
            self.outbox.append((row.handle, [wire.encode(wire.Ends(self.object_id, page))]))

    def _send_again(self, row: Row, message: wire.Missing) -> None:
        row.asked_again += sum(end - start for start, end in message.ranges)
        if row.asked_again > 3 * self.plan.layout.end + _AGAIN_SLACK:
            raise RemoteProtocolError("asked for the same bytes again and again")
        self.plan.want_again(row.handle.key, [(s, e) for s, e in message.ranges if s < e])

    def _judge(self, row: Row, report: wire.Report) -> None:
        """The last word of a leaf becomes its verdict; its digest is compared, not its opinion."""
        row.failures = tuple(
            FileFailure(self.manifest.files[failed.index].path, wire.clip_reason(failed.reason))
            for failed in report.failed
            if failed.index < len(self.ends)
        )
        if reason := self._fault(row, report):
            self.fail(row, wire.clip_reason(reason))
            return
        row.received = row.checked = self.plan.layout.end
        row.end(LeafState.VERIFIED)
        self.plan.drop_leaf(row.handle.key)
        self._release(row)

    def _fault(self, row: Row, report: wire.Report) -> str:
        if report.reason:
            return report.reason
        if report.failed_count or report.failed:
            first = (
                f", first {row.failures[0].path}: {row.failures[0].reason}" if row.failures else ""
            )
            return f"{report.failed_count} of {len(self.ends)} files failed{first}"
        if not self.all_ended:
            raise RemoteProtocolError("a report before everything was sent")
        if row.lost_files:
            index = min(row.lost_files)
            return f"{self.manifest.files[index].path}: {self.failures[index]}"
        return "" if report.digest == self.digest else "its digest differs from the root's"

    def _digests(self) -> list[bytes | None]:
        return [None if end is None or end.failure else end.digest for end in self.ends]

    def _release(self, row: Row) -> None:
        verified = row.state is LeafState.VERIFIED
        release = wire.Release(self.object_id, verified, wire.clip_reason(row.reason))
        self.outbox.append((row.handle, [wire.encode(release)]))


def _groups(messages: Iterable[bytes]) -> list[list[bytes]]:
    """Split messages into lists of about a MiB each, in order."""
    groups: list[list[bytes]] = [[]]
    size = 0
    for message in messages:
        if size + len(message) > _GROUP and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(message)
        size += len(message)
    return groups

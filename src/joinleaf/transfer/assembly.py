"""The leaf's side of one object: messages in, files written, messages out; no clock or channel.

    EXPECTING --Offer--> OFFERED --Entries--> RECEIVING --all files settled--> REPORTED --> DONE
                                                  |                               ^
                                                  +-- disk full, limit, cancel ---+

A file is settled when it has its name, has failed here, or has failed at the source. Its digest
is computed as the bytes come, with nothing read back as long as they come in order; what came
otherwise is read back from the disk once, in bounded steps (``work``), so that the leaf goes on
reporting meanwhile.
"""

from __future__ import annotations

import enum
import errno
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.digests import digests_of
from joinleaf.transfer.manifest import Layout, Manifest, ManifestBuilder, object_digest
from joinleaf.transfer.progress import FileFailure, LeafState, RateMeter, ReceiveProgress
from joinleaf.transfer.ranges import RangeSet

if TYPE_CHECKING:
    from joinleaf.transfer.channel import Buffer
    from joinleaf.transfer.digests import Digests, Running
    from joinleaf.transfer.store import Store

__all__ = ["Assembly", "Phase"]

_MAX_HELD_RANGES: Final = 1 << 18
"""As many as the root takes in a Want. Only a root that sends crumbs makes more."""
_CHECKPOINT_BYTES: Final = 64 << 20
_CHECKPOINT_NS: Final = 2_000_000_000
"""What a killed leaf may have to fetch again, at most: the lesser of the two."""
_STATUS_NS: Final = 250_000_000
_HEARTBEAT_NS: Final = 1_000_000_000
_READ_BACK: Final = 1 << 20
_FATAL: Final = frozenset(
    {errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EPIPE, errno.EFBIG}
    | {getattr(errno, "EDQUOT", errno.ENOSPC)}
)
"""Errors that the next file would meet as well: the leaf gives up. Any other fails one file."""


class Phase(enum.Enum):
    """See the module's drawing."""

    EXPECTING = enum.auto()
    OFFERED = enum.auto()
    RECEIVING = enum.auto()
    REPORTED = enum.auto()
    DONE = enum.auto()


class _Digesting:
    """The digest of a file as far as it has been seen in order.

    Attributes:
        to: How far that is.
    """

    __slots__ = ("_digests", "_index", "_running", "_whole", "to")

    def __init__(self, digests: Digests, index: int) -> None:
        self._digests, self._index, self.to = digests, index, 0
        self._running: Running | None = None
        self._whole = b""

    def add(self, data: Buffer, size: int) -> None:
        """The next bytes of a file of ``size``, or of one that may become that long."""
        if len(data) == size:
            self._whole = self._digests.whole(self._index, data)
        else:
            if self._running is None:
                self._running = self._digests.begin(self._index)
            self._running.update(data)
        self.to += len(data)

    def digest(self) -> bytes:
        """Of what was seen. Once."""
        if self._running is not None:
            return self._running.digest()
        return self._whole or self._digests.whole(self._index, b"")


class Assembly:
    """See the module's text.

    Args:
        store: Where to.
        expect: Take only the object with this id; None: the first that is offered.
        max_files: Most entries taken.
        max_bytes: Most bytes taken, or None.

    Attributes:
        phase: Where it is.
        manifest: What was offered, once complete.
        outbox: Messages for the root, in order; the caller takes them out.
        reason: Why it failed as a whole, or ``""``.
        failures: File index to reason, of files that failed here.
        source_failures: The same, of files that failed at the root.
        acknowledged: Whether the root has taken the report.
        received: Payload bytes that came and were of use.
        resumed: Bytes that were here at the beginning.
        verified: How many files have their name.
        digests: By file index, the digests of those.
        digest_kind: What they are; ``""`` before the offer.
        strange_messages: How many messages were ignored.
    """

    def __init__(
        self,
        store: Store,
        *,
        expect: bytes | None = None,
        max_files: int = wire.MAX_ENTRIES,
        max_bytes: int | None = None,
    ) -> None:
        self.phase = Phase.EXPECTING
        self.manifest: Manifest | None = None
        self.object_id = expect
        self.outbox: list[bytes] = []
        self.reason = ""
        self.failures: dict[int, str] = {}
        self.source_failures: dict[int, str] = {}
        self.acknowledged = False
        self.received = self.resumed = self.verified = 0
        self.strange_messages = 0
        self._store, self._max_files, self._max_bytes = store, max_files, max_bytes
        self.digests: list[bytes | None] = []
        self._layout: Layout
        self._builder: ManifestBuilder | None = None
        self._buffer = memoryview(b"")
        self._to_check: deque[int] = deque()
        self._retried: set[int] = set()
        self.digest_kind = ""
        self._digests: Digests
        self._digesting: dict[int, _Digesting] = {}
        self._ends: dict[int, wire.End] = {}
        self._have = RangeSet()
        self._checked = self._reading = 0
        self._since_checkpoint = self._checkpoint_ns = self._status_ns = 0
        self._told = (-1, -1)
        self._meter: RateMeter | None = None

    @property
    def busy(self) -> bool:
        """Whether ``work`` has something to do."""
        return bool(self._to_check) and self.phase is Phase.RECEIVING

    def handle(self, data: bytes, now_ns: int) -> None:
        """A message from the root.

        Raises:
            RemoteProtocolError: It breaks the protocol. Call ``give_up``, then nothing else.
        """
        message = wire.decode(data)
        if isinstance(message, wire.Offer) and self.phase is Phase.EXPECTING:
            self._take_offer(message, now_ns)
        elif message.object_id != self.object_id or self.phase is Phase.EXPECTING:
            self.strange_messages += 1  # of a former or another object: never mixed in
        elif isinstance(message, wire.Chunk):
            self._take_chunk(message, now_ns)
        else:
            self._take_control(message, now_ns)

    def work(self) -> None:
        """Read back and hash a bounded piece of a file that waits to be verified."""
        if not self.busy:
            return
        index = self._to_check[0]
        state = self._state_of(index)
        if state.to < self._ends[index].size and self._read_back(index, state):
            return
        self._reading = 0
        # The reading may have failed the file, or the leaf, and so emptied its place.
        if self._to_check and self._to_check[0] == index:
            self._to_check.popleft()
        if self.phase is Phase.RECEIVING and index not in self.failures:
            self._settle(index, state)

    def tick(self, now_ns: int) -> None:
        """Say how far it is, if that is news or a second has passed; remember it, now and then."""
        if self.phase is not Phase.RECEIVING:
            return
        if self._since_checkpoint and now_ns - self._checkpoint_ns >= _CHECKPOINT_NS:
            self.checkpoint(now_ns)
        told = (self._have.total, self._checked + self._reading)
        age = now_ns - self._status_ns
        if age >= _HEARTBEAT_NS or (age >= _STATUS_NS and told != self._told):
            self._status_ns, self._told = now_ns, told
            assert self.object_id is not None
            self._say(wire.Status(self.object_id, *told, self._verifying))

    def checkpoint(self, now_ns: int) -> None:
        """Have the store remember what is there; if it cannot, that is no reason to stop."""
        self._since_checkpoint, self._checkpoint_ns = 0, now_ns
        with suppress(OSError):
            self._store.checkpoint(self._have)

    def close(self, now_ns: int) -> None:
        """Let go of the store; unless every file is settled, what is there can be resumed."""
        settled = self.phase in (Phase.REPORTED, Phase.DONE) and not self.reason
        if not settled and self.manifest is not None:
            self.checkpoint(now_ns)
        self._store.close(complete=settled)

    def give_up(self, reason: str) -> None:
        """Fail as a whole; what is there stays for another try."""
        if self.phase in (Phase.REPORTED, Phase.DONE):
            return
        self.reason = wire.clip_reason(reason)
        self._report()

    def progress(self, now_ns: int) -> ReceiveProgress:
        """A picture of it."""
        total = None if self.manifest is None else self.size
        rate = self._meter.update(self._have.total, now_ns) if self._meter is not None else 0.0
        left = None if total is None else max(0, total - self._have.total)
        return ReceiveProgress(
            name=self.manifest.name if self.manifest is not None else "",
            state=self.state,
            bytes_done=self._have.total,
            bytes_total=total,
            rate=rate,
            eta=left / rate if left is not None and rate > 0 else None,
        )

    @property
    def state(self) -> LeafState:
        """In the words of the verdict."""
        if self.phase in (Phase.EXPECTING, Phase.OFFERED):
            return LeafState.WAITING
        if self.phase is Phase.RECEIVING:
            return LeafState.VERIFYING if self._verifying else LeafState.RECEIVING
        return LeafState.FAILED if self.reason or self.failures else LeafState.VERIFIED

    @property
    def size(self) -> int | None:
        """Bytes of the object; None while a stream goes on."""
        if self.manifest is None or (self.manifest.kind == "stream" and 0 not in self._ends):
            return None
        return self._layout.end

    def all_failures(self) -> tuple[FileFailure, ...]:
        """At the source and here, in order."""
        files = self.manifest.files if self.manifest is not None else ()
        found = {**self.source_failures, **self.failures}
        return tuple(FileFailure(files[i].path, found[i]) for i in sorted(found))

    # From the root.

    def _take_offer(self, offer: wire.Offer, now_ns: int) -> None:
        if self.object_id not in (None, offer.object_id):
            self.strange_messages += 1
            return
        self.object_id, self.phase = offer.object_id, Phase.OFFERED
        self._meter = RateMeter(0, now_ns)
        try:
            self._builder = ManifestBuilder(
                offer, max_files=self._max_files, max_bytes=self._max_bytes
            )
            self._digests = digests_of(offer.digest, offer.key)
            self.digest_kind = self._digests.kind
        except ValueError as error:
            self.give_up(str(error))

    def _take_control(self, message: wire.Control, now_ns: int) -> None:
        match message:
            case wire.Entries() if self.phase is Phase.OFFERED and self._builder is not None:
                self._take_entries(message, now_ns)
            case wire.Ends() if self.phase is Phase.RECEIVING:
                for end in message.ends:
                    self._take_end(end)
                self._report_if_settled()
            case wire.Release():
                self._take_release(message)
            case wire.Abort():
                self.reason = self.reason or message.reason or "cancelled at the root"
                self.phase = Phase.DONE
            case wire.Offer() | wire.Entries() | wire.Ends():
                self.strange_messages += 1  # late, and of no consequence
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is not for a root to send")

    def _take_entries(self, page: wire.Entries, now_ns: int) -> None:
        assert self._builder is not None
        try:
            if (manifest := self._builder.add(page)) is not None:
                self._begin(manifest, now_ns)
        except ValueError as error:
            self.give_up(str(error))
        except OSError as error:
            self.give_up(f"cannot be kept here: {_said(error)}")

    def _begin(self, manifest: Manifest, now_ns: int) -> None:
        assert self.object_id is not None
        self.manifest, self._layout = manifest, Layout(manifest)
        self.digests = [None] * len(manifest.files)
        self._have, failed = self._store.begin(manifest, self.object_id)
        self.resumed = self._have.total
        self._meter = RateMeter(self.resumed, now_ns)
        self._checkpoint_ns = now_ns
        self.phase = Phase.RECEIVING
        for index, reason in failed.items():
            self._fail(index, reason)
        self._say_want()
        self._report_if_settled()

    def _say_want(self) -> None:
        assert self.object_id is not None
        ranges, step = list(self._have), wire.MAX_RANGES_PER_MESSAGE
        for first in range(0, max(1, len(ranges)), step):
            page = ranges[first : first + step]
            last = first + step >= len(ranges)
            in_order = self._store.in_order
            self._say(wire.Want(self.object_id, self._store.place, in_order, page, last))

    def _take_chunk(self, chunk: wire.Chunk, now_ns: int) -> None:
        if self.phase is not Phase.RECEIVING:
            self.strange_messages += 1
            return
        index, size = chunk.index, len(chunk.payload)
        if index >= len(self.digests):
            raise RemoteProtocolError(f"a chunk of file {index}, which was not offered")
        first, behind = self._layout.span(index)
        start, end = first + chunk.offset, first + chunk.offset + size
        if end > behind:
            raise RemoteProtocolError(f"a chunk of file {index} behind its end")
        if self._have.contains(start, end):
            return  # has it, or has no use for it
        if self._max_bytes is not None and end > self._max_bytes:
            self.give_up(f"the stream exceeds the limit of {self._max_bytes} bytes set here")
        elif self._keep(chunk):
            self._have.add(start, end)
            self.received += size
            self._count(size, now_ns)
            self._check_if_whole(index)
            if len(self._have) > _MAX_HELD_RANGES:
                raise RemoteProtocolError("the object arrives in too many small pieces")

    def _keep(self, chunk: wire.Chunk) -> bool:
        """Write and hash; False if the file or the leaf has failed over it."""
        state = self._state_of(chunk.index)
        if self._store.in_order and state.to != chunk.offset:
            raise RemoteProtocolError("bytes out of order for a destination that needs order")
        try:
            self._store.write(chunk.index, chunk.offset, chunk.payload)
        except OSError as error:
            self._fail_on(chunk.index, error)
            return False
        if state.to == chunk.offset:
            start, end = self._layout.span(chunk.index)
            state.add(chunk.payload, end - start)
        return True

    def _state_of(self, index: int) -> _Digesting:
        if (state := self._digesting.get(index)) is None:
            state = self._digesting[index] = _Digesting(self._digests, index)
        return state

    def _take_end(self, end: wire.End) -> None:
        index = end.index
        if index >= len(self.digests):
            raise RemoteProtocolError(f"the end of file {index}, which was not offered")
        if index in self.failures or index in self.source_failures:
            return
        if end.failure:
            self._lose(end)
            return
        if index in self._ends:
            return
        if len(end.digest) != self._digests.size:
            raise RemoteProtocolError(f"no {self.digest_kind} has {len(end.digest)} bytes")
        self._note_size(end)
        self._ends[index] = end
        self._check_if_whole(index)

    def _note_size(self, end: wire.End) -> None:
        start, behind = self._layout.span(end.index)
        assert self.manifest is not None
        if self.manifest.kind != "stream":
            if end.size != behind - start:
                raise RemoteProtocolError(f"file {end.index} ends elsewhere than was offered")
        elif (self._have.last or 0) > end.size:
            raise RemoteProtocolError("the stream ends before its last byte")
        else:
            self._layout.finish_stream(end.size)

    def _lose(self, end: wire.End) -> None:
        """The root cannot give this file; here nothing of it is kept."""
        index = end.index
        if self.digests[index] is not None:
            return  # the root had it whole when it came here
        assert self.manifest is not None
        if self.manifest.kind == "stream":
            self._ends[index] = end
            self._layout.finish_stream(end.size)
        self.source_failures[index] = end.failure
        self._forget(index)

    def _take_release(self, message: wire.Release) -> None:
        if self.phase is not Phase.REPORTED and message.verified:
            raise RemoteProtocolError("released before the report")
        self.acknowledged = True
        if not message.verified and not self.reason and not self.failures:
            self.reason = message.reason or "the root did not accept the report"
        self.phase = Phase.DONE

    # Verifying.

    def _check_if_whole(self, index: int) -> None:
        if index not in self._ends or self._ends[index].failure:
            return
        if not self._have.contains(*self._layout.span(index)):
            return
        state = self._digesting.get(index)
        if state is not None and state.to == self._ends[index].size and index not in self._to_check:
            self._settle(index, state)  # came in order: nothing to read back
        elif index not in self._to_check:
            self._to_check.append(index)

    def _read_back(self, index: int, state: _Digesting) -> bool:
        """Hash the next piece from the disk; False if there is nothing more to be had."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(_READ_BACK))
        view = self._buffer[: min(_READ_BACK, self._ends[index].size - state.to)]
        try:
            count = self._store.read_into(index, state.to, view)
        except OSError as error:
            self._fail_on(index, error)
            return False
        state.add(view[:count], self._ends[index].size)
        self._reading = state.to
        return count > 0 and state.to < self._ends[index].size

    def _settle(self, index: int, state: _Digesting) -> None:
        """The whole file has been seen: name it, fetch it once more, or fail it."""
        end = self._ends[index]
        digest = state.digest()
        if state.to != end.size or digest != end.digest:
            self._fetch_again(index)
        else:
            try:
                self._store.finish(index)
            except OSError as error:
                self._fail_on(index, error)
                return
            del self._digesting[index]
            self.digests[index] = digest
            self.verified += 1
            self._checked += end.size
        self._report_if_settled()

    def _fetch_again(self, index: int) -> None:
        """The digest differs: partial files may have been damaged between two runs. Once."""
        start, end = self._layout.span(index)
        try:
            again = self._store.discard(index)
        except OSError as error:
            self._fail_on(index, error)
            return
        if not again and not self._store.in_order:
            self._fail(index, "exists already with other content; overwriting was not allowed")
        elif not again or index in self._retried or start == end:
            self._fail(index, "its digest differs from the root's")
        else:
            self._retried.add(index)
            self._digesting.pop(index, None)
            self._have.remove(start, end)
            assert self.object_id is not None
            self._say(wire.Missing(self.object_id, [(start, end)]))

    # Failing and reporting.

    def _fail_on(self, index: int, error: OSError) -> None:
        if error.errno in _FATAL or self._store.in_order:
            self.give_up(_said(error))
        else:
            self._fail(index, _said(error))
            self._report_if_settled()

    def _fail(self, index: int, reason: str) -> None:
        self.failures[index] = wire.clip_reason(reason)
        self._forget(index)

    def _forget(self, index: int) -> None:
        """Nothing more of this file is of use: drop what is here, and count it as had."""
        self._digesting.pop(index, None)
        if index in self._to_check:
            self._to_check.remove(index)
        with suppress(OSError):
            self._store.discard(index)
        start, end = self._layout.span(index)
        self._have.add(start, end)

    def _report_if_settled(self) -> None:
        settled = self.verified + len(self.failures) + len(self.source_failures)
        if self.phase is Phase.RECEIVING and settled == len(self.digests):
            self._report()

    def _report(self) -> None:
        self.phase = Phase.REPORTED
        failed = [wire.FailedFile(i, reason) for i, reason in sorted(self.failures.items())]
        digest = bytes(wire.DIGEST_BYTES) if self.reason else object_digest(self.digests)
        if self.object_id is not None:
            shown = failed[: wire.MAX_FAILED_PER_REPORT]
            self._say(wire.Report(self.object_id, digest, self.reason, len(failed), shown))

    @property
    def _verifying(self) -> bool:
        return bool(self._to_check) or self._have.total == self._layout.end

    def _count(self, size: int, now_ns: int) -> None:
        self._since_checkpoint += size
        if self._since_checkpoint >= _CHECKPOINT_BYTES:
            self.checkpoint(now_ns)

    def _say(self, message: wire.Control) -> None:
        self.outbox.append(wire.encode(message))


def _said(error: OSError) -> str:
    """What the system says, without the path: that is the leaf's own affair."""
    return error.strerror or str(error) or type(error).__name__

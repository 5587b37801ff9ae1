"""The root's side: ``send_object`` drives the engine over a channel, a source and the time.

One thread does everything: it reads a piece of the source straight behind its header in one
preallocated buffer, hashes it there, and gives the carrier a view of it; the buffer is used again
once the send has returned. Between sends it looks at what the leaves say. Waiting, for a rate, for
leaves or for reports, is always waiting *on the channel*, so that nothing sleeps past a message.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, Protocol

from joinleaf.errors import SessionError, SessionTimeoutError
from joinleaf.transfer import wire
from joinleaf.transfer.digests import DEFAULT_DIGEST, new_digests
from joinleaf.transfer.engine import Engine
from joinleaf.transfer.progress import (
    FileFailure,
    LeafState,
    RateMeter,
    SendProgress,
    TransferResult,
)
from joinleaf.transfer.source import Source, SourceFileError, open_source
from joinleaf.values import IDENTITY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from joinleaf.transfer.channel import Buffer, LeafHandle, RootChannel
    from joinleaf.transfer.digests import DigestKind, Digests, Running
    from joinleaf.transfer.plan import Piece

__all__ = ["DEFAULT_CHUNK", "Flag", "Pacer", "send_object"]

DEFAULT_CHUNK: Final = 512 << 10
"""Payload of one chunk: long enough that Python's part is small, short enough for its caches."""
_BATCH: Final = 1024  # most chunks sent in one call: small files come by the thousand
_PROGRESS_NS: Final = 100_000_000  # at most ten pictures a second
_LOOK_S: Final = 0.1  # longest wait before cancel, start_now and the stream are looked at again
_ROOM_S: Final = 0.02  # before a leaf that had no room is tried again; rare
_BLOCKED_S: Final = 0.2  # longest wait for room before the leaves are listened to again
_LAST_WORDS_NS: Final = 2_000_000_000  # for releases at the end: a leaf can do without


class Flag(Protocol):
    """What ``threading.Event`` is, as far as it is needed here."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...


class Pacer(Protocol):
    """What holds the sending to a rate: ``core.qos.token_bucket.TokenBucket``."""

    def delay_ns(self, size: int, now_ns: int) -> int:
        """Nanoseconds until ``size`` bytes may go."""
        ...

    def consume(self, size: int, now_ns: int) -> None:
        """They go now."""
        ...


def send_object(
    channel: RootChannel,
    source: Source | str | os.PathLike[str] | IO[bytes],
    *,
    object_id: bytes | None = None,
    leaves: int = 1,
    max_wait: float | None = None,
    start_now: Flag | None = None,
    rate: float | None = None,
    pacer: Pacer | None = None,
    digest: DigestKind = DEFAULT_DIGEST,
    stall_timeout: float = 30.0,
    linger: float = 0.0,
    chunk_size: int = DEFAULT_CHUNK,
    cancel: Flag | None = None,
    on_progress: Callable[[SendProgress], None] | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> TransferResult:
    """Send one object to every leaf of a session, and find out for each whether it has it.

    Waits until ``leaves`` leaves have answered the offer, ``max_wait`` is over or ``start_now`` is
    set; then sends. Leaves may join as long as it runs: they take what comes by and get what they
    missed. Leaves that come back after a restart get what they lack. It ends when every leaf is
    verified, failed or gone.

    Args:
        channel: The session. Nobody else may receive from it meanwhile.
        source: A path, a binary stream (a pipe), or a ``Source``. One made here is closed here.
        object_id: 16 bytes that no other run uses; None draws them. Give the same again only for
            the very same object, so that leaves resume after a restart of the root.
        leaves: How many leaves to wait for, at least 1.
        max_wait: Longest wait for them in seconds; None: as long as it takes. Whoever is missing
            then is counted as ``absent``.
        start_now: Ends the waiting when set, and waives the number.
        rate: Payload bytes per second, each message counted once; None: as fast as it goes.
        pacer: Instead of ``rate``.
        digest: How files are proved: ``"gmac"``, or ``"sha256"`` to compare with one from
            elsewhere; see ``transfer.digests`` for what each proves.
        stall_timeout: Seconds of silence, or without progress once everything is sent, after which
            a leaf has failed.
        linger: Seconds to wait for leaves that are gone, or never came, once all others are done.
        chunk_size: Payload bytes of a chunk, 1 KiB to ``wire.MAX_CHUNK``; smaller at low rates.
        cancel: Cuts it short when set: leaves keep their partial files, the result says so.
        on_progress: Called in this thread, at most ten times a second and once at the end.
        clock: Nanoseconds, never running backwards.

    Returns:
        The verdict. Failing leaves and files are part of it, not errors.

    Raises:
        ValueError: An argument is out of range.
        OSError: The source cannot be opened.
        SessionClosedError, SessionBrokenError: The session ended. Leaves keep partial files.
        KeyboardInterrupt: After leaves have been told, as with ``cancel``.
    """
    object_id = os.urandom(IDENTITY_BYTES) if object_id is None else object_id
    for ok, text in (
        (len(object_id) == IDENTITY_BYTES, f"object_id must be {IDENTITY_BYTES} bytes"),
        (leaves >= 1, "leaves must be at least 1"),
        (max_wait is None or max_wait >= 0, "max_wait must not be negative"),
        (rate is None or rate > 0, "rate must be above 0 bytes per second"),
        (stall_timeout > 0, "stall_timeout must be above 0 seconds"),
        (linger >= 0, "linger must not be negative"),
        (1024 <= chunk_size <= wire.MAX_CHUNK, f"chunk_size must be 1024 to {wire.MAX_CHUNK}"),
    ):
        if not ok:
            raise ValueError(text)
    if rate is not None:
        # Pieces of a fiftieth of a second keep a low rate smooth.
        chunk_size = min(chunk_size, max(1024, int(rate / 50)))
        pacer = pacer or _bucket(rate, chunk_size)
    digests = new_digests(digest)
    opened = open_source(source)
    try:
        sending = _Sending(channel, opened, object_id, chunk_size, pacer, digests, clock)
        sending.stall_ns, sending.linger_ns = int(stall_timeout * 1e9), int(linger * 1e9)
        sending.cancel, sending.on_progress = cancel, on_progress
        return sending.run(leaves, max_wait, start_now)
    finally:
        if opened is not source:
            opened.close()


class _CancelledError(Exception):
    """The cancel flag was found set."""


class _Sending:
    """One run of ``send_object``."""

    def __init__(
        self,
        channel: RootChannel,
        source: Source,
        object_id: bytes,
        chunk_size: int,
        pacer: Pacer | None,
        digests: Digests,
        clock: Callable[[], int],
    ) -> None:
        self.stall_ns = self.linger_ns = 0
        self.cancel: Flag | None = None
        self.on_progress: Callable[[SendProgress], None] | None = None
        self._channel, self._source, self._pacer, self._clock = channel, source, pacer, clock
        self._digests = digests
        self._engine = Engine(source.manifest, object_id, chunk_size=chunk_size, digests=digests)
        self._buffer = bytearray(2 * (chunk_size + wire.CHUNK_HEADER.size))
        self._view = memoryview(self._buffer)
        self._used = 0
        self._chunks: list[Buffer] = []  # views into the buffer, waiting to be sent
        self._to: tuple[Hashable, ...] = ()
        self._ends: list[wire.End] = []
        self._running: Running | None = None  # digest of the file that the first pass is in
        self._whole = b""  # or its digest, where it came in one piece
        self._sent = 0
        self._phase = "waiting"
        self._expected = 0
        self._all_final_ns: int | None = None
        self._shown_ns = 0
        self._meter = RateMeter(0, clock())

    def run(self, leaves: int, max_wait: float | None, start_now: Flag | None) -> TransferResult:
        """All of it; see ``send_object``."""
        cancelled = False
        started = self._clock()
        self._expected = leaves
        try:
            for handle in self._channel.leaves:
                self._engine.join(handle, started)
            self._wait_for_leaves(max_wait, start_now)
            started = self._clock()
            self._phase = "sending"
            for row in self._engine.roster:
                row.heard_ns = max(row.heard_ns, started) if not row.place else row.heard_ns
            while len(self._engine.roster) and not self._finished():
                self._step()
            self._say_last_words()
        except _CancelledError:
            cancelled = True
            self._abort("cancelled at the root")
        except SessionError:
            raise  # there is nobody left to be told
        except BaseException:
            self._abort("interrupted at the root")
            raise
        self._show(last=True)
        return self._result(cancelled, (self._clock() - started) / 1e9)

    def _wait_for_leaves(self, max_wait: float | None, start_now: Flag | None) -> None:
        deadline = None if max_wait is None else self._clock() + int(max_wait * 1e9)
        while self._engine.roster.ready < self._expected:
            if start_now is not None and start_now.is_set():
                self._expected = max(1, self._engine.roster.ready)
                return
            left = _LOOK_S
            if deadline is not None:
                left = min(left, (deadline - self._clock()) / 1e9)
            if left <= 0:
                return
            self._post()
            self._listen(left, waiting=True)

    def _finished(self) -> bool:
        """Whether nobody is left to be waited for, and nobody is expected back."""
        roster = self._engine.roster
        if not roster.all_final:
            self._all_final_ns, self._phase = None, "sending"
            return False
        missed = any(row.state is LeafState.GONE for row in roster) or len(roster) < self._expected
        now = self._clock()
        if self._all_final_ns is None:
            self._all_final_ns = now
        self._phase = "lingering"
        return not missed or now - self._all_final_ns >= self.linger_ns

    def _step(self) -> None:
        """Send one piece, or wait for something that makes the next one possible."""
        engine = self._engine
        self._post()
        available = self._look_at_source()
        if (index := engine.plan.poll_end(available)) is not None:
            self._end_file(index)
        elif self._phase == "sending" and (piece := engine.plan.poll_piece(available)) is not None:
            self._take(piece)
        elif self._chunks or self._ends:
            self._flush()
        elif self._phase == "sending" and engine.manifest.kind == "stream" and not engine.all_ended:
            self._source.wait(available, _LOOK_S / 2)
            self._listen(0)
        else:
            self._listen(_ROOM_S if engine.outbox else _LOOK_S)

    def _look_at_source(self) -> int:
        """Positions below this one can be read; a stream that has ended gets its length."""
        engine = self._engine
        if engine.manifest.kind != "stream" or engine.ends[0] is not None:
            return engine.plan.layout.end
        size, ended = self._source.available(0)
        if ended and engine.plan.layout.end != size:
            engine.plan.finish_stream(size)
        return size

    def _take(self, piece: Piece) -> None:
        """Read a piece; hash it on its first way; lay it ready behind what is ready already."""
        self._make_room(piece)
        at = self._used
        payload = at + wire.CHUNK_HEADER.size
        view = self._view[payload : payload + piece.size]
        try:
            self._source.read_into(piece.index, piece.offset, view)
            if not piece.first_pass:
                self._check_again(piece)
        except SourceFileError as error:
            self._fail_file(piece.index, str(error), piece.to)
            return
        if piece.first_pass:
            self._digest(piece, view)
        if piece.to:
            wire.put_chunk_header(
                self._buffer, at, self._engine.object_id, piece.index, piece.offset
            )
            self._used = payload + piece.size
            self._chunks.append(self._view[at : self._used])
            self._to = piece.to

    def _digest(self, piece: Piece, view: memoryview) -> None:
        start, end = self._engine.plan.layout.span(piece.index)
        if piece.size == end - start:
            self._whole = self._digests.whole(piece.index, view)
            return
        if piece.offset == 0:
            self._running = self._digests.begin(piece.index)
        assert self._running is not None  # the first pass goes along each file from its beginning
        self._running.update(view)

    def _take_digest(self, index: int) -> bytes:
        whole, running = self._whole, self._running
        self._whole, self._running = b"", None
        if running is not None:
            return running.digest()
        return whole or self._digests.whole(index, b"")

    def _make_room(self, piece: Piece) -> None:
        needed = self._used + wire.CHUNK_HEADER.size + piece.size
        full = needed > len(self._buffer) or len(self._chunks) >= _BATCH
        if full or (self._chunks and (piece.to != self._to or self._pacer is not None)):
            self._flush()
        elif not self._chunks and not piece.to:
            self._listen(0)  # hashing what nobody wants can take long

    def _check_again(self, piece: Piece) -> None:
        start, end = self._engine.plan.layout.span(piece.index)
        if piece.offset + piece.size == end - start:
            self._source.check(piece.index)

    def _end_file(self, index: int) -> None:
        digest = self._take_digest(index)
        if self._engine.ends[index] is not None:
            return  # it failed on the way
        try:
            self._source.check(index)
        except SourceFileError as error:
            self._fail_file(index, str(error))
            return
        self._ends.append(self._engine.end_file(index, digest))
        if len(self._ends) >= wire.MAX_ENDS_PER_MESSAGE:
            self._flush()

    def _fail_file(self, index: int, reason: str, to: Sequence[Hashable] = ()) -> None:
        if (told := self._engine.fail_file(index, reason, to)) is not None:
            self._ends.append(told)

    def _flush(self) -> None:
        """Send the chunks that are ready, then the ends; together where they go to the same."""
        chunks, to = self._chunks, self._to
        size = self._used - len(chunks) * wire.CHUNK_HEADER.size
        everyone = self._engine.active()
        messages: list[Buffer] = list(chunks)
        ends, self._ends = self._ends, []
        if ends:
            told = wire.encode(wire.Ends(self._engine.object_id, ends))
            if to != everyone and chunks:
                self._send(messages, to, size)
                messages, size = [], 0
            messages.append(told)
            to = everyone
        self._send(messages, to, size)
        self._chunks, self._to, self._used = [], (), 0

    def _send(self, messages: list[Buffer], to: Sequence[Hashable], size: int) -> None:
        """One batch, within the rate, to whoever of these is still there when there is room."""
        if not messages:
            return
        self._pace(size)
        while handles := [
            row.handle for k in to if (row := self._engine.roster.get(k)) is not None and row.active
        ]:
            try:
                self._channel.send_many(messages, timeout=_BLOCKED_S, to=self._whom(handles))
            except SessionTimeoutError:
                self._listen(0)
                continue
            self._sent += size
            now = self._clock()
            for handle in handles:
                if (row := self._engine.roster.get(handle.key)) is not None:
                    row.sent += size
                    row.moved_ns = now
            break
        self._listen(0)

    def _whom(self, handles: list[LeafHandle]) -> list[LeafHandle] | None:
        """None, which lets a multicast carrier send once, if these are all there are."""
        keys = {handle.key for handle in handles}
        return None if all(leaf.key in keys for leaf in self._channel.leaves) else handles

    def _pace(self, size: int) -> None:
        if self._pacer is None or not size:
            return
        while (delay := self._pacer.delay_ns(size, self._clock())) > 0:
            self._listen(min(delay / 1e9, _LOOK_S))
        self._pacer.consume(size, self._clock())

    def _post(self) -> None:
        """Send what the outbox has for single leaves; what finds no room stays for later."""
        outbox, full = self._engine.outbox, set()
        for _ in range(len(outbox)):  # once around, so that each leaf's messages keep their order
            handle, messages = outbox.popleft()
            row = self._engine.roster.get(handle.key)
            if row is None or row.state is LeafState.GONE:
                continue
            if handle.key not in full:
                try:
                    self._channel.send_many(messages, timeout=0, to=[handle])
                    continue
                except SessionTimeoutError:
                    full.add(handle.key)
            outbox.append((handle, messages))

    def _listen(self, timeout: float, *, waiting: bool = False) -> None:
        """Take in what leaves say and who came or went; wait up to ``timeout`` for the first."""
        if self.cancel is not None and self.cancel.is_set():
            raise _CancelledError
        changes = list(self._channel.membership_events())
        self._receive(0 if changes else timeout)
        now = self._clock()
        for change in changes:  # after the messages: a leaf's last word came before it left
            if change.joined:
                self._engine.join(change.leaf, now)
            else:
                self._engine.leave(change.leaf, change.reason)
        if not waiting:
            self._engine.tick(now, self.stall_ns)
        self._show()

    def _receive(self, timeout: float) -> None:
        by_address = None
        for _ in range(1000):  # bounded, so that chattering leaves cannot stop the sending
            try:
                batch = self._channel.receive_many(timeout=timeout)
            except SessionTimeoutError:
                return
            timeout = 0
            if by_address is None:
                by_address = {row.handle.address: row.handle for row in self._engine.roster}
            if (handle := by_address.get(batch.sender)) is None:
                self._meet()
                by_address = {row.handle.address: row.handle for row in self._engine.roster}
                handle = by_address.get(batch.sender)
            now = self._clock()
            for message in batch.messages:
                if handle is not None:
                    self._engine.handle(handle, message, now)

    def _meet(self) -> None:
        """A message overtook the news of its sender's joining."""
        for handle in self._channel.leaves:
            self._engine.join(handle, self._clock())

    def _say_last_words(self) -> None:
        """Releases still to be sent; a leaf that takes none in time does without."""
        deadline = self._clock() + _LAST_WORDS_NS
        self._post()
        while self._engine.outbox and self._clock() < deadline:
            self._receive(_BLOCKED_S)
            self._post()

    def _abort(self, reason: str) -> None:
        message = wire.encode(wire.Abort(self._engine.object_id, reason))
        handles = [row.handle for row in self._engine.roster if not row.state.final]
        if handles:
            with suppress(SessionError):
                self._channel.send_many([message], timeout=_BLOCKED_S, to=self._whom(handles))

    def _show(self, *, last: bool = False) -> None:
        now = self._clock()
        if self.on_progress is None or (not last and now - self._shown_ns < _PROGRESS_NS):
            return
        self._shown_ns = now
        engine = self._engine
        self.on_progress(
            SendProgress(
                object_id=engine.object_id,
                name=engine.manifest.name,
                phase=self._phase,
                bytes_read=engine.plan.read_to,
                bytes_total=engine.total,
                rate=self._meter.update(self._sent, now),
                expected=self._expected,
                leaves=tuple(row.progress(engine.total, now) for row in engine.roster),
            )
        )

    def _result(self, cancelled: bool, seconds: float) -> TransferResult:
        engine, now = self._engine, self._clock()
        files = engine.manifest.files
        single = engine.manifest.kind != "folder" and self._digests.kind == "sha256"
        only = engine.ends[0] if single else None
        return TransferResult(
            object_id=engine.object_id,
            name=engine.manifest.name,
            kind=engine.manifest.kind,
            size=engine.total or 0,
            digest=engine.digest,
            digest_kind=self._digests.kind,
            sha256=only.digest.hex() if only is not None and not only.failure else "",
            leaves=tuple(row.progress(engine.total, now) for row in engine.roster),
            failures=tuple(
                FileFailure(files[i].path, reason) for i, reason in sorted(engine.failures.items())
            ),
            notices=self._source.notices,
            absent=max(0, self._expected - len(engine.roster)),
            cancelled=cancelled,
            bytes_sent=self._sent,
            seconds=seconds,
        )


def _bucket(rate: float, chunk_size: int) -> Pacer:
    from joinleaf.core.qos.token_bucket import TokenBucket  # only those who set a rate need it

    return TokenBucket(max(1, int(rate)), 2 * (chunk_size + wire.CHUNK_HEADER.size))

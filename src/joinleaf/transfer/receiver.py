"""The leaf's side: ``receive_object`` drives an assembly over a channel, a store and the time."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from joinleaf.errors import (
    RemoteProtocolError,
    SessionBrokenError,
    SessionClosedError,
    SessionError,
    SessionTimeoutError,
)
from joinleaf.transfer import wire
from joinleaf.transfer.assembly import Assembly, Phase
from joinleaf.transfer.progress import LeafState, ReceiveProgress, ReceiveResult
from joinleaf.transfer.store import FolderStore, Store, StreamStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from joinleaf.transfer.channel import LeafChannel
    from joinleaf.transfer.sender import Flag

__all__ = ["receive_object"]

_LOOK_S: Final = 0.25  # longest wait before status, cancel and deadlines are looked at again
_ROOM_S: Final = 1.0  # longest wait for room to say something; it is said later then
_PROGRESS_NS: Final = 100_000_000


def receive_object(
    channel: LeafChannel,
    destination: str | os.PathLike[str] | IO[bytes] | Store,
    *,
    name: str | None = None,
    overwrite: bool = False,
    durable: bool = False,
    clean: bool = False,
    object_id: bytes | None = None,
    max_files: int = wire.MAX_ENTRIES,
    max_bytes: int | None = None,
    timeout: float | None = None,
    release_timeout: float = 10.0,
    cancel: Flag | None = None,
    on_progress: Callable[[ReceiveProgress], None] | None = None,
    backlog: Sequence[bytes] = (),
    clock: Callable[[], int] = time.monotonic_ns,
) -> ReceiveResult:
    """Take one object from the root into a folder or a stream, verified digest for digest.

    In a folder each file appears under its name only when it is whole and right. Whatever ends it
    early, a cancel, Ctrl-C, a broken session or a killed program, leaves partial files and a
    journal behind, and the next call for the same object asks only for what is missing.

    Args:
        channel: The session. Nobody else may receive from it meanwhile.
        destination: A folder (made if missing), a binary stream such as ``sys.stdout.buffer``
            (one file or stream only; neither resumed nor retried), or a ``Store``.
        name: Instead of the object's own name.
        overwrite: Whether files that exist are replaced. One that exists with the right content
            counts as received either way.
        durable: Whether each file is forced to the disk before it gets its name.
        clean: Whether partial files of other objects of the same name are removed.
        object_id: Take only this object; None: the first that is offered.
        max_files: Most files and folders taken.
        max_bytes: Most bytes taken; None: any number.
        timeout: Longest wait for an offer, in seconds; None: as long as it takes.
        release_timeout: Longest wait, once all is done, for the root to confirm it.
        cancel: Cuts it short when set; the root is told.
        on_progress: Called in this thread, at most ten times a second and once at the end.
        backlog: Messages received before: ``leftover`` of the call before.
        clock: Nanoseconds, never running backwards.

    Returns:
        How it ended here; ``ok`` says whether everything is here. Disk full, files in the way,
        limits and a cancelling root are part of it, not errors.

    Raises:
        SessionTimeoutError: No offer within ``timeout``.
        SessionClosedError, SessionBrokenError: The session ended before all was received.
        RemoteProtocolError: The root broke the protocol, or offered a path that leads out of
            ``destination``. Nothing has been written outside it.
        OSError: ``destination`` cannot be made.
    """
    if isinstance(destination, str | os.PathLike):
        store: Store = FolderStore(
            destination, name=name, overwrite=overwrite, durable=durable, clean=clean
        )
    elif isinstance(destination, Store):
        store = destination
    else:
        store = StreamStore(destination)
    assembly = Assembly(store, expect=object_id, max_files=max_files, max_bytes=max_bytes)
    receiving = _Receiving(channel, assembly, cancel, on_progress, clock)
    try:
        receiving.run(backlog, timeout, release_timeout)
    except RemoteProtocolError as error:
        assembly.give_up(f"protocol error: {error}")
        receiving.say_last_words()
        raise
    except KeyboardInterrupt:
        assembly.give_up("interrupted at the leaf")
        receiving.say_last_words()
        raise
    finally:
        assembly.close(clock())
    return receiving.result(name)


class _Receiving:
    """One run of ``receive_object``."""

    def __init__(
        self,
        channel: LeafChannel,
        assembly: Assembly,
        cancel: Flag | None,
        on_progress: Callable[[ReceiveProgress], None] | None,
        clock: Callable[[], int],
    ) -> None:
        self._channel, self._assembly = channel, assembly
        self._cancel, self._on_progress, self._clock = cancel, on_progress, clock
        self._leftover: tuple[bytes, ...] = ()
        self._begun_ns = self._shown_ns = clock()

    def run(self, backlog: Sequence[bytes], timeout: float | None, release: float) -> None:
        """Until the root has released the leaf, or need not."""
        assembly = self._assembly
        self._take(backlog)
        while assembly.phase is not Phase.DONE:
            try:
                self._turn(timeout)
            except (SessionClosedError, SessionBrokenError):
                if assembly.phase is Phase.REPORTED:
                    break  # all is here; only the root's word on it is missing
                raise
            if assembly.phase is Phase.REPORTED:
                self._await_release(release)
                break
        self._show(last=True)

    def _turn(self, timeout: float | None) -> None:
        """One round: take what is there, do a piece of work, say what there is to say."""
        assembly = self._assembly
        if self._cancel is not None and self._cancel.is_set():
            assembly.give_up("cancelled at the leaf")
        else:
            self._receive(0 if assembly.busy else _LOOK_S)
            assembly.work()
        now = self._clock()
        if assembly.phase is Phase.EXPECTING:
            if timeout is not None and now - self._begun_ns >= timeout * 1e9:
                raise SessionTimeoutError(f"no object was offered within {timeout:g} s")
        else:
            assembly.tick(now)
            self.post()
        self._show()

    def _await_release(self, seconds: float) -> None:
        """The report is under way; a root that is gone by now has it or never will."""
        deadline = self._clock() + int(seconds * 1e9)
        with suppress(SessionError):
            while self._assembly.phase is Phase.REPORTED and self._clock() < deadline:
                self.post()
                self._receive(_LOOK_S)

    def _receive(self, timeout: float) -> None:
        try:
            batch = self._channel.receive_many(timeout=timeout)
        except SessionTimeoutError:
            return
        self._take(batch.messages)

    def _take(self, messages: Sequence[bytes]) -> None:
        now = self._clock()
        for at, message in enumerate(messages):
            if self._assembly.phase is Phase.DONE:
                self._leftover = tuple(messages[at:])
                return
            before = self._assembly.phase
            self._assembly.handle(message, now)
            if before is Phase.EXPECTING and self._assembly.phase is not before:
                self._begun_ns = now

    def post(self) -> None:
        """Send what there is to say; what finds no room is said later."""
        outbox = self._assembly.outbox
        if outbox:
            with suppress(SessionTimeoutError):
                self._channel.send_many(list(outbox), timeout=_ROOM_S)
                outbox.clear()

    def say_last_words(self) -> None:
        """On a way out that has an error of its own to tell."""
        with suppress(SessionError):
            self.post()

    def _show(self, *, last: bool = False) -> None:
        now = self._clock()
        if self._on_progress is not None and (last or now - self._shown_ns >= _PROGRESS_NS):
            self._shown_ns = now
            self._on_progress(self._assembly.progress(now))

    def result(self, name: str | None) -> ReceiveResult:
        """How it ended."""
        assembly = self._assembly
        manifest = assembly.manifest
        single = manifest is not None and manifest.kind != "folder"
        only = assembly.digests[0] if single and assembly.digest_kind == "sha256" else None
        failed = bool(assembly.reason or assembly.failures)
        return ReceiveResult(
            object_id=assembly.object_id or b"",
            name=name or (manifest.name if manifest is not None else ""),
            kind=manifest.kind if manifest is not None else "",
            state=LeafState.FAILED if failed else LeafState.VERIFIED,
            reason=assembly.reason,
            bytes_total=assembly.size or 0,
            bytes_received=assembly.received,
            bytes_resumed=assembly.resumed,
            files=assembly.verified,
            failures=assembly.all_failures(),
            sha256=only.hex() if only is not None else "",
            acknowledged=assembly.acknowledged,
            seconds=(self._clock() - self._begun_ns) / 1e9,
            leftover=self._leftover,
            digest_kind=assembly.digest_kind,
        )

"""Where a leaf keeps what it receives: a folder, with partial files and a journal; or a pipe.

In a folder each file is written as ``.name.<short object id>.part`` beside its final place and
renamed when its digest is right, so that a name never stands for half a file. Partial files carry
the object's id: those of another object are never read, and are removed only when asked.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, Protocol, runtime_checkable

from joinleaf.transfer.journal import Journal, short_id
from joinleaf.transfer.manifest import Layout
from joinleaf.transfer.names import check_path, unsuitable
from joinleaf.transfer.ranges import RangeSet
from joinleaf.transfer.tree import Tree

if TYPE_CHECKING:
    from joinleaf.transfer.manifest import Manifest

__all__ = ["FolderStore", "Store", "StreamStore", "clean_partials"]

_MAX_OPEN: Final = 16
"""Files held open for writing. Orderly arrival needs one, a few late leaves' worth a few more."""
_JOURNAL_ROOM: Final = 1 << 20
"""Given back to a full disk for the journal: several thousand ranges, and whatever the file system
rounds it up to."""
_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_NAME_IN_PART: Final = 50
"""Characters of a name kept in a partial file's, at most 4 bytes each: within 255 with the rest."""
_PART: Final = re.compile(r"^\..{0,50}\.(?P<id>[0-9a-f]{16})(-\d+)?\.(part|journal|journal\.new)$")


@runtime_checkable
class Store(Protocol):
    """What the receiver writes to. Every method but ``close`` may raise OSError."""

    in_order: bool
    """Whether bytes are of use only in order, from the first on, and cannot be read again."""

    @property
    def place(self) -> bytes:
        """16 bytes, the same after a restart with partial files still there."""
        ...

    def begin(self, manifest: Manifest, object_id: bytes) -> tuple[RangeSet, dict[int, str]]:
        """Get ready; gives what is here already, and the files that cannot be kept, with reasons.

        Raises ValueError if this object cannot be kept here at all.
        """
        ...

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """Put bytes of a file where they belong."""
        ...

    def read_into(self, index: int, offset: int, view: memoryview) -> int:
        """Read back; gives how many bytes there were, 0 at the end."""
        ...

    def finish(self, index: int) -> None:
        """The file is whole and right: give it its name."""
        ...

    def discard(self, index: int) -> bool:
        """Forget what is here of a file; False if it is not ours to be written again."""
        ...

    def checkpoint(self, have: RangeSet) -> None:
        """Remember what is here, for a later run."""
        ...

    def close(self, *, complete: bool) -> None:
        """Let go; ``complete``: nothing needs remembering. Never raises."""
        ...


class FolderStore:
    """Keeps objects in a folder.

    Args:
        folder: Made if it is not there.
        name: Instead of the object's own name.
        overwrite: Whether files that are there are replaced.
        durable: Whether a file is forced to the disk before it gets its name.
        clean: Whether partial files of other objects of the same name are removed at ``begin``.
        by_handle: See ``tree.Tree``; for tests.

    Raises:
        OSError: The folder cannot be made or is none.
    """

    in_order = False

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        overwrite: bool = False,
        durable: bool = False,
        clean: bool = False,
        by_handle: bool | None = None,
    ) -> None:
        os.makedirs(folder, exist_ok=True)
        top = os.fspath(folder)
        self._tree = Tree(top) if by_handle is None else Tree(top, by_handle=by_handle)
        self._name, self._overwrite, self._durable, self._clean = name, overwrite, durable, clean
        self._manifest: Manifest | None = None
        self._journal: Journal | None = None
        self._short = ""
        self._parts: list[tuple[str, ...]] = []  # by file index
        self._open: dict[int, int] = {}  # file index -> descriptor, least recently opened first
        self._found: set[int] = set()  # files whose final name existed, with the right size
        self._begun: set[int] = set()  # files that have a partial file
        self._unsaved: RangeSet | None = None  # what the journal had no room to say

    @property
    def place(self) -> bytes:
        """Kept in the journal."""
        assert self._journal is not None
        return self._journal.place

    def begin(self, manifest: Manifest, object_id: bytes) -> tuple[RangeSet, dict[int, str]]:
        """Make the folders; find what an earlier run of the same object left."""
        top = manifest.name if self._name is None else self._name
        if len(check_path(top)) != 1 or (reason := unsuitable((top,))):
            raise ValueError(reason if len(check_path(top)) == 1 else f"{top!r} is a path")
        if self._clean:
            clean_partials(self._tree.top, top, keep=object_id)
        self._manifest, self._short = manifest, short_id(object_id)
        paths = [(top, *check_path(entry.path)[1:]) for entry in manifest.entries]
        self._parts = [p for p, e in zip(paths, manifest.entries, strict=True) if not e.is_folder]
        self._journal = Journal(self._tree, top[:_NAME_IN_PART], object_id, manifest.digest())
        failed = {i: why for i, parts in enumerate(self._parts) if (why := unsuitable(parts))}
        for parts, entry in zip(paths, manifest.entries, strict=True):
            if entry.is_folder and not unsuitable(parts):
                self._tree.make_folder(parts)
        have = self._look_around(manifest, failed)
        self._journal.save(have)
        return have, failed

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """At its offset in the partial file."""
        descriptor = self._descriptor(index)
        while data:
            count = _write_at(descriptor, data, offset)
            data, offset = data[count:], offset + count

    def read_into(self, index: int, offset: int, view: memoryview) -> int:
        """From the partial file or, if there is none, from the finished one."""
        return _read_at(self._descriptor(index), view, offset)

    def finish(self, index: int) -> None:
        """Set the time of modification and rename. FileExistsError: see ``overwrite``."""
        assert self._manifest is not None
        if index in self._found and index not in self._begun:
            self._release(index)
            return  # it has been here, and is what was sent
        descriptor = self._descriptor(index)
        mtime_ns = self._manifest.files[index].mtime_ns
        if mtime_ns and os.utime in os.supports_fd:
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        if self._durable:
            os.fsync(descriptor)
        self._release(index)
        parts = self._parts[index]
        self._tree.publish(parts[:-1], self._part_name(index), parts[-1], replace=self._overwrite)
        self._begun.discard(index)

    def discard(self, index: int) -> bool:
        """Delete the partial file. A file that was here before is never touched by this."""
        self._release(index)
        self._begun.discard(index)
        self._tree.remove((*self._parts[index][:-1], self._part_name(index)))
        was_found = index in self._found
        self._found.discard(index)
        return self._overwrite or not was_found

    def checkpoint(self, have: RangeSet) -> None:
        """Write the journal."""
        assert self._journal is not None
        try:
            self._journal.save(have)
        except OSError as error:
            self._unsaved = have.copy() if error.errno in _FULL else None
            raise
        self._unsaved = None

    def _make_room(self, have: RangeSet) -> None:
        """Give back the end of what was written last, so that the journal can be written.

        Else a disk that has run full would cost all that came since the journal before.
        """
        assert self._manifest is not None
        layout, freed = Layout(self._manifest), 0
        for index in reversed(self._open):
            if index not in self._begun or freed >= _JOURNAL_ROOM:
                continue
            start, size = layout.span(index)[0], os.fstat(self._open[index]).st_size
            kept = max(0, size - (_JOURNAL_ROOM - freed))
            os.ftruncate(self._open[index], kept)
            have.remove(start + kept, start + size)
            freed += size - kept

    def close(self, *, complete: bool) -> None:
        """Close all files; without ``complete`` partial files and journal stay."""
        if self._unsaved is not None and not complete and self._journal is not None:
            with suppress(OSError):
                self._make_room(self._unsaved)
                self._journal.save(self._unsaved)
        for index in list(self._open):
            self._release(index)
        if complete and self._journal is not None:
            self._journal.remove()

    def _look_around(self, manifest: Manifest, failed: dict[int, str]) -> RangeSet:
        """What is here: what the journal says, as far as the files bear it out.

        A file under its final name with the right size counts as here, whoever put it: its digest
        is compared before anything is said of it.
        """
        assert self._journal is not None
        layout, have = Layout(manifest), RangeSet()
        remembered = self._journal.ranges
        for index, parts in enumerate(self._parts):
            if index in failed:
                continue
            start, end = layout.span(index)
            size = self._size((*parts[:-1], self._part_name(index)))
            if size is not None and not self._journal.resumed:
                # Without a journal nothing says what is in it.
                self._tree.remove((*parts[:-1], self._part_name(index)))
            elif size is not None:
                self._begun.add(index)
                kept = min(end, start + size)
                lost = remembered.missing(start, kept)
                have.add(start, kept)
                for gap in lost:
                    have.remove(*gap)
            elif manifest.kind != "stream" and self._size(parts) == end - start:
                self._found.add(index)
                have.add(start, end)
        return have

    def _size(self, parts: tuple[str, ...]) -> int | None:
        """Size of a regular file, or None if there is none."""
        try:
            status = self._tree.status(parts)
        except OSError:
            return None
        return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None

    def _part_name(self, index: int) -> str:
        # The index tells "a" from "A" where the file system does not, and long names cut short.
        tail = f"-{index}" if index else ""
        return f".{self._parts[index][-1][:_NAME_IN_PART]}.{self._short}{tail}.part"

    def _descriptor(self, index: int) -> int:
        if (descriptor := self._open.get(index)) is not None:
            return descriptor
        if len(self._open) >= _MAX_OPEN:
            self._release(next(iter(self._open)))
        descriptor = self._open[index] = self._open_file(index)
        return descriptor

    def _open_file(self, index: int) -> int:
        assert self._manifest is not None
        parts = self._parts[index]
        if index in self._found and index not in self._begun:
            return self._tree.open_old(parts, write=False)
        part = (*parts[:-1], self._part_name(index))
        if index in self._begun:
            return self._tree.open_old(part)
        if not self._overwrite and self._tree.status(parts) is not None:
            # Told before the bytes come rather than after.
            raise FileExistsError(errno.EEXIST, "exists already; overwriting was not allowed")
        executable = self._manifest.files[index].executable
        descriptor = self._tree.open_new(part, executable=executable)
        self._begun.add(index)
        return descriptor

    def _release(self, index: int) -> None:
        if (descriptor := self._open.pop(index, None)) is not None:
            os.close(descriptor)


class StreamStore:
    """Writes one file or stream to a pipe, a terminal or any other binary stream, in order.

    Nothing can be taken back or resumed: what has been written is out, right or wrong.
    """

    in_order = True

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.place = os.urandom(16)

    def begin(self, manifest: Manifest, object_id: bytes) -> tuple[RangeSet, dict[int, str]]:
        """Raises ValueError for a folder."""
        if manifest.kind == "folder":
            raise ValueError("a folder cannot be written to a stream; receive it into a folder")
        return RangeSet(), {}

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """Behind what was written before; the receiver sees to the order."""
        while data:
            count = self._stream.write(data)
            data = data[len(data) if count is None else count :]

    def read_into(self, index: int, offset: int, view: memoryview) -> int:
        """Nothing can be read back."""
        return 0

    def finish(self, index: int) -> None:
        """Flush."""
        self._stream.flush()

    def discard(self, index: int) -> bool:
        """What is out is out."""
        return False

    def checkpoint(self, have: RangeSet) -> None:
        """Let the reader at the other end see it; there is nothing to remember."""
        self._stream.flush()

    def close(self, *, complete: bool) -> None:
        """The stream stays open: it is the caller's."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def clean_partials(folder: str | os.PathLike[str], name: str, *, keep: bytes = b"") -> int:
    """Remove partial files and journals of object ``name`` that are not of object id ``keep``.

    Looks at the folder itself and below ``folder/name``; symbolic links are not followed.

    Returns:
        How many files were removed.
    """
    tree = Tree(os.fspath(folder))
    kept = short_id(keep) if keep else ""
    removed = 0
    stack: list[tuple[str, ...]] = [(name,)]
    for entry in tree.names(()):
        match = _PART.match(entry)
        if (
            match
            and match["id"] != kept
            and entry.startswith(f".{name[:_NAME_IN_PART]}.{match['id']}")
        ):
            tree.remove((entry,))
            removed += 1
    while stack:
        parts = stack.pop()
        for entry in tree.names(parts):
            match = _PART.match(entry)
            status = tree.status((*parts, entry))
            if match and match["id"] != kept:
                tree.remove((*parts, entry))
                removed += 1
            elif status is not None and stat.S_ISDIR(status.st_mode):
                stack.append((*parts, entry))
    return removed


def _write_at(descriptor: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)

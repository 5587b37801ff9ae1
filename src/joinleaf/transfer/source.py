"""What is sent: a file or folder on disk, or a stream that is spooled while it is read.

A source is read by position and may be read twice, as leaves that come late need what went by.
Each file is compared with what it was when it was listed, whenever the reading of it ends: a file
that changed, shrank or vanished fails by itself, with its reason.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, Protocol, runtime_checkable

from joinleaf.transfer.manifest import Entry, Manifest
from joinleaf.transfer.names import own_name as checked_name
from joinleaf.transfer.wire import MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from joinleaf.transfer.channel import Buffer

__all__ = ["PathSource", "Source", "SourceFileError", "StreamSource", "open_source"]

_READ_AHEAD: Final = 64 << 20
"""How far a stream is spooled ahead of what has been sent: enough for every burst, little disk."""
_PIECE: Final = 1 << 20
_BINARY: Final[int] = getattr(os, "O_BINARY", 0)  # Windows alone has a text mode
_NO_FOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_NON_BLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)  # a FIFO put in a file's place must not hang


class SourceFileError(Exception):
    """One file cannot be had whole; the text says why. The others go on."""


@runtime_checkable
class Source(Protocol):
    """What the engine reads from."""

    @property
    def manifest(self) -> Manifest:
        """What there is."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out, and why."""
        ...

    def available(self, index: int) -> tuple[int, bool]:
        """How many bytes of a file can be read now, and whether that is all of it."""
        ...

    def wait(self, size: int, timeout: float) -> None:
        """Wait until more than ``size`` bytes are there, the stream ends, or seconds pass."""
        ...

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        """Fill ``view`` from a file. Raises SourceFileError if it cannot be filled."""
        ...

    def check(self, index: int) -> None:
        """The reading has reached the end of a file. Raises SourceFileError if it has changed."""
        ...

    def close(self) -> None:
        """Give everything back. Twice is allowed."""
        ...


def open_source(source: Source | str | os.PathLike[str] | IO[bytes]) -> Source:
    """A path as a ``PathSource``, a binary stream as a ``StreamSource``, a source as it is."""
    if isinstance(source, str | os.PathLike):
        return PathSource(source)
    if isinstance(source, Source):
        return source
    return StreamSource(source)


@dataclass(frozen=True, slots=True)
class _Identity:
    """By what a changed file is known."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class PathSource:
    """A regular file, or a folder with everything in it.

    Symbolic links, devices, sockets and FIFOs inside a folder are left out, each with a notice,
    and so are folders that cannot be listed and names that are not UTF-8. A link given as the
    path itself is followed.

    Args:
        path: What to send.
        name: Under which name; None: its own.

    Raises:
        OSError: It is not there, cannot be listed, or is neither file nor folder.
        ValueError: More entries than ``wire.MAX_ENTRIES``.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str | None = None) -> None:
        self._top = os.path.realpath(path)
        own_name = os.path.basename(os.path.abspath(path)) or "root"
        self._notices: list[str] = []
        self._paths: list[str] = []  # by file index
        self._identities: list[_Identity] = []
        self._open: tuple[int, int] | None = None  # file index, descriptor
        status = os.stat(self._top)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError(f"{os.fspath(path)!r} is neither a file nor a folder; send it by a pipe")
        is_folder = stat.S_ISDIR(status.st_mode)
        name = checked_name(name) if name else own_name
        entries = tuple(self._walk(self._top, name, status))
        self._manifest = Manifest("folder" if is_folder else "file", name, entries)

    @property
    def manifest(self) -> Manifest:
        """What there is."""
        return self._manifest

    @property
    def notices(self) -> tuple[str, ...]:
        """What was left out, and why."""
        return tuple(self._notices)

    def _walk(self, top: str, name: str, status: os.stat_result) -> Iterator[Entry]:
        """Depth first, sorted, with a stack of its own: depth is the user's affair."""
        stack = [(top, name, status)]
        count = 0
        while stack:
            path, wire_path, status = stack.pop()
            if (count := count + 1) > MAX_ENTRIES:
                raise ValueError(f"{top!r} has more than {MAX_ENTRIES} files and folders")
            if not stat.S_ISDIR(status.st_mode):
                self._paths.append(path)
                self._identities.append(_Identity.of(status))
                executable = bool(status.st_mode & stat.S_IXUSR)
                yield Entry(wire_path, False, status.st_size, status.st_mtime_ns, executable)
                continue
            yield Entry(wire_path, True, 0, status.st_mtime_ns)
            stack.extend(reversed(self._list(path, wire_path)))

    def _list(self, path: str, wire_path: str) -> list[tuple[str, str, os.stat_result]]:
        try:
            with os.scandir(path) as listing:
                found = sorted(listing, key=lambda item: item.name)
        except OSError as error:
            if path == self._top:
                raise
            self._notices.append(f"{wire_path}: {error.strerror}; its contents are left out")
            return []
        return [row for item in found if (row := self._look(item, wire_path)) is not None]

    def _look(self, item: os.DirEntry[str], parent: str) -> tuple[str, str, os.stat_result] | None:
        wire_path = f"{parent}/{item.name}"
        try:
            item.name.encode()
            status = item.stat(follow_symlinks=False)
        except UnicodeEncodeError:
            self._notices.append(f"{wire_path!r}: the name is not UTF-8; left out")
            return None
        except OSError as error:
            self._notices.append(f"{wire_path}: {error.strerror}; left out")
            return None
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            return item.path, wire_path, status
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        self._notices.append(f"{wire_path}: {what}; left out")
        return None

    def available(self, index: int) -> tuple[int, bool]:
        """All of it, always."""
        return self._manifest.files[index].size, True

    def wait(self, size: int, timeout: float) -> None:
        """Nothing ever has to be waited for."""

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        """Fill ``view``; the file stays open until another is read or checked."""
        try:
            descriptor = self._descriptor(index)
            while view:
                if (count := _read_at(descriptor, view, offset)) == 0:
                    raise SourceFileError("it shrank while being sent")
                view, offset = view[count:], offset + count
        except OSError as error:
            self._forget()
            raise SourceFileError(f"cannot be read: {error.strerror}") from error

    def check(self, index: int) -> None:
        """Compare with the listing: same file, size and time of modification."""
        try:
            now = _Identity.of(os.fstat(self._descriptor(index)))
            # By name as well: a file replaced by renaming another over it is a changed file.
            named = _Identity.of(os.stat(self._paths[index], follow_symlinks=False))
        except OSError as error:
            raise SourceFileError(f"cannot be read: {error.strerror}") from error
        finally:
            self._forget()
        if not now == named == self._identities[index]:
            raise SourceFileError("it changed while being sent")

    def close(self) -> None:
        """Close the file that is open, if any."""
        self._forget()

    def _descriptor(self, index: int) -> int:
        if self._open is not None and self._open[0] == index:
            return self._open[1]
        self._forget()
        flags = os.O_RDONLY | _BINARY | _NO_FOLLOW | _NON_BLOCK
        descriptor = os.open(self._paths[index], flags)
        self._open = (index, descriptor)
        if _Identity.of(os.fstat(descriptor)) != self._identities[index]:
            raise SourceFileError("it changed before it was sent")
        return descriptor

    def _forget(self) -> None:
        if self._open is not None:
            _, descriptor = self._open
            self._open = None
            os.close(descriptor)


class StreamSource:
    """A pipe or any other binary stream of unknown length, spooled to an unnamed temporary file.

    A thread reads the stream, at most 64 MiB ahead of what has been sent. The spool grows to the
    length of the stream, as leaves that come late need all of it.

    Args:
        stream: Read with ``read1`` where it has it, so that what is there is sent at once.
        name: Under which name receivers keep it.
        spool_folder: Where the spool lives; None: the system's folder for temporary files.
    """

    def __init__(
        self, stream: IO[bytes], *, name: str = "stream", spool_folder: str | None = None
    ) -> None:
        self._manifest = Manifest("stream", checked_name(name), (Entry(name),))
        self._stream = stream
        # Lives as long as this object: ``close`` closes it.
        self._spool = tempfile.TemporaryFile(buffering=0, dir=spool_folder)  # noqa: SIM115
        self._changed = threading.Condition()
        self._size = 0
        self._consumed = 0
        self._ended = False
        self._closed = False
        self._failure = ""
        # A daemon: a read from a terminal or pipe that never ends must not keep the program alive.
        self._reader = threading.Thread(target=self._pump, name="joinleaf-spool", daemon=True)
        self._reader.start()

    @property
    def manifest(self) -> Manifest:
        """One entry, its size 0 as nobody knows it."""
        return self._manifest

    @property
    def notices(self) -> tuple[str, ...]:
        """Always empty."""
        return ()

    def available(self, index: int) -> tuple[int, bool]:
        """What has been spooled, and whether the stream has ended."""
        with self._changed:
            return self._size, self._ended

    def wait(self, size: int, timeout: float) -> None:
        """Until the spool is longer than ``size`` or the stream has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > size or self._ended, timeout)

    def read_into(self, index: int, offset: int, view: memoryview) -> None:
        """From the spool."""
        try:
            with self._changed:
                if os.name == "nt":  # no pread: the position is shared with the writer
                    self._fill_by_seeking(view, offset)
                else:
                    self._fill(view, offset)
                self._consumed = max(self._consumed, offset + len(view))
                self._changed.notify_all()
        except OSError as error:
            raise SourceFileError(f"the spool cannot be read: {error.strerror}") from error

    def check(self, index: int) -> None:
        """Raises SourceFileError if the stream broke off or could not be spooled."""
        with self._changed:
            if self._failure:
                raise SourceFileError(self._failure)

    def close(self) -> None:
        """Stop spooling; the reader ends with the read that it is in."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._spool.close()

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            count = os.preadv(self._spool.fileno(), [view], offset)
            if count == 0:
                raise SourceFileError("the spool has been cut off")
            view, offset = view[count:], offset + count

    def _fill_by_seeking(self, view: memoryview, offset: int) -> None:
        self._spool.seek(offset)
        while view:
            if not (count := self._spool.readinto(view)):
                raise SourceFileError("the spool has been cut off")
            view = view[count:]

    def _pump(self) -> None:
        read = getattr(self._stream, "read1", None) or self._stream.read
        failure = ""
        try:
            while (data := read(_PIECE)) and self._keep(data):
                pass
        except (OSError, ValueError) as error:  # ValueError: the stream was closed meanwhile
            failure = f"the stream cannot be read: {getattr(error, 'strerror', None) or error}"
        with self._changed:
            self._failure = self._failure or failure
            self._ended = True
            self._changed.notify_all()

    def _keep(self, data: Buffer) -> bool:
        """Append to the spool; False if there is no more use in reading."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._size - self._consumed < _READ_AHEAD
            )
            if self._closed:
                return False
            view = memoryview(data)
            try:
                self._spool.seek(self._size)
                while view:
                    view = view[self._spool.write(view) :]
            except OSError as error:
                self._failure = f"the stream cannot be spooled: {error.strerror}"
                return False
            self._size += len(data)
            self._changed.notify_all()
        return True


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """``preadv`` where there is one; else by seeking, as one thread alone reads a descriptor."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)

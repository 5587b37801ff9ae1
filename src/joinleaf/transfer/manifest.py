"""What an object consists of, and the one line on which all its bytes are numbered."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.names import check_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from joinleaf.transfer.digests import Digests

__all__ = ["Entry", "Layout", "Manifest", "ManifestBuilder", "object_digest"]

MAX_MANIFEST_BYTES: Final = 128 << 20
"""Most bytes of paths that a receiver keeps; a million paths of ordinary length fit."""

Kind = Literal["file", "folder", "stream"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder.

    Attributes:
        path: Relative, with forward slashes; its first component is the object's name.
        is_folder: A folder, empty or not; its size is 0.
        size: Bytes; of a stream 0, as nobody knows yet.
        mtime_ns: Time of last modification, nanoseconds since 1970.
        executable: Whether its owner may execute it. No other permission bit travels.
    """

    path: str
    is_folder: bool = False
    size: int = 0
    mtime_ns: int = 0
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """All entries of one object.

    Attributes:
        kind: A file, a folder, or a stream whose length is known only at its end.
        name: File or folder name of the whole.
        entries: Folders and files; folders stand before what is in them.
        files: The files among them, in order; a file's index is its place here.
    """

    kind: Kind
    name: str
    entries: tuple[Entry, ...]
    files: tuple[Entry, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(e for e in self.entries if not e.is_folder))

    @property
    def size(self) -> int | None:
        """Bytes of all files; None for a stream."""
        return None if self.kind == "stream" else sum(entry.size for entry in self.files)

    def digest(self) -> bytes:
        """Sha256 of the manifest: equal for equal objects only."""
        rows = [(e.path, e.is_folder, e.size, e.mtime_ns, e.executable) for e in self.entries]
        return hashlib.sha256(msgspec.msgpack.encode((self.kind, self.name, rows))).digest()

    def messages(self, object_id: bytes, digests: Digests) -> Iterator[bytes]:
        """The offer and its pages, ready to be sent."""
        count = len(self.entries)
        yield wire.encode(
            wire.Offer(
                object_id, self.kind, self.name, count, wire.VERSION, digests.kind, digests.key
            )
        )
        step = wire.MAX_ENTRIES_PER_MESSAGE
        for first in range(0, len(self.entries), step):
            page = [
                wire.WireEntry(e.path, e.is_folder, e.size, e.mtime_ns, e.executable)
                for e in self.entries[first : first + step]
            ]
            yield wire.encode(wire.Entries(object_id, first, page))


class Layout:
    """Numbers the bytes of all files in one line: file 0 from position 0, file 1 right behind.

    Attributes:
        end: Position behind the last byte; ``wire.MAX_POSITION`` for an unfinished stream.
    """

    __slots__ = ("_starts", "end")

    def __init__(self, manifest: Manifest) -> None:
        sizes = (
            [wire.MAX_POSITION] if manifest.kind == "stream" else [e.size for e in manifest.files]
        )
        *self._starts, self.end = accumulate(sizes, initial=0)

    def __len__(self) -> int:
        """Number of files."""
        return len(self._starts)

    def span(self, index: int) -> tuple[int, int]:
        """First position of a file and the one behind its last."""
        after = index + 1
        return self._starts[index], self._starts[after] if after < len(self._starts) else self.end

    def locate(self, position: int) -> tuple[int, int]:
        """Index of the file that holds ``position`` (below ``end``), and the offset in it."""
        index = bisect_right(self._starts, position) - 1
        return index, position - self._starts[index]

    def finish_stream(self, size: int) -> None:
        """The one file of a stream turned out to be this long."""
        self.end = size


class ManifestBuilder:
    """Puts an offer and its pages together again, trusting nothing.

    Args:
        offer: What announced the pages.
        max_files: Most entries that this receiver takes.
        max_bytes: Most bytes that this receiver takes, or None.

    Raises:
        RemoteProtocolError: The name is hostile.
        ValueError: Over a limit of this receiver (so also ``add``), or of a later version; no
            fault of the root.
    """

    def __init__(self, offer: wire.Offer, *, max_files: int, max_bytes: int | None = None) -> None:
        if offer.version > wire.VERSION:
            raise ValueError(
                f"the sender's transfers are of version {offer.version}, these here of "
                f"{wire.VERSION}; upgrade joinleaf here"
            )
        if offer.entries > max_files:
            raise ValueError(f"{offer.entries} files and folders exceed the {max_files} taken here")
        if len(check_path(offer.name)) != 1:
            raise RemoteProtocolError(f"the object's name {offer.name!r} is a path")
        self._offer = offer
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._kinds: dict[str, bool] = {}  # path -> is it a folder
        self._path_bytes = 0
        self._size = 0

    @property
    def object_id(self) -> bytes:
        """Of the object being put together."""
        return self._offer.object_id

    def add(self, page: wire.Entries) -> Manifest | None:
        """Take the next page; gives the manifest once it is complete.

        Raises:
            RemoteProtocolError: Out of order, too many, a hostile path, a path twice, a file used
                as a folder, or beyond a limit.
        """
        room = self._offer.entries - len(self._entries)
        if page.first != len(self._entries) or len(page.entries) > room:
            raise RemoteProtocolError("the pages of the offer are out of order")
        for entry in page.entries:
            self._add_entry(entry)
        if len(self._entries) < self._offer.entries:
            return None
        manifest = Manifest(self._offer.kind, self._offer.name, tuple(self._entries))
        if self._offer.kind != "folder" and [e.path for e in manifest.files] != [manifest.name]:
            raise RemoteProtocolError(f"a {self._offer.kind} must be one entry with its name")
        return manifest

    def _add_entry(self, entry: wire.WireEntry) -> None:
        parts = check_path(entry.path)
        parent = entry.path.rpartition("/")[0]
        self._size += entry.size
        self._path_bytes += len(entry.path)
        for wrong, why in (
            (parts[0] != self._offer.name, "does not begin with the object's name"),
            (entry.path in self._kinds, "is there twice"),
            (bool(parent) and not self._kinds.get(parent), "is in a folder that is not offered"),
            (entry.is_folder and entry.size > 0, "is a folder with a size"),
            (self._path_bytes > MAX_MANIFEST_BYTES, "is one path too many"),
            (self._size >= wire.MAX_POSITION, "makes the object larger than any can be"),
        ):
            if wrong:
                raise RemoteProtocolError(f"offered path {entry.path[:100]!r} {why}")
        if self._max_bytes is not None and self._size > self._max_bytes:
            raise ValueError(f"the object exceeds the limit of {self._max_bytes} bytes set here")
        self._kinds[entry.path] = entry.is_folder
        self._entries.append(
            Entry(entry.path, entry.is_folder, entry.size, entry.mtime_ns, entry.executable)
        )


def object_digest(digests: Sequence[bytes | None], failed: Iterable[int] = ()) -> bytes:
    """One sha256 over the digests of all files, in order; 32 zero bytes for one that failed."""
    lost = set(failed)
    whole = hashlib.sha256()
    for index, digest in enumerate(digests):
        whole.update(bytes(wire.DIGEST_BYTES) if digest is None or index in lost else digest)
    return whole.digest()

"""What a leaf remembers between two runs: which ranges of which object are in its partial files.

Written beside the object as ``.name.<short id>.journal``, replaced as a whole each time. It is not
forced to the disk, nor are the partial files: after a crash of the program both are as the kernel
has them; after a crash of the machine they may disagree, and then the digest at the end tells, and
the file is fetched again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from joinleaf.transfer.ranges import RangeSet

if TYPE_CHECKING:
    from joinleaf.transfer.tree import Tree

__all__ = ["Journal", "short_id"]

_MAX_BYTES: Final = 16 << 20
"""Longest journal read back; a longer one is not ours."""

Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Position = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class _Record(msgspec.Struct, array_like=True, frozen=True, tag="joinleaf-journal-1"):
    object_id: Id
    manifest: bytes
    place: Id
    ranges: list[tuple[_Position, _Position]]


def short_id(object_id: bytes) -> str:
    """What stands for an object in file names: 16 hexadecimal digits."""
    return object_id[:8].hex()


class Journal:
    """The journal of one object at one place.

    Args:
        tree: The destination.
        name: Name of the object there, short enough for what is put around it.
        object_id: Of what.
        manifest: Digest of the manifest; a journal of another one counts for nothing.

    Attributes:
        place: Identity of this place; drawn at the first run, kept until the object is complete.
        resumed: Whether an earlier run left it.
    """

    def __init__(self, tree: Tree, name: str, object_id: bytes, manifest: bytes) -> None:
        self._tree = tree
        self._file = f".{name}.{short_id(object_id)}.journal"
        self._object_id, self._manifest = object_id, manifest
        self.ranges = RangeSet()
        self.place = os.urandom(16)
        record = self._load()
        self.resumed = record is not None
        if record is not None:
            self.place = record.place
            self.ranges = RangeSet(record.ranges)

    def save(self, ranges: RangeSet) -> None:
        """Remember these ranges. Raises OSError as writing a file does."""
        record = _Record(self._object_id, self._manifest, self.place, list(ranges))
        fresh = f"{self._file}.new"
        self._tree.remove((fresh,))
        descriptor = self._tree.open_new((fresh,))
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.msgpack.encode(record))
        self._tree.publish((), fresh, self._file, replace=True)

    def remove(self) -> None:
        """The object is complete, or given up."""
        for name in (self._file, f"{self._file}.new"):
            with suppress(OSError):
                self._tree.remove((name,))

    def _load(self) -> _Record | None:
        try:
            with os.fdopen(self._tree.open_old((self._file,), write=False), "rb") as file:
                record = msgspec.msgpack.decode(file.read(_MAX_BYTES), type=_Record)
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return None
        ours = record.object_id == self._object_id and record.manifest == self._manifest
        return record if ours and all(start < end for start, end in record.ranges) else None

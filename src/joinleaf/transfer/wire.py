"""The transfer's own messages: values to bytes and back, every size and count bounded.

A message is one session message. Chunks are a fixed header of 32 bytes and the payload, nothing
copied or scanned; all others are one tagged MessagePack array. The first byte tells them apart:
0xC1 is the one byte that MessagePack never uses. Every message names its object by the full 16
random bytes, so that nothing of one run can ever be taken for another's (a rebooted leaf that is
fed the wrong stream is the fault this engine exists to exclude).

    root                                   leaf
    Offer, Entries...         ------->             what there is
                              <-------     Want    (ranges it has already; asks for the rest)
    Chunk..., Ends...         ------->             bytes; then size and digest of each file
                              <-------     Status  (at most every quarter second, at least each)
                              <-------     Missing (a file whose digest differed, once more)
                              <-------     Report  (digest over all files, what failed and why)
    Release                   ------->             the root knows; the leaf may leave
    Abort                     ------->             cancelled at the root; partial files are kept
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from joinleaf.errors import RemoteProtocolError

__all__ = [
    "CHUNK_HEADER",
    "DIGEST_BYTES",
    "MAX_CHUNK",
    "MAX_ENDS_PER_MESSAGE",
    "MAX_ENTRIES",
    "MAX_ENTRIES_PER_MESSAGE",
    "MAX_MESSAGE",
    "MAX_POSITION",
    "MAX_RANGES_PER_MESSAGE",
    "MAX_REASON",
    "VERSION",
    "Abort",
    "Chunk",
    "End",
    "Ends",
    "Entries",
    "FailedFile",
    "Message",
    "Missing",
    "Offer",
    "Release",
    "Report",
    "Status",
    "Want",
    "WireEntry",
    "clip_reason",
    "decode",
    "encode",
    "put_chunk_header",
]

MAX_CHUNK: Final = 4 << 20
"""Longest payload of one chunk; several times what measuring showed to be useful."""
MAX_POSITION: Final = 1 << 62
"""Beyond every byte of every object, and within a signed 64-bit integer when added to."""
MAX_ENTRIES: Final = 1 << 20
"""Most files and folders of one object; a receiver keeps them all in memory."""
MAX_ENTRIES_PER_MESSAGE: Final = 1024
MAX_ENDS_PER_MESSAGE: Final = 4096
MAX_RANGES_PER_MESSAGE: Final = 16384
MAX_FAILED_PER_REPORT: Final = 100
"""Most failed files that a leaf names; it counts all of them."""
MAX_REASON: Final = 1000
"""Longest reason, in characters; it ends up on somebody's terminal."""
DIGEST_BYTES: Final = 32
"""Longest digest of a file, and the length of that of an object."""
VERSION: Final = 2
"""Of these messages; a leaf says no to an offer of a later one, in words. 2: digests have kinds."""

CHUNK_HEADER: Final = struct.Struct(">B3xIQ16s")
"""0xC1, three zero bytes, file index, offset in the file, object id; big-endian, 32 bytes."""
MAX_MESSAGE: Final = MAX_CHUNK + CHUNK_HEADER.size + (1 << 20)
"""Longest message looked at. A full page of the longest paths fits as well."""
_CHUNK_KIND: Final = 0xC1

ObjectId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, msgspec.Meta(min_length=16, max_length=DIGEST_BYTES)]
Position = Annotated[int, msgspec.Meta(ge=0, le=MAX_POSITION)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ENTRIES)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]
Path = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Time = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
Ranges = Annotated[list[tuple[Position, Position]], msgspec.Meta(max_length=MAX_RANGES_PER_MESSAGE)]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one file. The payload is a view of the message it came in."""

    object_id: bytes
    index: int
    offset: int
    payload: memoryview


class WireEntry(msgspec.Struct, array_like=True, frozen=True):
    """One file or folder of the object. Paths use ``/`` and begin with the object's name."""

    path: Path
    is_folder: bool
    size: Position
    mtime_ns: Time
    executable: bool


class Offer(msgspec.Struct, array_like=True, frozen=True, tag="offer"):
    """Root to leaf: an object is about to be sent; its entries follow.

    Attributes:
        object_id: Names it in every message.
        kind: What it is.
        name: What it is called.
        entries: How many entries will follow.
        version: Of the messages to come.
        digest: Kind of digest of its files; a leaf that does not know it says so and leaves.
        key: Of the digests, drawn for this run; ``b""`` for a kind without one.
    """

    object_id: ObjectId
    kind: Literal["file", "folder", "stream"]
    name: Path
    entries: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENTRIES)]
    version: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)] = 1
    digest: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "sha256"
    key: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class Entries(msgspec.Struct, array_like=True, frozen=True, tag="entries"):
    """Root to leaf: the next entries of the object, ``first`` being the number of the first."""

    object_id: ObjectId
    first: Index
    entries: Annotated[
        list[WireEntry], msgspec.Meta(min_length=1, max_length=MAX_ENTRIES_PER_MESSAGE)
    ]


class End(msgspec.Struct, array_like=True, frozen=True):
    """A file has been read to its end: its true size and digest, or why it cannot be had."""

    index: Index
    size: Position
    digest: Digest
    failure: Reason = ""


class Ends(msgspec.Struct, array_like=True, frozen=True, tag="ends"):
    """Root to leaf: these files are at their end."""

    object_id: ObjectId
    ends: Annotated[list[End], msgspec.Meta(min_length=1, max_length=MAX_ENDS_PER_MESSAGE)]


class Release(msgspec.Struct, array_like=True, frozen=True, tag="release"):
    """Root to leaf: your report has been taken; so it stands in the verdict."""

    object_id: ObjectId
    verified: bool
    reason: Reason = ""


class Abort(msgspec.Struct, array_like=True, frozen=True, tag="abort"):
    """Root to leaf: no more of this object will come from this run."""

    object_id: ObjectId
    reason: Reason = ""


class Want(msgspec.Struct, array_like=True, frozen=True, tag="want"):
    """Leaf to root: send me everything but this.

    Attributes:
        object_id: Of what.
        place: Identity of the place where the leaf keeps it, the same after a restart.
        in_order: The leaf can use bytes only in order, from the first on.
        have: Ranges of positions that it has already.
        last: No further page of this answer follows.
    """

    object_id: ObjectId
    place: ObjectId
    in_order: bool
    have: Ranges
    last: bool


class Missing(msgspec.Struct, array_like=True, frozen=True, tag="missing"):
    """Leaf to root: send these ranges of positions again."""

    object_id: ObjectId
    ranges: Ranges


class Status(msgspec.Struct, array_like=True, frozen=True, tag="status"):
    """Leaf to root: alive, so far. ``received`` and ``checked`` are bytes."""

    object_id: ObjectId
    received: Position
    checked: Position
    verifying: bool


class FailedFile(msgspec.Struct, array_like=True, frozen=True):
    """A file that did not arrive whole, and why."""

    index: Index
    reason: Reason


class Report(msgspec.Struct, array_like=True, frozen=True, tag="report"):
    """Leaf to root, its last word.

    Attributes:
        object_id: On what.
        digest: Object digest over what it has on disk (``manifest.object_digest``).
        reason: Why the leaf gave up as a whole, or ``""``.
        failed_count: How many files failed at the leaf.
        failed: The first of them.
    """

    object_id: ObjectId
    digest: Digest
    reason: Reason
    failed_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_ENTRIES)]
    failed: Annotated[list[FailedFile], msgspec.Meta(max_length=MAX_FAILED_PER_REPORT)]


Control = Offer | Entries | Ends | Release | Abort | Want | Missing | Status | Report
Message = Chunk | Control

_DECODER: Final[msgspec.msgpack.Decoder[Control]] = msgspec.msgpack.Decoder(Control)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(message: Control) -> bytes:
    """One message as bytes. Chunks are made in place, by ``put_chunk_header``."""
    return _ENCODER.encode(message)


def put_chunk_header(buffer: bytearray, at: int, object_id: bytes, index: int, offset: int) -> None:
    """Write a chunk's header into ``buffer`` from ``at`` on; the payload belongs right behind."""
    CHUNK_HEADER.pack_into(buffer, at, _CHUNK_KIND, index, offset, object_id)


def decode(data: bytes) -> Message:
    """Read one message.

    Raises:
        RemoteProtocolError: It is none, or breaks a bound. Nothing else is ever raised.
    """
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"a transfer message of {len(data)} bytes is too long")
    if data[:1] == b"\xc1":
        return _decode_chunk(data)
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a transfer message: {error}") from error


def _decode_chunk(data: bytes) -> Chunk:
    size = len(data) - CHUNK_HEADER.size
    if not 0 < size <= MAX_CHUNK:
        raise RemoteProtocolError(f"a chunk with {size} bytes of payload")
    _, index, offset, object_id = CHUNK_HEADER.unpack_from(data)
    if index >= MAX_ENTRIES or offset + size > MAX_POSITION:
        raise RemoteProtocolError(f"a chunk for file {index} at {offset} is beyond every object")
    return Chunk(object_id, index, offset, memoryview(data)[CHUNK_HEADER.size :])


def clip_reason(text: str) -> str:
    """A sentence made fit for the wire: bounded, one line, valid Unicode."""
    plain = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in plain)[:MAX_REASON]

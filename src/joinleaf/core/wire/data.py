"""Batches of messages to the buffers of DATA frames, and back.

Small messages travel as one MessagePack array per frame: packing and splitting are then one call
for hundreds of messages (measured: 7 and 15 ns a message), with no Python per message. Long ones
travel raw, header and payload as separate buffers, so that nothing is copied on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from joinleaf.core.wire.frames import (
    DATA,
    DATA_HEADER,
    DATA_HEADER_SIZE,
    DATA_PREFIX,
    HEADER,
    MAGIC,
    RAW,
    data_header,
    write_data_header,
)
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAEFAULT, WSAEMSGSIZE
from joinleaf.spi.provider import Buffer

__all__ = ["MAX_FRAME_OVERHEAD", "PackedBatch", "messages_of", "pack", "read_run", "unpack"]

RAW_FROM: Final = 8 << 10
"""Messages from this length on go raw; below, one more buffer a message costs more than a copy."""

FRAME_TARGET: Final = 120 << 10
"""A batch longer than this is cut into frames of about this size: large enough that Python per
frame is nothing, small enough that a receiver starts before the whole batch has come."""

MAX_ARRAY: Final = 160 << 10
"""No array is longer, however unequal its messages are: a receiver that takes only short messages
still takes bodies as long as a control frame's."""

MAX_FRAME_OVERHEAD: Final = 64 << 10
"""What a body may be longer than the longest message: prefix, array headers, frame target."""

_BYTES_LIKE: Final = frozenset({bytes, bytearray, memoryview})
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[bytes])


class PackedBatch:
    """A batch ready to send.

    Attributes:
        buffers: What to send, in order.
        size: Sum of their lengths in bytes.
        count: How many messages are inside.
        borrowed: Whether some buffers are the caller's memory, which must be copied before the
            call returns if they have not been sent by then.
    """

    __slots__ = ("borrowed", "buffers", "count", "size")

    def __init__(self, buffers: list[Buffer], size: int, count: int, *, borrowed: bool) -> None:
        self.buffers = buffers
        self.size = size
        self.count = count
        self.borrowed = borrowed


def pack(
    messages: Sequence[Buffer],
    *,
    sender: int,
    sequence: int,
    flags: int,
    max_message: int,
    target: int = 0,
) -> PackedBatch:
    """Make the frames for a batch.

    Args:
        messages: Bytes-like; their number is not bounded.
        sender: Leaf id, 0 for the root.
        sequence: Number of the first message.
        flags: Bits of ``Flag`` besides RAW.
        max_message: Longest message allowed, in bytes.
        target: Length of the frames that a long batch is cut into, headers included; 0: whatever
            suits a byte stream.

    Raises:
        TypeError: A message is not bytes, bytearray or memoryview.
        SpiError: WSAEMSGSIZE, or WSAEFAULT for memory that is not contiguous; nothing has been
            made.
    """
    if len(messages) == 1 and type(message := messages[0]) is bytes:
        size = len(message)
        if 0 < size < RAW_FROM and size <= max_message:
            # One small message is its own payload: half the work of an array at either end.
            frame = data_header(size, flags | RAW, sender, sequence) + message
            return PackedBatch([frame], len(frame), 1, borrowed=False)
    if not messages:
        messages = []  # an empty string of bytes is no batch, but would be encoded as a message
    types = list(map(type, messages))
    # Counting identical types is half the work of making a set of them, and the check as dear as
    # the packing.
    plain = types.count(bytes) == len(types)
    if not plain and not set(types) <= _BYTES_LIKE:
        _reject_types(messages)
        messages = [memoryview(message) for message in messages]  # the encoder knows no subclasses
    if messages and _nbytes(messages[0]) >= RAW_FROM:
        return _pack_raw(messages, sender, sequence, flags, max_message)
    limit = target or FRAME_TARGET
    # A batch that is clearly too long for one frame is not encoded as one first.
    guess = len(messages) * _encoded_size(messages[0]) if messages else 0
    if guess <= limit:
        buffer = _array(messages)
        if len(buffer) <= limit and len(buffer) <= max_message:
            write_data_header(buffer, flags, sender, sequence)
            return PackedBatch([buffer], len(buffer), len(messages), borrowed=False)
        guess = len(buffer)
    size_of = len if plain else _nbytes
    return _pack_cut(messages, guess, sender, sequence, flags, max_message, target, size_of)


def _array(messages: Sequence[Buffer]) -> bytearray:
    """Room for a header, and the messages as one array behind it."""
    buffer = bytearray(DATA_HEADER_SIZE)
    try:
        _encoder.encode_into(messages, buffer, DATA_HEADER_SIZE)
    except BufferError:
        raise _not_contiguous() from None
    return buffer


def _encoded_size(message: Buffer) -> int:
    """Length of one message as MessagePack, up to a message of 64 KiB."""
    size = _nbytes(message)
    return size + (2 if size < 256 else 3)


def _not_contiguous() -> SpiError:
    return SpiError(
        WSAEFAULT, "a message is not contiguous memory", call="send", hint="Send bytes(message)"
    )


def _nbytes(message: Buffer) -> int:
    return message.nbytes if type(message) is memoryview else len(message)


def _reject_types(messages: Sequence[Buffer]) -> None:
    for message in messages:
        if not isinstance(message, bytes | bytearray | memoryview):
            raise TypeError(
                f"a message must be bytes, bytearray or memoryview, not {type(message).__name__}; "
                "encode text first, for example text.encode()"
            )


def _check_size(size: int, max_message: int) -> None:
    if size > max_message:
        raise SpiError(
            WSAEMSGSIZE,
            f"a message of {size} bytes is over the limit of {max_message}",
            call="send",
            hint="Cut it up, use send_file, or raise max_message on both sides",
        )


def _pack_raw(
    messages: Sequence[Buffer], sender: int, sequence: int, flags: int, max_message: int
) -> PackedBatch:
    buffers: list[Buffer] = []
    total = 0
    for number, message in enumerate(messages, sequence):
        size = _nbytes(message)
        _check_size(size, max_message)
        buffers.append(data_header(size, flags | RAW, sender, number))
        buffers.append(_flat(message) if size else b"")
        total += DATA_HEADER_SIZE + size
    return PackedBatch(buffers, total, len(messages), borrowed=True)


def _flat(message: Buffer) -> memoryview:
    view = memoryview(message)
    if not view.c_contiguous:
        raise _not_contiguous()
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


_ARRAY_OVERHEAD: Final = DATA_HEADER_SIZE + 5
"""Frame header and the longest array header."""


def _pack_cut(
    messages: Sequence[Buffer],
    encoded: int,
    sender: int,
    sequence: int,
    flags: int,
    max_message: int,
    target: int,
    size_of: Callable[[Buffer], int],
) -> PackedBatch:
    """Cut a long batch into frames of about the target; long messages go raw.

    Args:
        messages: At least one.
        encoded: About how many bytes they take as one array.
        sender: As ``pack``.
        sequence: As ``pack``.
        flags: As ``pack``.
        max_message: As ``pack``.
        target: Length that no array exceeds if it can be helped; 0: about FRAME_TARGET.
        size_of: Bytes of a message; there is no Python for each if it is ``len``.
    """
    buffers: list[Buffer] = []
    total, count, start = 0, len(messages), 0
    room = (target or FRAME_TARGET) - _ARRAY_OVERHEAD
    step = max(1, count * room // encoded)
    while start < count:
        part = messages[start : start + step]
        longest = max(map(size_of, part))
        _check_size(longest, max_message)
        if longest >= RAW_FROM:
            raw = _pack_raw(part, sender, sequence + start, flags, max_message)
            buffers += [bytes(buffer) for buffer in raw.buffers]
            total += raw.size
            start += len(part)
            continue
        size = 0
        for buffer in _arrays(part, sender, sequence + start, flags, target or MAX_ARRAY):
            buffers.append(buffer)
            size += len(buffer)
        total += size
        start += len(part)
        step = max(1, len(part) * room // (size - DATA_HEADER_SIZE))  # as long as these were
    return PackedBatch(buffers, total, count, borrowed=False)


def _arrays(
    messages: Sequence[Buffer], sender: int, sequence: int, flags: int, limit: int
) -> Iterator[bytearray]:
    """One frame, or halves until each fits: an average says little about unequal messages."""
    buffer = _array(messages)
    if len(buffer) <= limit or len(messages) == 1:
        write_data_header(buffer, flags, sender, sequence)
        yield buffer
        return
    middle = len(messages) // 2
    yield from _arrays(messages[:middle], sender, sequence, flags, limit)
    yield from _arrays(messages[middle:], sender, sequence + middle, flags, limit)


def read_run(
    view: memoryview, end: int, sender: int, sequence: int, max_message: int
) -> list[bytes] | None:
    """The messages of whole frames that follow each other, if that is all there is.

    Args:
        view: Where they begin.
        end: Where they end.
        sender: Whose they have to be.
        sequence: Number that the first message has to have.
        max_message: Longest message allowed, in bytes.

    Returns:
        None if there is anything else: a part of a frame, another kind, a flag, a breach.
    """
    position, run = 0, 0
    messages: list[bytes] = []
    while end - position >= DATA_HEADER_SIZE:
        size, kind, flags, magic, whose, number = DATA_HEADER.unpack_from(view, position)
        start, position = position + DATA_HEADER_SIZE, position + HEADER.size + size
        if (
            kind != DATA
            or flags & ~RAW
            or whose != sender
            or number != sequence + run
            or magic != MAGIC
            or not start <= position <= end
        ):
            return None
        try:
            part = messages_of(flags, view[start:position], max_message)
        except RemoteProtocolError:
            return None
        if run:
            messages += part
        else:
            messages = part
        run += len(part)
    return messages if run and position == end else None


def unpack(flags: int, body: memoryview, max_message: int) -> tuple[int, int, list[bytes]]:
    """Read a DATA body.

    Returns:
        The sender's leaf id, the number of the first message, the messages.

    Raises:
        RemoteProtocolError: Not an array of byte strings, or a message over the limit.
    """
    sender, sequence = DATA_PREFIX.unpack_from(body)
    return sender, sequence, messages_of(flags, body[DATA_PREFIX.size :], max_message)


def messages_of(
    flags: int, payload: bytes | memoryview | list[bytes], max_message: int
) -> list[bytes]:
    """The messages of a DATA body without its prefix; raises as ``unpack``.

    They may have been taken apart already (``_trains.c``): then only their length is looked at.
    """
    if isinstance(payload, list):
        return _checked(payload, max_message)
    if flags & RAW:
        if len(payload) > max_message:
            raise RemoteProtocolError(f"a message of {len(payload)} bytes")
        return [payload if isinstance(payload, bytes) else bytes(payload)]
    try:
        messages = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a batch of messages: {error}") from None
    return messages if len(payload) <= max_message else _checked(messages, max_message)


def _checked(messages: list[bytes], max_message: int) -> list[bytes]:
    if (longest := max(map(len, messages), default=0)) > max_message:
        raise RemoteProtocolError(f"a message of {longest} bytes")
    return messages

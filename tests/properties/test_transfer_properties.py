"""The transfer's algebra and its parsers, for any input."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.errors import RemoteProtocolError
from joinleaf.transfer import wire
from joinleaf.transfer.assembly import Assembly
from joinleaf.transfer.digests import new_digests
from joinleaf.transfer.engine import Engine
from joinleaf.transfer.manifest import Entry, Layout, Manifest
from joinleaf.transfer.names import check_path, unsuitable
from joinleaf.transfer.plan import Plan
from joinleaf.transfer.ranges import RangeSet
from joinleaf.transfer.store import StreamStore
from joinleaf.values import Address

ID = bytes(range(16))
DIGESTS = new_digests("sha256")
POSITIONS = st.integers(0, 60)
STEPS = st.lists(st.tuples(st.booleans(), POSITIONS, POSITIONS), max_size=30)
SETS = st.lists(st.tuples(POSITIONS, POSITIONS), max_size=8)


@given(STEPS)
def test_a_range_set_is_a_set(steps: list[tuple[bool, int, int]]) -> None:
    ranges, model = RangeSet(), set[int]()
    for put, start, end in steps:
        if put:
            ranges.add(start, end)
            model.update(range(start, end))
        else:
            ranges.remove(start, end)
            model.difference_update(range(start, end))
        flat = list(ranges)
        assert {p for s, e in flat for p in range(s, e)} == model
        assert all(s < e for s, e in flat)
        assert all(flat[i][1] < flat[i + 1][0] for i in range(len(flat) - 1))
        assert ranges.total == len(model)
        assert ranges.contains(start, end) == model.issuperset(range(start, end))
        gaps = {p for s, e in ranges.missing(start, end) for p in range(s, e)}
        assert gaps == set(range(start, end)) - model
        inside, change = ranges.boundary(start)
        assert inside == (start in model)
        assert change is None or (change in model) != inside
        assert (ranges.first, ranges.last) == (
            (min(model), max(model) + 1) if model else (None, None)
        )
    assert ranges == RangeSet(ranges) == ranges.copy()


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    leaves=st.lists(st.tuples(st.integers(0, 12), SETS, st.booleans()), max_size=4),
    chunk=st.integers(1, 20),
)
def test_every_leaf_gets_exactly_what_it_lacks_and_all_is_read_once_in_order(
    sizes: list[int], leaves: list[tuple[int, list[tuple[int, int]], bool]], chunk: int
) -> None:
    entries = tuple(Entry(f"t/{n}", size=size) for n, size in enumerate(sizes))
    plan = Plan(Layout(Manifest("folder", "t", entries)), chunk)
    total, turn, read, ends = sum(sizes), 0, 0, []
    got: dict[int, list[int]] = {}
    while True:
        for key, (when, have, in_order) in enumerate(leaves):
            if when == turn or (key not in got and plan.idle):
                got[key] = []
                plan.want(key, RangeSet(have), in_order=in_order)
        while (end := plan.poll_end(total)) is not None:
            ends.append(end)
        piece = plan.poll_piece(total)
        turn += 1
        if piece is None and turn > 12:
            break
        if piece is None:
            continue
        start = plan.layout.span(piece.index)[0] + piece.offset
        assert start + piece.size <= plan.layout.span(piece.index)[1]
        assert 1 <= piece.size <= chunk
        if piece.first_pass:
            assert start == read
            read += piece.size
        for leaf in piece.to:
            assert isinstance(leaf, int)
            got[leaf].extend(range(start, start + piece.size))
    assert read == total
    assert ends == list(range(len(sizes)))
    for key, positions in got.items():
        _, have, in_order = leaves[key]
        lacking = set(range(total)) - {p for s, e in have for p in range(s, e)}
        assert len(positions) == len(set(positions))
        assert set(positions) == lacking
        if in_order:
            assert positions == sorted(positions)


POSITION = st.integers(0, wire.MAX_POSITION)
TEXT = st.text(max_size=50)
PATH = st.text(min_size=1, max_size=50)
OBJECT = st.binary(min_size=16, max_size=16)
DIGEST = st.binary(min_size=32, max_size=32)
INDEX = st.integers(0, wire.MAX_ENTRIES - 1)
RANGES = st.lists(st.tuples(POSITION, POSITION), max_size=5)
ENTRY = st.builds(
    wire.WireEntry, PATH, st.booleans(), POSITION, st.integers(-(1 << 62), 1 << 62), st.booleans()
)
CONTROL = st.one_of(
    st.builds(
        wire.Offer,
        OBJECT,
        st.sampled_from(["file", "folder", "stream"]),
        PATH,
        st.integers(1, wire.MAX_ENTRIES),
    ),
    st.builds(wire.Entries, OBJECT, INDEX, st.lists(ENTRY, min_size=1, max_size=4)),
    st.builds(
        wire.Ends,
        OBJECT,
        st.lists(st.builds(wire.End, INDEX, POSITION, DIGEST, TEXT), min_size=1, max_size=4),
    ),
    st.builds(wire.Release, OBJECT, st.booleans(), TEXT),
    st.builds(wire.Abort, OBJECT, TEXT),
    st.builds(wire.Want, OBJECT, OBJECT, st.booleans(), RANGES, st.booleans()),
    st.builds(wire.Missing, OBJECT, RANGES),
    st.builds(wire.Status, OBJECT, POSITION, POSITION, st.booleans()),
    st.builds(
        wire.Report,
        OBJECT,
        DIGEST,
        TEXT,
        st.integers(0, wire.MAX_ENTRIES),
        st.lists(st.builds(wire.FailedFile, INDEX, TEXT), max_size=4),
    ),
)


@given(CONTROL)
def test_every_message_survives_the_wire(message: wire.Control) -> None:
    assert wire.decode(wire.encode(message)) == message


@given(OBJECT, INDEX, st.integers(0, 1 << 61), st.binary(min_size=1, max_size=100))
def test_every_chunk_survives_the_wire(
    object_id: bytes, index: int, offset: int, payload: bytes
) -> None:
    buffer = bytearray(wire.CHUNK_HEADER.size)
    wire.put_chunk_header(buffer, 0, object_id, index, offset)
    assert wire.decode(bytes(buffer) + payload) == wire.Chunk(
        object_id, index, offset, memoryview(payload)
    )


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary() | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
ANY_BYTES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=100).map(lambda data: b"\xc1" + data),
    ANY_VALUE.map(msgspec.msgpack.encode),
    st.builds(
        lambda tag, rest: msgspec.msgpack.encode([tag, *rest]),
        st.sampled_from(["offer", "entries", "ends", "want", "missing", "status", "report"]),
        st.lists(ANY_VALUE, max_size=6),
    ),
)


@given(ANY_BYTES)
def test_any_bytes_are_a_message_or_a_remote_protocol_error(data: bytes) -> None:
    with suppress(RemoteProtocolError):
        wire.decode(data)


@given(st.text(max_size=40) | st.lists(st.text(max_size=4), max_size=6).map("/".join))
def test_a_path_that_passes_stays_below_its_folder(path: str) -> None:
    try:
        parts = check_path(path)
    except RemoteProtocolError:
        return
    assert "/".join(parts) == path
    assert all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    if not unsuitable(parts, windows=True):
        assert "\\" not in path
        assert ":" not in path


class Sink:
    """Takes everything, keeps nothing."""

    def write(self, data: memoryview) -> int:
        return len(data)

    def flush(self) -> None:
        pass


def known(message: wire.Control) -> bytes:
    return wire.encode(msgspec.structs.replace(message, object_id=ID))


HOSTILE = st.lists(
    st.one_of(
        ANY_BYTES,
        CONTROL.map(known),
        st.builds(
            lambda index, offset, data: wire.CHUNK_HEADER.pack(0xC1, index, offset, ID) + data,
            st.integers(0, 2),
            st.integers(0, 12),
            st.binary(min_size=1, max_size=12),
        ),
        st.builds(lambda s: known(wire.Ends(ID, [wire.End(0, s, bytes(32))])), st.integers(0, 12)),
    ),
    max_size=12,
)


@given(HOSTILE, st.booleans(), st.integers(0, 10))
def test_a_leaf_fed_anything_raises_nothing_but_remote_protocol_errors(
    messages: list[bytes], offered: bool, size: int
) -> None:
    assembly = Assembly(StreamStore(Sink()))  # type: ignore[arg-type]  # as much of a stream as is used
    if offered:
        messages = [
            *Manifest("file", "x", (Entry("x", size=size),)).messages(ID, DIGESTS),
            *messages,
        ]
    for now_ns, message in enumerate(messages):
        try:
            assembly.handle(message, now_ns)
        except RemoteProtocolError:
            assembly.give_up("protocol error")
        assembly.work()
        assembly.tick(now_ns * 10**9)
        assembly.progress(now_ns * 10**9)


class Handle:
    key = 1
    address = Address("10.0.0.1", 1)
    name = "leaf"
    incarnation = b""


@given(HOSTILE, st.integers(0, 3))
def test_a_root_fed_anything_fails_that_leaf_at_most(messages: list[bytes], pieces: int) -> None:
    engine = Engine(
        Manifest("file", "x", (Entry("x", size=10),)), ID, chunk_size=4, digests=DIGESTS
    )
    handle = Handle()
    engine.join(handle, 0)
    engine.handle(handle, wire.encode(wire.Want(ID, ID, False, [], True)), 0)
    for now_ns, message in enumerate(messages):
        for _ in range(pieces):
            engine.plan.poll_piece(10)
        if engine.plan.poll_end(10) is not None:
            engine.end_file(0, bytes(32))
        engine.handle(handle, message, now_ns)
        engine.tick(now_ns * 10**9, 10**9)
    assert len(engine.roster) == 1

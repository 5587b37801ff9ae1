"""What holds for all bytes, all batches and all bodies of the rooted protocol's wire."""

from __future__ import annotations

import itertools
import sys
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.leg import LegState
from joinleaf.core.root_session import RootSession
from joinleaf.core.session import Arrived, LegEnded, Session
from joinleaf.core.wire.control import (
    Answer,
    Leave,
    Name,
    QosBody,
    Refusal,
    Request,
    Roster,
    RosterRow,
    SessionFacts,
    decode,
    encode,
)
from joinleaf.core.wire.data import FRAME_TARGET, MAX_FRAME_OVERHEAD, RAW_FROM, pack, unpack
from joinleaf.core.wire.frames import (
    HEADER,
    MAGIC,
    MAX_CONTROL_BODY,
    FrameReader,
    Kind,
    control_frame,
    data_header,
)
from joinleaf.errors import RemoteProtocolError, SpiError
from joinleaf.spi.codes import WSAEFAULT
from joinleaf.spi.provider import Accept, JoinRole, Settings
from joinleaf.values import Address

u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
u63 = st.integers(0, (1 << 63) - 1)
identity = st.binary(min_size=16, max_size=16)
connect_data = st.binary(max_size=200)
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
roles = st.sampled_from(JoinRole)
flows = st.tuples(*[u32] * 8)
qos_bodies = st.builds(QosBody, flows, flows, connect_data)
facts = st.builds(
    SessionFacts, identity, st.integers(1, 0xFFFFFFFF), st.booleans(), st.booleans(), roles, u63
)
rows = st.builds(RosterRow, short, short, st.integers(1, 4), u63, u63, u63, short, u63)
common: dict[str, Any] = {
    "incarnation": identity,
    "role": roles,
    "dead_after_ms": st.integers(1, 1 << 32),
    "max_message": st.integers(1, 1 << 30),
    "d_root": st.booleans(),
    "data": connect_data,
    "qos": st.none() | qos_bodies,
    "name": short,
    "facts": st.none() | facts,
    "critical": st.lists(short, max_size=64),
}
bodies = st.one_of(
    st.builds(Request, versions=st.tuples(u16, u16), **common),
    st.builds(Answer, version=u16, **common),
    st.builds(Refusal, u16, short, connect_data),
    st.builds(Leave, short, connect_data),
    st.builds(Name, u32, short, u16),
    st.builds(Roster, identity, u63, st.lists(rows, max_size=5), st.lists(rows, max_size=5)),
    qos_bodies,
)
# Lengths at which something changes, and everything small.
lengths = st.one_of(
    st.integers(0, 40),
    st.integers(RAW_FROM - 2, RAW_FROM + 2),
    st.integers(FRAME_TARGET - 40, FRAME_TARGET + 2),
)
wrappers = st.sampled_from([bytes, bytearray, lambda data: memoryview(bytearray(data))])


@given(bodies)
def test_every_control_body_comes_back_as_it_was(body: msgspec.Struct) -> None:
    kind: type[Any] = type(body)
    assert decode(kind, encode(body)) == body


@given(st.binary(max_size=300), st.sampled_from([Request, Answer, Refusal, Leave, Name, Roster]))
def test_any_bytes_are_a_body_or_a_remote_protocol_error(data: bytes, kind: type[Any]) -> None:
    try:
        body = decode(kind, data)
    except RemoteProtocolError:
        return
    assert isinstance(body, kind)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(lengths, st.integers(1, 60), wrappers), max_size=6),
    u32,
    st.integers(0, 1 << 60),
    st.sampled_from([0, 2, 4]),
)
def test_a_batch_comes_back_whole_and_numbered(
    runs: list[tuple[int, int, Any]], sender: int, sequence: int, flags: int
) -> None:
    messages = [
        wrap(bytes([count]) * length)
        for length, count, wrap in runs
        for _ in range(count if length <= RAW_FROM + 2 else 1)
    ]
    limit = FRAME_TARGET + 2
    packed = pack(messages, sender=sender, sequence=sequence, flags=flags, max_message=limit)
    assert packed.count == len(messages)
    assert packed.size == sum(map(len, packed.buffers))
    reader = FrameReader(
        memoryview(bytearray(1 << 16)), max(MAX_CONTROL_BODY, limit + MAX_FRAME_OVERHEAD)
    )
    found: list[bytes] = []
    for frame in reader.feed(b"".join(packed.buffers)):
        assert frame.flags & ~1 == flags
        who, first, part = unpack(frame.flags, frame.body, limit)
        assert (who, first) == (sender, sequence + len(found))
        found += part
    assert found == [bytes(message) for message in messages]


@given(st.lists(st.binary(max_size=20), max_size=5), lengths, st.data())
def test_text_and_scattered_memory_are_refused_at_any_place(
    others: list[bytes], length: int, draw: st.DataObject
) -> None:
    place = draw.draw(st.integers(0, len(others)))
    scattered = memoryview(bytes(2 * length + 4))[::2]
    bad: Any = [*others[:place], scattered, *others[place:]]
    with pytest.raises(SpiError) as caught:
        pack(bad, sender=0, sequence=0, flags=0, max_message=1 << 20)
    assert caught.value.code == WSAEFAULT
    bad[place] = "t" * length
    with pytest.raises(TypeError, match="encode"):
        pack(bad, sender=0, sequence=0, flags=0, max_message=1 << 20)


control_frames = st.builds(
    control_frame, st.sampled_from(sorted(set(Kind) - {Kind.DATA})), st.binary(max_size=60)
)
data_frames = st.builds(
    lambda flags, sender, number, payload: (
        data_header(len(payload), flags, sender, number) + payload
    ),
    st.integers(0, 7),
    st.integers(0, 3),
    st.integers(0, 3),
    st.binary(max_size=40)
    | st.lists(st.binary(max_size=5), max_size=4).map(msgspec.msgpack.encode),
)
wild_headers = st.builds(HEADER.pack, u32, st.integers(0, 14), st.integers(0, 9), st.just(MAGIC))
streams = st.lists(
    control_frames | data_frames | wild_headers | st.binary(max_size=20), max_size=12
).map(b"".join)


def cut(reader: FrameReader, pieces: list[bytes]) -> tuple[list[tuple[int, int, bytes]], bool]:
    found: list[tuple[int, int, bytes]] = []
    fed = 0
    try:
        for piece in pieces:
            fed += len(piece)
            found.extend((f.kind, f.flags, bytes(f.body)) for f in reader.feed(piece))
            assert sys.getsizeof(reader._own) <= fed * 9 // 8 + 200
    except RemoteProtocolError:
        return found, True
    return found, False


@given(streams, st.data())
def test_the_same_frames_however_the_stream_is_cut(stream: bytes, draw: st.DataObject) -> None:
    places = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *places, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    scratch = memoryview(bytearray(256))
    assert cut(FrameReader(scratch), pieces) == cut(FrameReader(scratch), [stream])


HERE, THERE = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
JOIN = Request((1, 1), bytes(16), JoinRole.BOTH, 10_000, 1 << 16)
FACTS = SessionFacts(bytes(16), 1, True, True, JoinRole.BOTH)
INVITE = msgspec.structs.replace(JOIN, facts=FACTS)
valid_frames = st.one_of(
    bodies.map(lambda body: control_frame(_KIND_OF[type(body)], encode(body))),
    st.just(control_frame(Kind.JOIN, encode(JOIN))),
    st.just(control_frame(Kind.INVITE, encode(INVITE))),
    st.just(control_frame(Kind.ACCEPT, encode(Answer(1, bytes(16), 9000, 99, facts=FACTS)))),
    control_frames,
    data_frames,
)
_KIND_OF: dict[type, Kind] = {
    Request: Kind.JOIN,
    Answer: Kind.ACCEPT,
    Refusal: Kind.REFUSE,
    Leave: Kind.LEAVE,
    Name: Kind.NAME,
    Roster: Kind.ROSTER,
    QosBody: Kind.QOS,
}


def feed(session: Session, key: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest and session.legs[key].association.state is not LegState.ENDED:
        place = session.legs[key].association.reader.buffer()
        count = min(len(place), len(rest))
        place[:count] = rest[:count]
        session.received(key, count, 0, 0)
        rest = rest[count:]


def enter(root: RootSession, key: int) -> None:
    root.connection_opened(key, THERE, HERE, 0)
    feed(root, key, control_frame(Kind.JOIN, encode(JOIN)))
    root.offer()
    root.admit(key, Accept())


@given(
    st.lists(valid_frames, max_size=8),
    st.booleans(),
    st.sampled_from(["stranger", "member", "invited"]),
    st.booleans(),
)
def test_no_sequence_of_frames_disturbs_the_other_legs_of_a_root(
    sequence: list[bytes], rooted: bool, hostile: str, admit: bool
) -> None:
    root = RootSession(
        Settings(max_message=1 << 16),
        session_id=bytes(16),
        incarnation=bytes(16),
        rooted=rooted,
        d_root=rooted,
    )
    enter(root, 1)
    if hostile == "member":
        enter(root, 2)
    elif hostile == "invited":
        root.invite(2, THERE, HERE, 0, data=b"", qos=None, deadline_ns=None)
        root.connected(2, 0)
    else:
        root.connection_opened(2, THERE, HERE, 0)
    for frame in sequence:
        feed(root, 2, frame)
        if admit and root.offer():
            with suppress(SpiError):  # a second data root; refused, and the peer told
                root.admit(2, Accept())
    root.out.clear()
    feed(root, 1, data_header(1, 1, 0, 0) + b"m")
    assert [type(event) for event in root.out] == [Arrived]
    assert root.legs[1].association.active
    assert 1 in root.members
    assert set(root.listeners(root.myself)) <= {1, 2}
    before = root.legs[1].association.outbox.size
    root.send([b"x"], 0)
    assert root.legs[1].association.outbox.size > before


@given(st.lists(valid_frames, max_size=8), st.booleans(), st.booleans())
def test_no_sequence_of_frames_makes_a_leaf_raise(
    sequence: list[bytes], invited: bool, admit: bool
) -> None:
    leaf = LeafSession(Settings(max_message=1 << 16), incarnation=bytes(16), d_root=False)
    if invited:
        leaf.connection_opened(1, HERE, THERE, 0)
    else:
        leaf.join(
            1, HERE, THERE, 0, data=b"", qos=None, role=JoinRole.BOTH, deadline_ns=None
        )  # fmt: skip
        leaf.connected(1, 0)
    for frame in sequence:
        feed(leaf, 1, frame)
        if invited and admit and leaf.offer():
            leaf.admit(1, Accept())
            leaf.adopt(1, leaf.legs[1])
    assert sum(isinstance(event, LegEnded) for event in leaf.out) <= 1

"""What goes straight from the socket to the caller is what the ordinary way would have brought."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.conftest import WALL_NS, Hub, feed

from joinleaf.core.session import Arrived, Session
from joinleaf.core.wire.data import pack
from joinleaf.core.wire.frames import DIRECT, SIDE, Kind, control_frame
from joinleaf.spi.provider import JoinRole

MESSAGES = st.lists(st.binary(max_size=40), max_size=4)

WORDS: st.SearchStrategy[tuple[int, list[bytes]]] = st.one_of(
    st.tuples(st.sampled_from((0, 0, 0, SIDE, DIRECT)), MESSAGES),
    st.just((-1, [])),  # a sign of life
)


def words_of(sender: int, words: list[tuple[int, list[bytes]]]) -> bytes:
    """Frames as that member sends them."""
    out, sequence = b"", 0
    for flags, messages in words:
        if flags < 0:
            out += control_frame(Kind.BEAT)
            continue
        number = 0 if flags else sequence
        batch = pack(messages, sender=sender, sequence=number, flags=flags, max_message=1 << 20)
        out += b"".join(bytes(buffer) for buffer in batch.buffers)
        sequence += 0 if flags else len(messages)
    return out


def straight(session: Session, key: int, data: bytes, got: list[tuple[bool, bytes, int]]) -> None:
    """Hand bytes to a leg as a driver does that tries the short way first."""
    place = session.legs[key].association.reader.buffer()
    place[: len(data)] = data
    batch = session.straight(key, len(data), 0, WALL_NS)
    if batch is None:
        session.received(key, len(data), 0, WALL_NS)
        take(session, got)
    else:
        assert not session.out
        got += [(batch.side, m, batch.sequence + n) for n, m in enumerate(batch.messages)]


def take(session: Session, got: list[tuple[bool, bytes, int]]) -> None:
    """What the ordinary way has brought."""
    for output in session.out:
        if isinstance(output, Arrived):
            batch = output.batch
            for number, message in enumerate(batch.messages):
                first = batch.sequence
                got.append((batch.side, message, first + number if first >= 0 else first))
    session.out.clear()


@given(st.lists(WORDS, max_size=8), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_both_ways_bring_the_same(
    words: list[tuple[int, list[bytes]]], cuts: list[int], at_root: bool
) -> None:
    found = []
    for short in (False, True):
        hub = Hub()
        key = hub.join()
        session: Session = hub.root if at_root else hub.leaves[key]
        leg = key if at_root else 1
        sender = hub.leaves[key].myself.key if at_root else 0
        if at_root:  # who sends in no plane but its own
            words = [(flags if flags != DIRECT else 0, messages) for flags, messages in words]
        data = words_of(sender, words)
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        got: list[tuple[bool, bytes, int]] = []
        for begin, end in pairwise(places):
            if short:
                straight(session, leg, data[begin:end], got)
            else:
                feed(session, leg, data[begin:end])
                take(session, got)
        side = [message for flags, part in words if flags == SIDE for message in part]
        plain = [message for flags, part in words if flags in (0, DIRECT) for message in part]
        assert [message for aside, message, _ in got if aside] == side
        assert [message for aside, message, _ in got if not aside] == plain
        found.append((got, session.legs[leg].expected, session.counters.get("messages_received")))
    assert found[0] == found[1]


def joined() -> tuple[Hub, int]:
    """A leaf that has heard its first message: before, its numbers are not known."""
    hub = Hub()
    key = hub.join()
    hub.root.send([b"first"], 0)
    hub.leaves[key].send(1, [b"first"])
    hub.pump()
    hub.taken()
    return hub, key


def test_the_next_message_goes_straight_at_both_ends() -> None:
    hub, key = joined()
    for session, leg, sender in (
        (hub.root, key, hub.leaves[key].myself.key),
        (hub.leaves[key], 1, 0),
    ):
        frame = b"".join(
            map(bytes, pack([b"x"], sender=sender, sequence=1, flags=0, max_message=9).buffers)
        )
        session.legs[leg].association.reader.buffer()[: len(frame)] = frame
        batch = session.straight(leg, len(frame), 7, WALL_NS)
        assert batch is not None
        assert (batch.messages, batch.sequence, batch.time_ns) == ([b"x"], 1, WALL_NS)
        assert session.legs[leg].association.heard_ns == 7


@pytest.mark.parametrize(
    ("sequence", "sender", "flags", "message"),
    [(2, 0, 0, b"x"), (0, 0, 0, b"x"), (1, 9, 0, b"x"), (1, 0, SIDE, b"x"), (1, 0, DIRECT, b"x")],
)
def test_what_is_not_the_next_message_changes_nothing(
    sequence: int, sender: int, flags: int, message: bytes
) -> None:
    hub, key = joined()
    leaf = hub.leaves[key]
    batch = pack([message], sender=sender, sequence=sequence, flags=flags, max_message=9)
    frame = b"".join(map(bytes, batch.buffers))
    leaf.legs[1].association.reader.buffer()[: len(frame)] = frame
    before = dict(leaf.legs[1].expected), dict(leaf.counters)
    assert leaf.straight(1, len(frame), 7, WALL_NS) is None
    assert (leaf.legs[1].expected, leaf.counters) == before
    assert leaf.legs[1].association.heard_ns == 0


def test_what_others_are_to_hear_as_well_does_not_go_straight() -> None:
    hub = Hub(rooted=False, d_root=False)
    key, _ = hub.join(), hub.join()
    leaf = hub.leaves[key]
    leaf.send(1, [b"first"])
    hub.pump()
    hub.taken()
    batch = pack([b"x"], sender=leaf.myself.key, sequence=1, flags=0, max_message=9)
    frame = b"".join(map(bytes, batch.buffers))
    hub.root.legs[key].association.reader.buffer()[: len(frame)] = frame
    assert hub.root.straight(key, len(frame), 0, WALL_NS) is None


def test_who_only_sends_hears_nothing_straight() -> None:
    hub = Hub()
    key = hub.join(role=JoinRole.SENDER_ONLY)
    leaf = hub.leaves[key]
    frame = b"".join(map(bytes, pack([b"x"], sender=0, sequence=0, flags=0, max_message=9).buffers))
    leaf.legs[1].association.reader.buffer()[: len(frame)] = frame
    assert leaf.straight(1, len(frame), 0, WALL_NS) is None

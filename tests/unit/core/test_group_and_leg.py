"""Between the group and the leg: who is put out or on its leg, and hears the group first."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from joinleaf.core.leaf_carriage import GATE_ENTRIES
from joinleaf.core.leaf_session import LeafSession
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import STALL_NS, StreamSender
from joinleaf.core.root_carriage import Cause, FellBack, RootCarriage
from joinleaf.core.session import Arrived, LegEnded, Output
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.units import Layout
from joinleaf.spi.provider import EndReason

from .conftest import SECOND, WALL_NS, Hub

NONCE = bytes(16)


@dataclass
class GroupHub(Hub):
    """A nonrooted session with a group that loses nothing; the legs in ``still`` stand still."""

    rooted: bool = False
    still: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        facts = GroupFacts("239.255.1.1", 7401, "", 7, NONCE, 1 << 20)
        self.carriage = RootCarriage(facts, StreamSender(Layout(1180), tag=7))
        self.root.carriage = self.carriage

    def pump(self) -> None:
        everybody = self.leaves
        self.leaves = {key: leaf for key, leaf in everybody.items() if key not in self.still}
        super().pump()
        self.leaves = everybody

    def taken(self) -> list[Output]:
        """Of the root; what the leaves are given is kept, joins or not."""
        found = list(self.root.out)
        self.root.out.clear()
        return found

    def on_group(self) -> int:
        """One more leaf, which the group serves."""
        key = self.join()
        receiver = StreamReceiver(tag=7, window_bytes=1 << 20, probe=NONCE)
        self.leaves[key].hear_group(1, receiver, None)
        self.flow()
        assert key in self.carriage.on_group
        return key

    def flow(self) -> None:
        """The group brings what it has, and the reports go back."""
        self.now_ns += SECOND // 10
        hear = [leaf for leaf in self.leaves.values() if leaf.stream is not None]
        while (train := self.carriage.poll_transmit(self.now_ns)) is not None:
            for leaf in hear:
                assert leaf.stream is not None
                view = memoryview(train.buffer)
                leaf.stream.receiver.handle_train(view, train.segment, self.now_ns)
        for leaf in hear:
            leaf.group_received(self.now_ns, WALL_NS)
        self.pump()

    def say(self, key: int, message: bytes) -> None:
        self.leaves[key].send(1, [message])
        self.pump()
        self.flow()


def told(leaf: LeafSession) -> list[tuple[int, list[bytes]]]:
    """Numbers and messages that a leaf has been given."""
    batches = [event.batch for event in leaf.out if isinstance(event, Arrived)]
    assert not any(batch.gap for batch in batches)
    return [(batch.sequence, batch.messages) for batch in batches]


def three() -> tuple[GroupHub, int, int, int]:
    """One that is to lose the group, one that stays on it, and one that has none."""
    hub = GroupHub()
    lost, other, apart = hub.on_group(), hub.on_group(), hub.join()
    hub.still.add(lost)
    return hub, lost, other, apart


def go_on_without_it(hub: GroupHub, other: int, apart: int) -> None:
    """What one says goes by legs alone, as nobody else is on the group; then by the group."""
    hub.say(other, b"by legs alone")
    assert not hub.carriage.sender.counters["units"]
    hub.say(apart, b"by the group")
    hub.on_group()
    hub.say(other, b"by the group, later")
    assert hub.heard(apart) == [b"by legs alone", b"by the group, later"]


def test_one_that_is_out_hears_no_more_of_the_group() -> None:
    hub, lost, other, apart = three()
    leaf = hub.leaves[lost]
    hub.root.close_leg(lost, EndReason.EXPELLED, b"", hub.now_ns, SECOND)
    go_on_without_it(hub, other, apart)
    assert told(leaf) == []
    assert leaf.stream is not None
    assert leaf.stream.ended
    hub.still.clear()
    hub.pump()
    [end] = [event for event in leaf.out if isinstance(event, LegEnded)]
    assert end.reason is EndReason.EXPELLED
    assert told(leaf) == []


def test_one_that_is_put_on_its_leg_hears_there_what_it_did_not_hear_by_the_group() -> None:
    hub, lost, other, apart = three()
    leaf = hub.leaves[lost]
    hub.root.demote(lost, hub.now_ns)
    go_on_without_it(hub, other, apart)
    assert told(leaf) == []
    hub.still.clear()
    hub.pump()
    assert hub.heard(lost) == [b"by legs alone", b"by the group", b"by the group, later"]


def test_one_that_was_on_its_leg_for_a_while_is_not_held_up_by_what_was_said_then() -> None:
    hub, lost, other, apart = three()
    hub.still.clear()
    for on_leg in (b"nothing was sent meanwhile", b"something was"):
        hub.root.demote(lost, hub.now_ns)
        hub.pump()
        if on_leg == b"something was":
            hub.say(apart, on_leg)
        hub.now_ns += 11 * SECOND
        hub.flow()
        hub.flow()
        assert lost in hub.carriage.on_group
        hub.leaves[lost].out.clear()
        hub.leaves[other].out.clear()
        hub.say(apart, b"for all")
        assert hub.heard(lost) == hub.heard(other) == [b"for all"]


def test_a_closed_gate_is_not_read_again_where_others_have_landed_since() -> None:
    """One long enough to stay where it was received; what is behind it uses that place."""
    hub = GroupHub()
    waits = hub.on_group()
    hub.still.add(waits)
    leaf = hub.leaves[waits]
    assert leaf.stream is not None
    hub.root.send([b"for it alone"], hub.now_ns, [waits])
    hub.root._gates.update(dict.fromkeys(range(10_000, 12_000), 0))
    said = [bytes([65 + number]) * 50_000 for number in range(4)]
    for message in said:
        hub.root.send([message], hub.now_ns)
        while (train := hub.carriage.poll_transmit(hub.now_ns)) is not None:
            landing = leaf.stream.landings.take()
            landing.fill(train.buffer, train.segment)
            if not leaf.stream.handle_landing(landing, hub.now_ns):
                leaf.stream.landings.free(landing)
            leaf.group_received(hub.now_ns, WALL_NS)
    assert told(leaf) == []
    hub.still.clear()
    hub.pump()
    assert hub.heard(waits) == [b"for it alone", *said]


def test_who_has_lost_its_leg_keeps_nothing_of_what_the_group_goes_on_bringing() -> None:
    hub = GroupHub()
    lost = hub.on_group()
    hub.on_group()
    leaf = hub.leaves[lost]
    assert leaf.stream is not None
    leaf.lost(1, hub.now_ns)
    for number in range(20):
        hub.root.send([bytes([number]) * 1000] * 40, hub.now_ns)
        while (train := hub.carriage.poll_transmit(hub.now_ns)) is not None:
            landing = leaf.stream.landings.take()
            landing.fill(train.buffer, train.segment)
            leaf.stream.handle_landing(landing, hub.now_ns)
            leaf.group_received(hub.now_ns, WALL_NS)
            assert not leaf.stream.taken()
    assert told(leaf) == []


def test_a_group_that_has_lost_its_last_leaf_is_no_sign_of_life() -> None:
    hub, lost, _, _ = three()
    leaf = hub.leaves[lost]
    hub.root.close_leg(lost, EndReason.EXPELLED, b"", hub.now_ns, SECOND)
    hub.root.send([b"for who is left"], hub.now_ns)
    hub.flow()
    heard_ns = leaf.legs[1].association.heard_ns
    hub.flow()
    assert leaf.legs[1].association.heard_ns == heard_ns


def test_who_has_left_is_remembered_only_in_bounded_numbers() -> None:
    hub, lost, other, apart = three()
    hub.root._gates.update(dict.fromkeys(range(1000, 1000 + GATE_ENTRIES - 1), 0))
    hub.root.close_leg(lost, EndReason.EXPELLED, b"", hub.now_ns, SECOND)
    assert not hub.root._gates
    assert hub.carriage.sender.next_unit == 1, "a GATE of its own"
    hub.root._gates.update(dict.fromkeys(range(1000, 1000 + GATE_ENTRIES - 1), 0))
    hub.root.close_leg(other, EndReason.EXPELLED, b"", hub.now_ns, SECOND)
    assert not hub.root._gates
    assert hub.carriage.sender.next_unit == 2, "a unit that is never sent"
    hub.say(apart, b"to the root alone")
    assert hub.leaves[lost].stream is not None
    assert told(hub.leaves[lost]) == told(hub.leaves[other]) == []


@pytest.mark.parametrize(("read", "cause"), [(True, Cause.DIED), (False, Cause.UNREAD)])
def test_one_whose_leg_is_not_read_is_not_said_to_have_lost_the_group(
    read: bool, cause: Cause
) -> None:
    hub, lost, other, apart = three()
    hub.say(apart, b"reported by one of two")
    hub.root.legs[lost].association.reading_ns = 0 if read else None
    hub.now_ns += STALL_NS + SECOND
    hub.root.tick_group(hub.now_ns)
    assert hub.carriage.events == [FellBack(lost, cause)]
    assert list(hub.carriage.on_group) == [other]

"""Who holds a stream up, and how it goes on without them: sender, carriage, receiver."""

from __future__ import annotations

import pytest

from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import PATIENCE_NS, STALL_NS, StreamSender
from joinleaf.core.root_carriage import Carrier, RootCarriage
from joinleaf.core.wire.control import GroupFacts
from joinleaf.core.wire.frames import HEADER, Kind, control_frame
from joinleaf.core.wire.reports import NO_UNIT, Report, decode_unit, report_frame
from joinleaf.core.wire.units import UNIT_OVERHEAD, Layout
from joinleaf.errors import RemoteProtocolError

MS = 1_000_000
LAYOUT = Layout(1180)
UNIT = LAYOUT.segment * LAYOUT.symbols + UNIT_OVERHEAD
FRAME = control_frame(Kind.NAME, bytes(LAYOUT.unit_bytes - HEADER.size))


def new_sender(window_bytes: int = 1 << 20) -> StreamSender:
    window = CongestionWindow(ceiling=window_bytes, symbol_bytes=LAYOUT.segment, unit_bytes=UNIT)
    return StreamSender(LAYOUT, tag=7, window_bytes=window_bytes, congestion=window)


def send_all(sender: StreamSender, now_ns: int) -> None:
    while sender.poll_transmit(now_ns) is not None:
        pass


def report(ack: int, window: int = 4 << 20) -> memoryview:
    told = Report(ack, ack, NO_UNIT, 0, window, heard=False, synced=False, serial=0, entries=())
    return memoryview(report_frame(told))[HEADER.size :]


def filled() -> StreamSender:
    """A stream with two leaves that stands still: one takes everything, the other nothing."""
    sender = new_sender()
    for key in (1, 2):
        sender.add_leaf(key, 4 << 20, 0)
    for _ in range(200):
        sender.begin([FRAME], len(FRAME))
        send_all(sender, MS)
        sender.handle_report(1, report(sender._sent), MS)
    assert sender.pending_bytes
    return sender


def test_who_holds_up_a_stream_that_congestion_control_holds_is_named() -> None:
    sender = filled()
    assert sender._sent_bytes < 1 << 20, "the window of the stream has room"
    assert sender.blocking() == [2]


def test_one_that_only_has_to_take_what_came_at_once_is_not_slow_before_its_time() -> None:
    sender = filled()
    carriage = new_carriage(sender)
    assert carriage.blocking(2 * MS, urgent=False) == []
    assert carriage.blocking(2 * MS, urgent=True) == [2]
    late = MS + PATIENCE_NS
    assert carriage.blocking(late, urgent=False) == [2]
    sender.remove_leaf(2)
    sender.handle_report(1, report(sender._sent), late)
    send_all(sender, late)
    assert carriage.blocking(late + MS, urgent=False) == []


def new_carriage(sender: StreamSender) -> RootCarriage:
    return RootCarriage(GroupFacts("239.255.1.1", 7401, "", 7, bytes(16), 1 << 20), sender)


def test_one_that_is_silent_is_waited_for_no_longer_until_it_says_something() -> None:
    sender = filled()
    late = MS + PATIENCE_NS
    assert sender.skip(2, late) is None
    send_all(sender, late)
    assert sender.blocking() != [2]
    assert sender.waits_ns(2, late) == 0
    sender.begin([FRAME], len(FRAME))
    sender.handle_report(2, report(0), late + MS)
    word = sender.poll_leg()
    assert word is not None
    key, frame = word
    assert key == 2
    assert decode_unit(memoryview(frame)[HEADER.size :]) == sender.next_unit


def test_one_that_has_just_said_something_goes_on_with_the_next_batch() -> None:
    sender = filled()
    sender.handle_report(2, report(1), 50 * MS)
    frame = sender.skip(2, 60 * MS)
    assert frame is not None
    assert decode_unit(memoryview(frame)[HEADER.size :]) == sender.next_unit


def test_one_that_was_set_aside_and_stays_silent_has_lost_the_group() -> None:
    sender = filled()
    late = MS + PATIENCE_NS
    sender.skip(2, late)
    sender.handle_report(1, report(sender._sent), late)
    assert sender.stalled(STALL_NS - MS) == {}
    assert sender.stalled(STALL_NS) == {2: True}
    sender.remove_leaf(1)
    due = sender.next_deadline_ns()
    assert due is not None
    assert due <= STALL_NS


def test_a_skip_that_is_written_late_says_where_the_messages_stood_then() -> None:
    sender = new_sender()
    carriage = new_carriage(sender)
    carriage.begin([FRAME], 0)  # meets nobody, and is not queued
    sender.add_leaf(1, 4 << 20, 0)
    for number in (1, 2, 3):
        carriage.begin([FRAME], number)
    assert [carriage.stands_at(unit, 4) for unit in range(4)] == [1, 2, 3, 4]
    assert carriage.carrier(1) is Carrier.LEG


def test_a_skip_that_the_group_has_overtaken_changes_nothing() -> None:
    receiver = StreamReceiver(tag=7, window_bytes=1 << 20)
    with pytest.raises(RemoteProtocolError):
        receiver.skip(3)
    receiver.start(5)
    assert receiver.skip(5) is False
    assert receiver.skip(4) is False
    assert receiver.skip(6) is True
    assert receiver.counters["skipped_units"] == 1

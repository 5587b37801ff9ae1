"""Parity symbols at both ends of a stream."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.reliability.sender import (
    CREDIT_MOST,
    MAX_TOLD,
    REORDER_NS,
    StreamSender,
    Train,
)
from joinleaf.core.wire.frames import HEADER as FRAME
from joinleaf.core.wire.frames import RAW, data_header
from joinleaf.core.wire.landing import Landing
from joinleaf.core.wire.reports import (
    BY_LEG,
    MAX_ENTRIES,
    NO_UNIT,
    Report,
    Timing,
    decode_report,
    report_frame,
    sync_body,
)
from joinleaf.core.wire.units import (
    ALL,
    DATA,
    HEADER,
    HEADER_SIZE,
    MAX_PARTS,
    REPAIR,
    SYNC,
    UNIT_OVERHEAD,
    XOR,
    Layout,
    exclusive_or,
    parity_header,
    write_unit,
)

TAG = 0x5EED5EED
SEGMENT = 64
LAYOUT = Layout(SEGMENT)
WINDOW = 1 << 20
MS = 1_000_000


def unit_of(count: int, last: int, seed: int = 0) -> bytes:
    """A payload of ``count`` symbols, the last of ``last`` bytes."""
    return random.Random(seed).randbytes(LAYOUT.payload * (count - 1) + last)


def symbols_of(payload: bytes, number: int = 0) -> list[bytes]:
    image = write_unit(LAYOUT, TAG, 0, number, payload)
    return [image[at : at + SEGMENT] for at in range(0, len(image), SEGMENT)]


def parity_of(symbols: list[bytes], parts: int, number: int = 0) -> bytes:
    payloads = [one[HEADER_SIZE:] for at, one in enumerate(symbols) if parts >> at & 1]
    header = parity_header(TAG, 0, len(symbols), number, parts)
    return header + exclusive_or(payloads, LAYOUT.payload)


def listener() -> StreamReceiver:
    receiver = StreamReceiver(tag=TAG, window_bytes=WINDOW)
    receiver.start(0)
    return receiver


def hear(receiver: StreamReceiver, *datagrams: bytes) -> None:
    for datagram in datagrams:
        receiver.handle_train(memoryview(bytearray(datagram)), len(datagram), MS)


def held(receiver: StreamReceiver) -> int:
    return sum(one.size + UNIT_OVERHEAD for one in receiver._held.values())


def by_leg(receiver: StreamReceiver) -> bool:
    """Whether the unit is asked for over the leg."""
    frame = receiver.poll_report(receiver.next_deadline_ns() or MS)
    assert frame is not None
    entries = decode_report(memoryview(frame)[FRAME.size :]).entries
    return [entry[2] for entry in entries] == [BY_LEG]


# A leaf


@pytest.mark.parametrize("lost", range(5))
def test_a_symbol_that_is_missing_is_recovered_and_the_unit_delivered(lost: int) -> None:
    payload = unit_of(5, LAYOUT.payload)
    symbols = symbols_of(payload)
    receiver = listener()
    hear(receiver, *symbols[:lost], *symbols[lost + 1 :], parity_of(symbols, 0b11111))
    assert receiver.take() == [payload]
    assert receiver.counters["recovered"] == 1
    assert held(receiver) == receiver._held_bytes == 0


def test_parts_are_found_in_a_train_with_holes_however_it_came() -> None:
    payload = unit_of(20, 7)
    symbols = symbols_of(payload)
    receiver = listener()
    train = b"".join(symbols[:3] + symbols[4:9] + symbols[10:])
    receiver.handle_train(memoryview(bytearray(train)), SEGMENT, MS)
    both = parity_of(symbols, 1 << 3 | 1 << 7) + parity_of(symbols, 1 << 2 | 1 << 9 | 1 << 18)
    receiver.handle_train(memoryview(bytearray(both)), SEGMENT, MS)
    assert receiver.take() == [payload]


def test_a_combination_of_what_is_here_is_a_duplicate() -> None:
    symbols = symbols_of(unit_of(5, 9))
    receiver = listener()
    hear(receiver, *symbols[:4], parity_of(symbols, 0b1111))
    assert receiver.counters["duplicates"] == 1
    hear(receiver, symbols[4], parity_of(symbols, 0b1111))  # it has been delivered
    assert receiver.counters["duplicates"] == 2
    assert len(receiver.take()) == 1


def test_a_combination_of_which_two_are_missing_is_not_kept() -> None:
    payload = unit_of(5, 9)
    symbols = symbols_of(payload)
    receiver = listener()
    hear(receiver, *symbols[2:])
    before = receiver._held_bytes
    for _ in range(1000):
        hear(receiver, parity_of(symbols, 0b111))
    assert receiver.counters["useless"] == 1000
    assert receiver._held_bytes == before == held(receiver)
    hear(receiver, symbols[0], parity_of(symbols, 0b111))
    assert receiver.take() == [payload]


def test_a_combination_of_a_unit_of_which_nothing_came_makes_no_record() -> None:
    receiver = listener()
    for number in range(100):
        hear(receiver, parity_of(symbols_of(unit_of(5, 9)), 0b11, number))
    assert receiver._held == {}
    assert receiver.counters["useless"] == 100


@pytest.mark.parametrize("size", [1, LAYOUT.payload - 1, LAYOUT.payload + 1, 1000])
@pytest.mark.parametrize("here", [[0], [0, 2, 3], [4]], ids=["first", "most", "last"])
def test_a_combination_of_another_length_is_not_believed(size: int, here: list[int]) -> None:
    symbols = symbols_of(unit_of(5, LAYOUT.payload))
    receiver = listener()
    hear(receiver, *(symbols[at] for at in here))
    parts = 1 << here[0] | 1 << 1
    hear(receiver, parity_header(TAG, 0, 5, 0, parts) + bytes(size))
    assert receiver.counters["conflicts"] == 1
    assert receiver._held_bytes == held(receiver) == UNIT_OVERHEAD
    assert by_leg(receiver)


def test_a_combination_with_a_short_last_symbol_is_not_believed() -> None:
    symbols = symbols_of(unit_of(5, 9))
    receiver = listener()
    hear(receiver, *symbols[1:], parity_header(TAG, 0, 5, 0, 0b10001) + bytes(LAYOUT.payload))
    assert receiver.counters["conflicts"] == 1
    assert by_leg(receiver)


def test_a_combination_that_says_another_count_is_not_believed() -> None:
    symbols = symbols_of(unit_of(5, 9))
    receiver = listener()
    hear(receiver, *symbols[1:], parity_header(TAG, 0, 6, 0, 0b11) + bytes(LAYOUT.payload))
    assert receiver.counters["conflicts"] == 1
    assert by_leg(receiver)


def test_too_many_parts_are_refused_before_any_work() -> None:
    symbols = symbols_of(unit_of(20, 9))
    receiver = listener()
    hear(receiver, *symbols[1:])
    hear(receiver, parity_header(TAG, 0, 20, 0, (1 << MAX_PARTS + 1) - 1) + bytes(48))
    assert receiver.counters["malformed"] == 1


# A unit that is sent again as it was


def landed(receiver: StreamReceiver, image: bytes, now: int = MS) -> bool:
    """What a driver does; whether the landing was kept."""
    landing = Landing()
    landing.fill(image, LARGE.segment)
    return receiver.handle_landing(landing, now)


LARGE = Layout(1452)


def large(number: int, kind: int = DATA) -> tuple[bytes, bytes]:
    """A unit's payload and image, long enough for a landing to be kept."""
    payload = random.Random(number).randbytes(LARGE.unit_bytes)
    return payload, write_unit(LARGE, TAG, 0, number, payload, kind)


def test_a_unit_that_comes_again_closes_the_hole_where_it_lies() -> None:
    receiver = listener()
    assert landed(receiver, large(1)[1])
    assert landed(receiver, large(0, REPAIR)[1])
    units = receiver.take()
    assert [unit.joined() for unit in units if not isinstance(unit, bytes)] == [
        large(0)[0],
        large(1)[0],
    ]
    assert receiver.counters["repaired"] == LARGE.symbols
    assert receiver._held_bytes == held(receiver) == 0


@pytest.mark.parametrize("kind", [DATA, REPAIR])
def test_when_the_last_hole_is_closed_in_order_nothing_is_reported_any_more(kind: int) -> None:
    """The end of a stream, of which a SYNC told; what comes then is delivered as it comes."""
    receiver = StreamReceiver(tag=TAG, window_bytes=64 * 65_000)
    receiver.start(0, Timing(0, 0, 10_000, 1))
    assert landed(receiver, large(0)[1])
    sync = HEADER.pack(TAG, SYNC, 0, 255, 0, 2) + sync_body(Timing(0, 0, 10_000, 1))
    receiver.handle_train(memoryview(sync), len(sync), 2 * MS)
    now = asks(receiver, 2 * MS)
    assert landed(receiver, large(1, kind)[1], now + MS)
    assert len(receiver.take()) == 2
    while (due := receiver.next_deadline_ns()) is not None:
        frame = receiver.poll_report(due)
        assert frame is not None
        assert decode_report(memoryview(frame)[FRAME.size :]).ack == 2
        assert due < now + 5 * MS, "it goes on and on"
    assert receiver.counters["repaired"] == (LARGE.symbols if kind == REPAIR else 0)
    assert receiver._repair_ns == MS


def test_a_unit_that_comes_again_behind_another_hole_is_held() -> None:
    receiver = listener()
    assert landed(receiver, large(2)[1])
    assert landed(receiver, large(1, REPAIR)[1])
    assert receiver.take() == []
    assert landed(receiver, large(0, REPAIR)[1])
    assert len(receiver.take()) == 3


@pytest.mark.parametrize("kind", [DATA, REPAIR])
def test_a_unit_that_comes_again_for_others_is_not_looked_at(kind: int) -> None:
    receiver = listener()
    assert landed(receiver, large(0)[1])
    assert landed(receiver, large(2)[1])
    assert not landed(receiver, large(0, kind)[1])
    assert not landed(receiver, large(2, kind)[1])
    receiver.handle_train(memoryview(large(0, kind)[1]), LARGE.segment, MS)
    assert receiver.counters["duplicates"] == 3 * LARGE.symbols
    assert len(receiver.take()) == 1
    assert receiver._held_bytes == held(receiver)


def test_a_unit_that_comes_again_is_no_measure_of_the_round_trip() -> None:
    receiver = listener()
    assert landed(receiver, large(0)[1], MS)
    assert landed(receiver, large(1, REPAIR)[1], 9 * MS)
    assert landed(receiver, large(2)[1], 10 * MS)
    frame = receiver.poll_report(20 * MS)
    assert frame is not None
    report = decode_report(memoryview(frame)[FRAME.size :])
    assert (report.ack, report.echo, report.delay_us) == (3, 2, 10_000)
    assert landed(receiver, large(3, REPAIR)[1], 30 * MS)
    receiver._report_due = 30 * MS
    frame = receiver.poll_report(40 * MS)
    assert frame is not None
    report = decode_report(memoryview(frame)[FRAME.size :])
    assert (report.ack, report.echo, report.delay_us) == (4, 2, 30_000)


def test_no_more_is_kept_ready_than_the_window_though_it_comes_again() -> None:
    receiver = StreamReceiver(tag=TAG, window_bytes=4 * 65_000)
    receiver.start(0)
    kept = 0
    while landed(receiver, large(kept, REPAIR)[1]):
        kept += 1
    assert kept == 5
    assert receiver.counters["beyond_window"] == 1


def asks(receiver: StreamReceiver, now: int) -> int:
    """When the leaf asks for what is missing, if nothing comes, and that it does."""
    while True:
        due = receiver.next_deadline_ns()
        assert due is not None
        frame = receiver.poll_report(max(due, now))
        assert frame is not None
        if decode_report(memoryview(frame)[FRAME.size :]).entries:
            return max(due, now)


def test_a_hole_is_asked_for_again_when_repairs_usually_have_come() -> None:
    receiver = StreamReceiver(tag=TAG, window_bytes=64 * 65_000)
    receiver.start(0, Timing(0, 0, 100_000, 1))
    now = MS
    landed(receiver, large(1)[1], now)
    assert receiver.hole_ns == now
    first = asks(receiver, now)
    assert asks(receiver, first) == first + 100 * MS  # as it was told: nothing is known yet
    landed(receiver, large(0, REPAIR)[1], first + 200 * MS)
    assert receiver._repair_ns == 0  # which of the two was answered, nobody knows
    now = first + 300 * MS
    for unit in range(3, 40, 2):
        landed(receiver, large(unit)[1], now)
        now = asks(receiver, now) + 2 * MS
        landed(receiver, large(unit - 1, REPAIR)[1], now)
        receiver.take()
    assert receiver._repair_ns == pytest.approx(2 * MS, rel=0.1)
    landed(receiver, large(41)[1], now)
    first = asks(receiver, now)
    again = asks(receiver, first)
    assert again - first == pytest.approx(3 * MS, rel=0.1)
    assert asks(receiver, again) - again > 1.3 * (again - first)  # it may be slower now


# A root


def stream(leaves: int, units: int, *, count: int = 5, last: int = 48) -> StreamSender:
    """A sender with units that have left, and leaves that have said nothing yet."""
    sender = StreamSender(LAYOUT, tag=TAG, window_bytes=WINDOW)
    for key in range(leaves):
        sender.add_leaf(key, WINDOW, 0)
    for number in range(units):
        payload = unit_of(count, last, number)
        sender.begin([data_header(len(payload) - 20, RAW, 0, 0), payload[20:]], len(payload))
    while sender.poll_transmit(0) is not None:
        pass
    return sender


def tell(
    sender: StreamSender,
    key: int,
    *entries: tuple[int, int, int, int],
    now: int = MS,
    heard: int = NO_UNIT,
) -> None:
    report = Report(0, sender.next_unit, heard, 0, WINDOW, False, False, 0, entries)
    sender.handle_report(key, memoryview(report_frame(report))[FRAME.size :], now)


def repairs(sender: StreamSender, now: int = 100 * MS) -> list[Train]:
    trains = []
    while (train := sender.poll_transmit(now)) is not None:
        if train.buffer[4] in (REPAIR, XOR):
            trains.append(train)
    return trains


def kinds(trains: list[Train]) -> list[int]:
    return [train.buffer[at + 4] for train in trains for at in range(0, len(train.buffer), SEGMENT)]


def test_different_losses_go_in_one_datagram() -> None:
    sender = stream(4, 1)
    for key in range(4):
        tell(sender, key, (0, 1, 0, 1 << key))
    assert kinds(repairs(sender)) == [XOR]
    assert sender.counters["repaired_symbols"] == 4
    assert sender.counters["parity_symbols"] == 1
    assert sender.counters["repair_bytes"] == SEGMENT


def test_losses_of_one_leaf_go_one_by_one_in_full_trains() -> None:
    sender = stream(1, 30)
    tell(sender, 0, (0, 30, 0, ALL))
    trains = repairs(sender)
    assert kinds(trains) == [REPAIR] * 150
    assert [len(train.buffer) // SEGMENT for train in trains] == [64, 64, 22]
    assert sender.counters["parity_symbols"] == 0


def test_a_unit_of_which_a_leaf_has_next_to_nothing_is_sent_again_as_it_was_and_at_once() -> None:
    sender = stream(3, 3, count=12)
    tell(sender, 0, (1, 1, 0, ALL), now=1000)
    tell(sender, 1, (0, 1, 0, (1 << 9) - 1), (1, 1, 0, 1), (2, 1, 0, (1 << 8) - 1), now=1000)
    trains = repairs(sender, 1001)
    head = data_header(len(unit_of(12, 48)) - 20, RAW, 0, 0)
    payloads = [head + unit_of(12, 48, number)[20:] for number in range(2)]
    images = [write_unit(LAYOUT, TAG, 0, at, one, REPAIR) for at, one in enumerate(payloads)]
    assert [bytes(train.buffer) for train in trains] == images
    assert sender.counters["parity_symbols"] == 0
    tell(sender, 2, (0, 1, 0, ALL), (1, 1, 0, 0b111), now=1002)  # it is under way, all of it
    assert repairs(sender, 1003) == []
    assert kinds(repairs(sender)) == [REPAIR] * 8  # that which waited


class Window:
    """Congestion control that holds nothing back."""

    window_bytes = WINDOW
    usual_loss = 0.0
    symbols_lost_at_once = 1

    def on_sent(self, size: int, now_ns: int) -> None: ...

    def on_limited(self) -> None: ...

    def on_report(self, *told: object) -> None: ...

    def forget(self, leaf: object) -> None: ...


def test_trains_count_for_packets_only_while_no_leaf_loses_packets() -> None:
    window = Window()
    sender = StreamSender(LAYOUT, tag=TAG, window_bytes=WINDOW, congestion=window)
    for key in range(2):
        sender.add_leaf(key, WINDOW, 0)
    for number in range(20):
        payload = unit_of(12, 48, number)
        sender.begin([data_header(len(payload) - 20, RAW, 0, 0), payload[20:]], len(payload))
    while sender.poll_transmit(0) is not None:
        pass
    for _ in range(20):  # of one loss, however often it is told
        tell(sender, 0, (0, 1, 0, ALL))
    assert window.symbols_lost_at_once == 1
    tell(sender, 0, (0, 6, 0, ALL))
    tell(sender, 0, (0, 9, 0, ALL))
    assert window.symbols_lost_at_once == LAYOUT.symbols
    tell(sender, 1, (3, 1, 0, 0b11))
    assert window.symbols_lost_at_once == 1
    sender.remove_leaf(1)
    tell(sender, 0, (0, 12, 0, ALL))
    assert window.symbols_lost_at_once == LAYOUT.symbols


def test_a_unit_that_everybody_has_got_meanwhile_is_not_sent_again() -> None:
    sender = stream(2, 2, count=12)
    tell(sender, 0, (0, 2, 0, ALL))
    for key in range(2):
        report = Report(1, 2, NO_UNIT, 0, WINDOW, False, False, 0, ())
        sender.handle_report(key, memoryview(report_frame(report))[FRAME.size :], 2 * MS)
    assert repairs(sender) == []


def test_what_left_before_something_that_a_leaf_has_heard_is_lost_without_waiting() -> None:
    """A whole round trip need not pass: nothing overtakes by more than the network reorders."""
    sender = stream(1, 1)
    tell(sender, 0, (0, 1, 0, 1))
    assert kinds(repairs(sender, MS)) == [REPAIR]
    payload = unit_of(5, 48, 1)
    sender.begin([data_header(len(payload) - 20, RAW, 0, 0), payload[20:]], len(payload))
    sent = MS + REORDER_NS + 1
    assert sender.poll_transmit(sent) is not None
    tell(sender, 0, (0, 1, 0, 1), now=sent + 1, heard=0)
    assert repairs(sender, sent + 1) == []
    tell(sender, 0, (0, 1, 0, 1), now=sent + 2, heard=1)
    assert kinds(repairs(sender, sent + 2)) == [REPAIR]


def test_plain_repairs_and_combinations_share_a_train() -> None:
    sender = stream(2, 1)
    tell(sender, 0, (0, 1, 0, 0b00011))
    tell(sender, 1, (0, 1, 0, 0b00100))
    (train,) = repairs(sender)
    assert kinds([train]) == [REPAIR, XOR]


def test_a_short_last_symbol_goes_alone_in_a_train_of_its_own() -> None:
    sender = stream(2, 1, last=30)
    tell(sender, 0, (0, 1, 0, 0b10000))
    tell(sender, 1, (0, 1, 0, 0b00001))
    trains = repairs(sender)
    assert sorted(len(train.buffer) for train in trains) == [HEADER_SIZE + 30, SEGMENT]
    assert sender.counters["parity_symbols"] == 0


def test_a_loss_waits_for_other_leaves_only_while_the_stream_goes_on() -> None:
    sender = stream(2, 1)
    tell(sender, 0, (0, 1, 0, 1), now=1000)
    assert repairs(sender, 1000) == []
    due = sender.next_deadline_ns()
    assert due is not None
    assert due > 1000
    tell(sender, 1, (0, 1, 0, 2), now=2000)
    assert kinds(repairs(sender, due)) == [XOR]
    tell(sender, 0, (0, 1, 0, 4), now=100 * MS)
    assert kinds(repairs(sender, 100 * MS)) == [REPAIR]  # nothing has left for long


@pytest.mark.parametrize(("leaves", "at_once"), [(4, True), (40, False)])
def test_of_many_leaves_more_are_heard_before_a_stream_counts_as_idle(
    leaves: int, at_once: bool
) -> None:
    sender = stream(leaves, 1)
    now = 3 * sender._gather_ns()
    tell(sender, 0, (0, 1, 0, 1), now=now)
    assert bool(repairs(sender, now)) is at_once
    tell(sender, 1, (0, 1, 0, 2), now=now + 1)
    assert kinds(repairs(sender, 4 * now)) == [REPAIR if at_once else XOR]


def test_a_loss_is_counted_once_though_it_was_mended_by_a_combination() -> None:
    sender = stream(2, 1)
    tell(sender, 0, (0, 1, 0, 1), now=1000)
    tell(sender, 1, (0, 1, 0, 2), now=1000)
    assert sender.counters["reported_symbols"] == 0  # it may be late merely
    assert kinds(repairs(sender)) == [XOR]
    for _ in range(2):
        tell(sender, 0)
        tell(sender, 1)
    assert sender.counters["reported_symbols"] == 2


def test_a_report_costs_no_more_than_its_bound_whatever_it_says() -> None:
    sender = stream(2, 2 * MAX_TOLD, count=1, last=30)
    began = time.process_time()
    for now in range(20):
        tell(sender, 0, *[(0, 65_535, 0, ALL)] * MAX_ENTRIES, now=now)
    spent = time.process_time() - began
    assert sender._losses.size == MAX_TOLD
    assert spent < 20 * 0.05  # 64 times 1,024 units are a second and more
    tell(sender, 1, (MAX_TOLD, 1, 0, 1), (0, 1, 0, 1), (MAX_TOLD, 9, 0, ALL))
    assert sorted(unit for unit, by in sender._losses.wanted.items() if 2 in by.values()) == [
        MAX_TOLD + at for at in range(9)
    ]


def test_a_leaf_that_claims_to_lose_all_is_soon_repaired_by_its_leg_alone() -> None:
    """What nobody lost is not sent to everybody for its sake, however often it asks."""
    units, count = 64, 40
    sender = stream(2, units, count=count, last=30)
    sent = 0
    for round_ in range(20):  # each later than a repair needs
        tell(sender, 0, (0, units, 0, ALL), now=(round_ + 1) * 10_000 * MS)
        sent += sum(len(train.buffer) // SEGMENT for train in repairs(sender))
    assert sent <= CREDIT_MOST + units * count  # the report that spends the last of it in whole
    assert sender.counters["leg_repairs"] == units  # each once
    tell(sender, 1, (3, 1, 0, 1), now=300_000 * MS)
    assert kinds(repairs(sender)) == [REPAIR]  # the other is served as ever


def test_a_leaf_that_was_told_of_too_many_symbols_gets_the_unit_over_its_leg() -> None:
    """A forged first symbol said so; of those that the unit has nothing is missing there."""
    sender = stream(1, 1, count=1)
    receiver = listener()
    hear(receiver, HEADER.pack(TAG, DATA, 0, 0, 17, 0) + bytes(9))
    tell(sender, 0, (0, 1, 0, 0b11110))
    repair = sender.poll_leg()
    assert repair is not None
    receiver.handle_unit_repair(memoryview(repair[1])[FRAME.size :], MS)
    assert len(receiver.take()) == 1


def test_a_repair_that_contradicts_what_is_held_is_seen_though_its_place_is_taken() -> None:
    receiver = listener()
    hear(receiver, HEADER.pack(TAG, DATA, 0, 0, 17, 0) + bytes(48))
    hear(receiver, HEADER.pack(TAG, REPAIR, 0, 0, 5, 0) + bytes(48))
    assert receiver.counters["conflicts"] == 1
    assert by_leg(receiver)


def test_a_leaf_that_always_lacks_everything_has_each_symbol_sent_once_in_a_round_trip() -> None:
    sender = stream(3, 4)
    tell(sender, 1, (0, 4, 0, ALL))
    tell(sender, 2, (0, 1, 0, 1))
    for now in range(100 * MS, 101 * MS, 100_000):
        tell(sender, 0, (0, 4, 0, ALL), now=now)
        repairs(sender, now)
    assert sender.counters["repaired_symbols"] <= 2 * 4 * 5


# Both


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_is_lost_repeated_and_overtaken_is_recovered_as_it_was(
    data: st.DataObject,
) -> None:
    leaves = data.draw(st.integers(1, 5), "leaves")
    payloads = [
        unit_of(data.draw(st.integers(1, 12), "count"), data.draw(st.integers(1, 48)), seed)
        for seed in range(data.draw(st.integers(1, 4), "units"))
    ]
    rng = random.Random(data.draw(st.integers(0, 1 << 32), "network"))
    loss = data.draw(st.sampled_from([0.05, 0.3, 0.6]), "loss")
    sender = StreamSender(LAYOUT, tag=TAG, window_bytes=WINDOW)
    receivers = []
    for key in range(leaves):
        sender.add_leaf(key, WINDOW, 0)
        receivers.append(StreamReceiver(tag=TAG, window_bytes=WINDOW, backoff_seed=key))
        receivers[-1].start(0)
    now = 0
    for payload in payloads:
        header = data_header(len(payload), RAW, 0, 0)
        sender.begin([header, payload], len(header) + len(payload))
    got: list[bytes] = [b""] * leaves
    due = b"".join(data_header(len(one), RAW, 0, 0) + one for one in payloads)
    for _ in range(400):
        now += MS
        trains = []
        while (train := sender.poll_transmit(now)) is not None:
            trains.append(train)
        for key, receiver in enumerate(receivers):
            _lose(receiver, trains, rng, loss, now)
            got[key] += b"".join(bytes(one) for one in receiver.take())  # type: ignore[arg-type]
            assert due.startswith(got[key])
            assert held(receiver) == receiver._held_bytes
            if (frame := receiver.poll_report(now)) is not None:
                sender.handle_report(key, memoryview(frame)[FRAME.size :], now)
        if all(one == due for one in got):
            break
        if not trains:
            now += 20 * MS
    assert got == [due] * leaves
    assert all(receiver.counters["conflicts"] == 0 for receiver in receivers)


def _lose(
    receiver: StreamReceiver, trains: list[Train], rng: random.Random, loss: float, now: int
) -> None:
    """Losses, repetition and any order."""
    heard = [
        train.buffer[at : at + train.segment]
        for train in trains
        for at in range(0, len(train.buffer), train.segment)
        if rng.random() >= loss
    ]
    heard += [one for one in heard if rng.random() < 0.2]
    rng.shuffle(heard)
    for datagram in heard:
        receiver.handle_train(memoryview(bytearray(datagram)), len(datagram), now)


def test_the_header_has_room_for_all_it_tells() -> None:
    assert HEADER.size == HEADER_SIZE == len(parity_header(TAG, 0, 44, 1 << 60, 1 << 43 | 1 << 3))


def test_leaves_are_told_when_their_reports_have_become_too_rare_though_units_flow() -> None:
    sender = stream(2, 1)
    sender.begin([bytes(40)], 40)
    assert sender.poll_transmit(0) is not None
    now = 200_000
    report = Report(
        0, 1, 1, 0, WINDOW, False, False, 0, ()
    )  # a round trip, 25th of the first guess
    sender.handle_report(0, memoryview(report_frame(report))[FRAME.size :], now)
    sender.begin([bytes(40)], 40)
    kinds = []
    while (train := sender.poll_transmit(now)) is not None:
        kinds.append(train.buffer[4] & 0x7F)
    assert kinds == [SYNC, DATA]
    sender.handle_report(0, memoryview(report_frame(report))[FRAME.size :], now)
    assert sender.poll_transmit(now) is None  # once

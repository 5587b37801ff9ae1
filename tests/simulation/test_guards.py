"""Parity sent in advance: when, what it spares, and that nothing is hidden by it."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from tests.simulation.stream_world import MS, TAG, Faults, World

from joinleaf.core.qos.shaper import Shaper
from joinleaf.core.reliability.congestion import SEVERAL, CongestionWindow
from joinleaf.core.reliability.receiver import StreamReceiver
from joinleaf.core.wire.landing import Landing
from joinleaf.core.wire.reports import decode_report
from joinleaf.core.wire.units import HEADER_SIZE, XOR, Layout, guarded
from joinleaf.spi.qos import FlowSpec

WINDOW = 4 << 20


class Usual:
    """Congestion control that knows what is lost, and never holds anything back."""

    window_bytes = WINDOW
    symbols_lost_at_once = 1

    def __init__(self, usual_loss: float) -> None:
        self.usual_loss = usual_loss
        self.lost = self.sent = 0

    def on_sent(self, size: int, now_ns: int) -> None: ...

    def on_limited(self) -> None: ...

    def forget(self, leaf: Hashable) -> None: ...

    def on_report(
        self,
        acked_bytes: int,
        lost_symbols: int,
        sent_symbols: int,
        rtt_ns: int | None,
        now_ns: int,
        leaf: Hashable = 0,
    ) -> None:
        self.lost += lost_symbols
        self.sent += sent_symbols


def lossy(
    loss: float, *, told: float, leaves: int = 8, units: int = 150, segment: int = 1452
) -> tuple[World, Usual]:
    """A world whose sender was told ``told``, and has sent units to leaves that lose ``loss``."""
    congestion = Usual(told)
    world = World(f"{loss}/{leaves}", segment=segment, window_bytes=WINDOW, congestion=congestion)
    for _ in range(leaves):
        world.join(Faults(loss), window_bytes=WINDOW)
    world.run(20 * MS)
    for _ in range(units):
        world.send([4 * world.sender.capacity])
        world.run(2 * MS)
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)
    return world, congestion


@pytest.mark.parametrize(("loss", "symbols"), [(0.01, 3), (0.025, 4), (0.05, 6)])
def test_what_is_usually_lost_decides_how_much_is_sent_in_advance(
    loss: float, symbols: int
) -> None:
    sender = lossy(loss, told=loss, units=30)[0].sender
    assert sender.counters["guard_symbols"] > 0
    assert sender.counters["guard_symbols"] % symbols == 0
    assert sender.capacity == guarded(Layout(1452).symbols, symbols) * Layout(1452).payload


def test_a_leaf_asks_for_little_of_what_it_loses_at_one_per_cent() -> None:
    with_it, without = lossy(0.01, told=0.01)[0], lossy(0.01, told=0.0)[0]
    assert without.sender.counters["guard_symbols"] == 0
    asked, before = (one.sender.counters["reported_symbols"] for one in (with_it, without))
    assert asked < before / 4
    reports, before = (one.sender.counters["reports"] for one in (with_it, without))
    assert reports < 0.8 * before
    assert with_it.group_bytes < 1.08 * without.group_bytes


def test_what_parity_brings_back_counts_as_lost() -> None:
    """Or the stream would take a queue that overflows for an empty one."""
    _, congestion = lossy(0.03, told=0.03)
    assert congestion.lost == pytest.approx(0.03 * congestion.sent, rel=0.2)


def test_where_whole_trains_are_lost_parity_is_of_no_use_and_not_sent() -> None:
    sender = lossy(0.05, told=0.05, segment=60_000)[0].sender
    assert sender.counters["guard_symbols"] == 0

    congestion = Usual(0.05)
    world = World("whole", window_bytes=WINDOW, congestion=congestion)
    for _ in range(4):
        world.join(window_bytes=WINDOW)
    world.run(20 * MS)
    for number in range(60):
        for leaf in world.leaves:
            leaf.faults.loss = 1.0 if (number + leaf.key) % 10 == 0 else 0.0
        world.send([60_000])
        world.run(MS)
    for leaf in world.leaves:
        leaf.faults.loss = 0.0
    world.settle()
    assert world.sender.counters["reported_symbols"] > 0
    assert world.sender.counters["guard_symbols"] == 0


def test_units_that_are_short_are_not_guarded() -> None:
    world, _ = lossy(0.01, told=0.01, units=20)
    before = world.sender.counters["guard_symbols"]
    for _ in range(20):
        world.send([20_000])
        world.run(MS)
    assert world.sender.counters["guard_symbols"] == before > 0


def test_parity_in_advance_keeps_the_agreed_rate() -> None:
    """What leaves is never over the bucket, though it is more than what was asked about."""
    shaper = Shaper(FlowSpec(token_rate=20_000_000, token_bucket_size=100_000), 0)
    world = World("rate", window_bytes=WINDOW, congestion=Usual(0.01), pacer=shaper)
    for _ in range(4):
        world.join(Faults(0.01), window_bytes=WINDOW)
    world.run(20 * MS)
    began, before = world.now, world.group_bytes
    for _ in range(60):
        world.send([200_000])
        world.run(10 * MS)
        elapsed_s = (world.now - began) / 1e9
        assert world.group_bytes - before <= 100_000 + 20_000_000 * elapsed_s + 1
    world.settle()
    assert world.sender.counters["guard_symbols"] > 0
    for leaf in world.leaves:
        world.check_complete(leaf)


def train(world: World) -> tuple[bytes, int]:
    """The next train that the sender has."""
    sent = world.sender.poll_transmit(world.now)
    assert sent is not None
    return bytes(sent.buffer), sent.segment


def guarded_train() -> tuple[bytes, int, bytes]:
    """A full unit with its parity, the length of a symbol, and the payload."""
    world, _ = lossy(0.01, told=0.01, units=20)
    unit = World("one", window_bytes=WINDOW, congestion=Usual(0.01))
    unit.sender.add_leaf(0, WINDOW, unit.now)
    unit.sender._guard = world.sender._guard
    payload = unit.body(1, unit.sender.capacity)
    unit.sender.begin([payload], len(payload))
    return *train(unit), payload


def listener() -> StreamReceiver:
    receiver = StreamReceiver(tag=TAG, window_bytes=WINDOW)
    receiver.start(0)
    return receiver


def land(receiver: StreamReceiver, data: bytes, segment: int) -> bool:
    landing = Landing()
    landing.fill(data, segment)
    return receiver.handle_landing(landing, MS)


def test_a_whole_unit_is_kept_where_it_landed_and_its_parity_forgotten() -> None:
    data, segment, payload = guarded_train()
    assert [data[at + 4] for at in range(0, len(data), segment)][-3:] == [XOR] * 3
    receiver = listener()
    assert land(receiver, data, segment)
    ((unit),) = receiver.take()
    assert isinstance(unit, Landing)
    assert unit.joined() == payload
    assert receiver.counters["recovered"] == receiver.counters["useless"] == 0


@pytest.mark.parametrize("first", range(3))
def test_a_loss_of_each_third_comes_back_at_once_and_is_told_as_a_number(first: int) -> None:
    data, segment, payload = guarded_train()
    symbols = [data[at : at + segment] for at in range(0, len(data), segment)]
    lost = {first, first + 1, first + 2} if first else {0, 4, 38}
    receiver = listener()
    land(receiver, b"".join(one for at, one in enumerate(symbols) if at not in lost), segment)
    ((unit),) = receiver.take()
    assert not isinstance(unit, bytes)
    assert unit.joined() == payload
    due = receiver.next_deadline_ns()
    frame = receiver.poll_report(max(due or 0, 10 * MS))
    assert frame is not None
    report = decode_report(memoryview(frame)[8:])
    assert (report.ack, report.recovered, list(report.entries)) == (1, 3, [])


def test_units_behind_a_hole_are_kept_where_they_landed() -> None:
    world = World("behind", window_bytes=WINDOW)
    world.sender.add_leaf(0, WINDOW, world.now)
    payloads = [world.body(number, 60_000) for number in range(4)]
    for payload in payloads:
        world.sender.begin([payload], len(payload))
    trains = [train(world) for _ in payloads]
    receiver = listener()
    assert all(land(receiver, *one) for one in trains[1:])
    assert receiver.take() == []
    assert not land(receiver, *trains[2])  # the same again is of no use
    assert receiver.counters["duplicates"] > 0
    assert land(receiver, *trains[0])
    units = [unit if isinstance(unit, bytes) else unit.joined() for unit in receiver.take()]
    assert units == payloads


def test_symbols_shorter_than_a_header_are_dropped_wherever_they_land() -> None:
    receiver = listener()
    for segment in (1, 10, HEADER_SIZE):
        assert not land(receiver, bytes(60_000), segment)
    assert receiver.counters["malformed"] == 3


def test_losses_are_usual_for_a_stream_when_several_leaves_have_them() -> None:
    window = CongestionWindow(ceiling=WINDOW, symbol_bytes=1452, unit_bytes=62_436)
    for leaves in range(1, SEVERAL + 2):
        for block in range(1, 8):
            now_ns = (leaves * 100 + block) * 10 * MS
            for leaf in range(leaves):
                window.on_report(60_000, 6, 600, MS, now_ns, leaf)
        assert (window.usual_loss > 0.005) is (leaves >= SEVERAL)
    window.forget(0)
    assert window.usual_loss > 0.005
    window.forget(1)
    assert window.usual_loss == 0.0

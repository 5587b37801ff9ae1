"""The multicast stream keeps its flow specification in every window of simulated time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.simulation.stream_world import MS, Faults, World

from joinleaf.core.qos.shaper import LATE_NS, TRAIN, shaper_of
from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import StreamPacer
from joinleaf.core.reliability.sender import Train
from joinleaf.spi.qos import FlowSpec

NS = 1_000_000_000
MB = 1_000_000
SEGMENT = 1452


class Shaped(World):
    """A world whose sender keeps to a flow, and which remembers what left when."""

    def __init__(self, seed: object, flow: FlowSpec) -> None:
        window = CongestionWindow(
            ceiling=4 << 20, symbol_bytes=SEGMENT, unit_bytes=44 * SEGMENT + 1024
        )
        self.pacer = StreamPacer(window)
        super().__init__(
            seed, segment=SEGMENT, window_bytes=4 << 20, congestion=window, pacer=self.pacer
        )
        self.departed: list[tuple[int, int]] = []
        self.agree(flow)
        poll = self.sender.poll_transmit

        def noted(now_ns: int) -> Train | None:
            train = poll(now_ns)
            if train is not None:
                self.departed.append((now_ns, len(train.buffer)))
            return train

        self.noted = noted

    def agree(self, flow: FlowSpec) -> None:
        self.pacer.shaper = shaper_of(flow, self.now, self.pacer.shaper)

    def pump(self) -> None:
        sender = self.sender
        while (train := self.noted(self.now)) is not None:
            for leaf in self.leaves:
                leaf.hear(train, self.now)
        while (item := sender.poll_leg()) is not None:
            self.to_leaf(self.leaves[item[0]], item[1])
        due = sender.next_deadline_ns()
        if due is not None and (self._wake_ns is None or due < self._wake_ns):
            self._wake_ns = max(due + 300_000, self.now + 1000)  # woken late, as processes are
            self.at(self._wake_ns, self._wake)


def keeps(departed: list[tuple[int, int]], at_once: int, rate: int) -> bool:
    """Whether no window has more than what may leave at once and the rate.

    The worst window that ends with a train is the worst of those before, or begins with it: a
    bucket that is drained, so that all windows are looked at.
    """
    level = at_once * NS
    for (before, size), (now, _) in pairwise([*departed, (departed[-1][0], 0)]):
        level -= size * NS
        if level < 0:
            return False
        level = min(at_once * NS, level + rate * (now - before))
    return True


@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("peak", [None, 12 * MB, 20 * MB])
@pytest.mark.parametrize("bucket", [20_000, 200_000])
def test_ten_megabytes_a_second_hold_and_no_window_exceeds_bucket_or_peak(
    bucket: int, peak: int | None, loss: float
) -> None:
    flow = FlowSpec(
        token_rate=10 * MB,
        token_bucket_size=bucket,
        peak_bandwidth=0xFFFFFFFF if peak is None else peak,
    )
    world = Shaped(f"{bucket}/{peak}/{loss}", flow)
    for _ in range(2):
        world.join(Faults(loss))
    began = world.now
    while world.now - began < 200 * MS:
        while world.sender.pending_bytes < 1 << 18:
            world.send([50_000] * 4)
        world.run(10 * MS)
    sent = sum(size for _, size in world.departed)
    assert 0.97 < sent / (10 * MB * 0.2 + bucket) < 1.03
    assert keeps(world.departed, bucket, 10 * MB), world.state()
    if peak is not None:
        assert keeps(world.departed, min(bucket, max(TRAIN, peak * LATE_NS // NS)), peak)
    world.settle()
    for leaf in world.leaves:
        world.check_complete(leaf)


def test_a_rate_that_changes_on_the_way_holds_from_then_on() -> None:
    world = Shaped("change", FlowSpec(token_rate=20 * MB, token_bucket_size=100_000))
    world.join()
    world.send([50_000] * 80)
    world.run(50 * MS)
    world.agree(FlowSpec(token_rate=5 * MB, token_bucket_size=50_000))
    changed = len(world.departed)
    world.run(200 * MS)
    after = world.departed[changed:]
    assert keeps(after, 50_000, 5 * MB)
    assert 0.95 < sum(size for _, size in after) / (0.2 * 5 * MB) < 1.05


def test_a_low_rate_makes_small_units_and_loses_no_leaf() -> None:
    world = Shaped("slow", FlowSpec(token_rate=20_000, token_bucket_size=6000))
    leaf = world.join()
    world.send([20_000])
    while not world.quiet(leaf) or world.sender.pending_bytes:
        assert not world.sender.stalled(world.now)
        world.run(50 * MS)
        assert world.now < 10 * NS
    world.check_complete(leaf)
    assert keeps(world.departed, 6000, 20_000)

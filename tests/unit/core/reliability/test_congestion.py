"""The congestion window behind a modelled bottleneck: utilisation, shares, losses, bad leaves.

Figures come out the same every time, for the model is seeded. A bound is what a user may count on,
well below (or above) what the model gives today.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joinleaf.core.reliability.congestion import CongestionWindow
from joinleaf.core.reliability.pacing import LONGEST_TRAIN, StreamPacer

from .bottleneck import NS, PACKET, UNIT, Link, Stream, Tcp, World

MBIT = 125_000
MS = 1_000_000


def stream_over(
    mbit: int,
    rtt_ms: float,
    buffer_ms: float,
    loss: list[float],
    *,
    seconds: float,
    tcp: str = "",
    trains: bool = False,
) -> tuple[float, float, Stream]:
    """Shares of the link that a stream and a TCP beside it have, after a quarter of the time."""
    world = World(f"{mbit}/{rtt_ms}/{buffer_ms}/{loss}/{tcp}")
    print("seed:", world.seed)  # noqa: T201  # for whoever looks into a failure
    link = Link(mbit * MBIT, mbit * MBIT * buffer_ms / 1000, int(rtt_ms * MS / 2))
    stream = Stream(world, link, loss, noise_ns=50_000, trains=trains)
    world.at(0, stream.start)
    rival = Tcp(world, link, cubic=tcp == "cubic")
    if tcp:
        world.at(0, rival.start)
    world.run_until(int(seconds / 4 * NS))
    before = stream.good_bytes, rival.acked_bytes
    world.run_until(int(seconds * NS))
    room = link.rate * seconds * 3 / 4
    return (
        (stream.good_bytes - before[0]) / room,
        (rival.acked_bytes - before[1]) / room,
        stream,
    )


@pytest.mark.parametrize(("rtt_ms", "least"), [(0.1, 0.95), (1, 0.95), (10, 0.9)])
def test_an_empty_gigabit_link_is_filled(rtt_ms: float, least: float) -> None:
    share, _, _ = stream_over(1000, rtt_ms, 8, [0.0], seconds=4)
    assert share >= least


def test_a_long_way_is_filled_as_far_as_the_window_reaches() -> None:
    share, _, stream = stream_over(1000, 50, 8, [0.0], seconds=4)
    assert share >= 0.95 * stream.window.window_bytes / (0.05 * 1000 * MBIT)
    share, _, _ = stream_over(100, 50, 50, [0.0], seconds=12)
    assert share >= 0.95


@pytest.mark.parametrize("leaves", [1, 8])
@pytest.mark.parametrize(("rtt_ms", "least"), [(0.1, 0.4), (1, 0.4), (10, 0.3)])
def test_random_losses_of_five_per_cent_leave_forty_per_cent_of_the_rate_of_a_lan(
    rtt_ms: float, least: float, leaves: int
) -> None:
    share, _, _ = stream_over(1000, rtt_ms, 8, [0.05] * leaves, seconds=6)
    assert share >= least


def test_random_losses_on_a_long_way_leave_forty_per_cent_too() -> None:
    share, _, _ = stream_over(100, 50, 50, [0.05], seconds=20)
    assert share >= 0.4


@pytest.mark.parametrize("rtt_ms", [0.1, 1])
def test_random_losses_of_one_per_cent_leave_nearly_all(rtt_ms: float) -> None:
    share, _, _ = stream_over(1000, rtt_ms, 8, [0.01] * 4, seconds=3)
    assert share >= 0.8


@pytest.mark.parametrize(("loss", "least"), [(0.01, 0.7), (0.05, 0.4)])
@pytest.mark.parametrize("leaves", [1, 8])
def test_trains_that_hosts_lose_as_a_whole_leave_most_of_the_rate(
    leaves: int, loss: float, least: float
) -> None:
    share, _, _ = stream_over(4000, 1, 8, [loss] * leaves, seconds=2, trains=True)
    assert share >= least


@pytest.mark.parametrize("tcp", ["reno", "cubic"])
@pytest.mark.parametrize(("mbit", "buffer_ms", "least"), [(100, 50, 0.3), (1000, 8, 0.15)])
def test_who_takes_trains_for_packets_leaves_a_tcp_its_share_of_a_queue(
    tcp: str, mbit: int, buffer_ms: float, least: float
) -> None:
    ours, theirs, _ = stream_over(
        mbit, 1, buffer_ms, [0.0], seconds=20 if mbit == 100 else 6, tcp=tcp, trains=True
    )
    assert theirs >= least, f"TCP has {theirs:.0%}, the stream {ours:.0%}"
    assert ours >= 0.12, f"TCP has {theirs:.0%}, the stream {ours:.0%}"


@pytest.mark.parametrize("tcp", ["reno", "cubic"])
@pytest.mark.parametrize(
    ("mbit", "rtt_ms", "buffer_ms", "least"),
    [
        *((100, rtt_ms, 50, 0.3) for rtt_ms in (0.1, 1, 10)),
        (100, 1, 20, 0.3),
        (1000, 0.1, 8, 0.2),
        (1000, 1, 8, 0.2),
        # A queue that one train fills, or far shorter than the way: who is in a hurry loses.
        *((100, rtt_ms, 5, 0.06) for rtt_ms in (0.1, 1, 10)),
        (100, 50, 20, 0.2),
    ],
)
def test_a_tcp_beside_the_stream_and_the_stream_both_keep_a_share(
    tcp: str, mbit: int, rtt_ms: float, buffer_ms: float, least: float
) -> None:
    ours, theirs, _ = stream_over(
        mbit, rtt_ms, buffer_ms, [0.0], seconds=20 if mbit == 100 else 6, tcp=tcp
    )
    assert theirs >= least, f"TCP has {theirs:.0%}, the stream {ours:.0%}"
    assert ours >= 0.12, f"TCP has {theirs:.0%}, the stream {ours:.0%}"
    assert ours + theirs >= 0.7


def test_one_bad_leaf_of_eight_does_not_collapse_the_stream() -> None:
    share, _, stream = stream_over(1000, 1, 8, [0.0] * 7 + [0.3], seconds=2)
    assert stream.window.outliers == (7,)
    assert share >= 0.4, "what is left goes into repairs for the bad one"


def test_losses_that_all_leaves_share_make_none_of_them_bad() -> None:
    _, _, stream = stream_over(1000, 1, 8, [0.05] * 4, seconds=2)
    assert stream.window.outliers == ()


# One by one


def reporting(window: CongestionWindow) -> Callable[..., None]:
    """A function that reports a millisecond later than the report before."""
    now_ns = 0

    def report(acked: int, lost: int, sent: int, leaf: int = 0, rtt_ms: float = 1) -> None:
        nonlocal now_ns
        now_ns += MS
        window.on_limited()
        window.on_report(acked, lost, sent, int(rtt_ms * MS), now_ns, leaf)

    return report


def fresh() -> CongestionWindow:
    return CongestionWindow(ceiling=4 << 20, symbol_bytes=PACKET, unit_bytes=UNIT)


def test_the_window_doubles_until_the_first_queue_and_keeps_to_its_ceiling() -> None:
    window = fresh()
    report, before = reporting(window), window.window_bytes
    report(before, 0, 100)
    assert window.window_bytes == 2 * before
    for _ in range(40):  # it takes a round without a short wait
        report(1000, 0, 100, rtt_ms=9)
    assert not window.slow_start
    assert window.window_bytes < 1 << 20
    other = fresh()
    report = reporting(other)
    for _ in range(20):
        report(other.window_bytes, 0, 100)
    assert other.window_bytes == 4 << 20


def test_what_nobody_wanted_to_send_does_not_make_the_window_grow() -> None:
    window = fresh()
    before = window.window_bytes
    window.on_report(10 * UNIT, 0, 430, MS, MS)
    assert window.window_bytes == before


def test_a_round_that_loses_much_halves_the_window_whatever_the_queue() -> None:
    window = fresh()
    report = reporting(window)
    report(window.window_bytes, 0, 400)
    before = window.window_bytes
    report(0, 120, 100)
    assert window.window_bytes == before // 2


def test_losses_behind_a_queue_shrink_the_window_once_in_a_round() -> None:
    window = fresh()
    report = reporting(window)
    report(window.window_bytes, 0, 400)
    for _ in range(40):
        report(1000, 0, 400, rtt_ms=9)
    before = window.window_bytes
    report(0, 1, 100, rtt_ms=9)
    report(0, 1, 100, leaf=1, rtt_ms=9)
    assert before * 0.69 < window.window_bytes < before * 0.71


def test_losses_without_a_queue_end_slow_start_and_cost_nothing_until_one_has_been_met() -> None:
    window = fresh()
    report = reporting(window)
    report(window.window_bytes, 0, 400)
    before = window.window_bytes
    report(0, 4, 400)
    assert not window.slow_start
    assert window.window_bytes == before
    report(window.window_bytes, 0, 400)
    assert window.window_bytes == before + before // 8


def test_where_losses_are_usual_the_window_leaves_room_for_repairs() -> None:
    window = fresh()
    report = reporting(window)
    for _ in range(200):
        report(window.window_bytes, 6, 600)
    assert window.window_bytes == (4 << 20) * 5 // 8
    clean = fresh()
    report = reporting(clean)
    for _ in range(200):
        report(clean.window_bytes, 0, 600)
    assert clean.window_bytes == 4 << 20


def test_a_leaf_that_is_forgotten_is_no_outlier_any_more() -> None:
    window = fresh()
    report = reporting(window)
    for _ in range(20):
        for leaf in range(3):
            report(0, 200 if leaf == 2 else 0, 600, leaf)
    assert len(window.outliers) == 1
    window.forget(2)
    window.forget(7)
    assert not window.outliers


def test_what_a_bad_leaf_took_away_is_given_back_when_it_is_known() -> None:
    window = fresh()
    report = reporting(window)
    for _ in range(3):
        for leaf in range(3):
            report(window.window_bytes // 3, 0, 600, leaf)
    before = window.window_bytes
    lowest = before
    while not window.outliers:
        for leaf in range(3):
            report(0, 200 if leaf == 2 else 0, 600, leaf)
        lowest = min(lowest, window.window_bytes)
    assert lowest < before <= window.window_bytes


@pytest.mark.parametrize(("symbol", "unit"), [(0, 10), (11, 10)])
def test_sizes_that_make_no_sense_are_refused(symbol: int, unit: int) -> None:
    with pytest.raises(ValueError, match="symbol_bytes"):
        CongestionWindow(ceiling=1, symbol_bytes=symbol, unit_bytes=unit)


# The pace


def test_a_pacer_holds_nothing_back_before_a_round_trip_is_known() -> None:
    pacer = StreamPacer(fresh())
    pacer.consume(1 << 30, 0)
    assert pacer.delay_ns(1 << 30, 0) == 0
    assert pacer.max_burst() == LONGEST_TRAIN


def test_a_window_leaves_in_less_than_a_round_trip_but_not_at_once() -> None:
    window = fresh()
    window.on_report(0, 0, 0, 50 * MS, MS, 0)
    pacer, now_ns, sent = StreamPacer(window), MS, 0
    while sent < window.window_bytes:
        size = pacer.max_burst()
        assert PACKET < size <= LONGEST_TRAIN
        now_ns += pacer.delay_ns(size, now_ns)
        assert pacer.delay_ns(size, now_ns) == 0
        pacer.consume(size, now_ns)
        sent += size
    assert 15 * MS < now_ns < 50 * MS

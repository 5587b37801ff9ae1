"""A flow specification kept piece by piece, in every window of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.qos.shaper import LATE_NS, LEAST, TRAIN, Shaper, narrower
from joinleaf.spi import constants as c
from joinleaf.spi.qos import FlowSpec

NS = 1_000_000_000


def sent_by(shaper: Shaper, late: list[int], pieces: int, size: int) -> list[tuple[int, int]]:
    """When how much leaves if somebody sends all they may, woken as late as told."""
    now_ns, sent = 0, []
    for number in range(pieces):
        piece = min(size, shaper.burst)
        if delay := shaper.delay_ns(piece, now_ns):
            now_ns += delay + late[number % len(late)]
        shaper.consume(piece, now_ns)
        sent.append((now_ns, piece))
    return sent


@given(
    rate=st.integers(10_000, 10**9),
    bucket=st.integers(2 * LEAST, 10**6) | st.none(),
    above=st.integers(0, 10**9) | st.none(),
    late=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=8),
)
def test_no_window_holds_more_than_the_bucket_and_the_rate_nor_more_than_the_peak_allows(
    rate: int, bucket: int | None, above: int | None, late: list[int]
) -> None:
    flow = FlowSpec(
        token_rate=rate,
        token_bucket_size=c.QOS_NOT_SPECIFIED if bucket is None else bucket,
        peak_bandwidth=c.QOS_NOT_SPECIFIED if above is None else rate + above,
    )
    depth = max(rate // 50, 65536) if bucket is None else bucket
    sent = sent_by(Shaper(flow, 0), late, 60, 62_000)
    for first, (begin, _) in enumerate(sent):
        total = 0
        for at, size in sent[first:]:
            total += size
            assert total * NS <= depth * NS + rate * (at - begin)
            if above is not None:
                peak = rate + above
                once = min(depth, max(TRAIN, peak * LATE_NS // NS))
                assert total * NS <= once * NS + peak * (at - begin)


@pytest.mark.parametrize("peak", [None, 10_000_000, 15_000_000])
def test_the_rate_is_kept_by_a_sender_that_is_woken_a_millisecond_late(peak: int | None) -> None:
    flow = FlowSpec(
        token_rate=10_000_000,
        token_bucket_size=200_000,
        peak_bandwidth=c.QOS_NOT_SPECIFIED if peak is None else peak,
    )
    sent = sent_by(Shaper(flow, 0), [1_000_000, 100_000], 3000, 62_000)
    rate = sum(size for _, size in sent) * NS / sent[-1][0]
    assert 0.99e7 < rate < 1.01e7


def test_a_change_at_run_time_gives_no_second_bucket() -> None:
    flow = FlowSpec(token_rate=1_000_000, token_bucket_size=100_000)
    shaper = Shaper(flow, 0)
    shaper.consume(99_000, 0)
    assert Shaper(flow, 0, shaper).delay_ns(50_000, 0) > 40_000_000


def test_what_keeps_both_is_the_smaller_of_each_number_and_the_better_service() -> None:
    both = narrower(
        FlowSpec(token_rate=500, peak_bandwidth=900, service_type=c.SERVICETYPE_GUARANTEED),
        FlowSpec(token_rate=700, peak_bandwidth=800, max_sdu_size=10),
    )
    assert both is not None
    assert (both.token_rate, both.peak_bandwidth) == (500, 800)
    assert (both.max_sdu_size, both.dscp) == (10, 40)
    nothing = FlowSpec(service_type=c.SERVICETYPE_NOTRAFFIC)
    assert narrower(None, None) is narrower(nothing, None) is None
    assert narrower(FlowSpec(token_rate=5), FlowSpec(peak_bandwidth=3)) == FlowSpec(
        token_rate=3, peak_bandwidth=3
    )


def test_a_flow_without_a_rate_is_not_shaped() -> None:
    with pytest.raises(ValueError, match="without a rate"):
        Shaper(FlowSpec(), 0)

"""Properties of the token bucket, over all rates, sizes and times."""

from hypothesis import assume, given
from hypothesis import strategies as st

from joinleaf.core.qos.token_bucket import TokenBucket

NS = 1_000_000_000
RATES = st.integers(1, 10**10)
SIZES = st.lists(st.integers(0, 100_000), min_size=1, max_size=30)


@given(RATES, st.integers(0, 200_000), st.integers(0, 10**9) | st.none(), SIZES, SIZES)
def test_conforming_sends_keep_bucket_and_peak_in_every_window(
    rate: int, bucket: int, extra: int | None, sizes: list[int], pauses: list[int]
) -> None:
    peak = None if extra is None else rate + extra
    shaper = TokenBucket(rate, bucket, peak)
    now, sent = 0, []
    for index, size in enumerate(sizes):
        now += pauses[index % len(pauses)]
        delay = shaper.delay_ns(size, now)
        assert delay == 0 or shaper.delay_ns(size, now + delay - 1) > 0, "never later than needed"
        now += delay
        assert shaper.delay_ns(size, now) == 0, "it conforms after the delay that was told"
        shaper.consume(size, now)
        sent.append((now, size))
    for first, (begin, _) in enumerate(sent):
        for last in range(first, len(sent)):
            elapsed = sent[last][0] - begin
            total = sum(size for _, size in sent[first : last + 1])
            assert total * NS <= max(bucket, *sizes, 0) * NS + rate * elapsed
            if peak is not None:
                assert (total - sent[last][1]) * NS <= peak * elapsed


@given(RATES, st.integers(0, 10**6), st.lists(st.integers(0, 10**9), min_size=1), SIZES)
def test_one_big_poll_equals_many_small_ones(
    rate: int, bucket: int, steps: list[int], sizes: list[int]
) -> None:
    often, once = TokenBucket(rate, bucket, rate), TokenBucket(rate, bucket, rate)
    for size in sizes:
        often.consume(size, 0)
        once.consume(size, 0)
    now = 0
    for step in steps:
        now += step
        often.consume(0, now)
    assert often.delay_ns(1000, now) == once.delay_ns(1000, now)


@given(RATES, st.integers(0, 10**6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_clock_that_goes_back_earns_nothing(rate: int, bucket: int, back: int, at: int) -> None:
    assume(back <= at)
    steady, jumpy = TokenBucket(rate, bucket), TokenBucket(rate, bucket)
    for shaper in (steady, jumpy):
        shaper.consume(2 * bucket + 1, at)
    jumpy.consume(0, at - back)
    jumpy.consume(0, at)
    assert jumpy.delay_ns(bucket, at) == steady.delay_ns(bucket, at)

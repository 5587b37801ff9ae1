"""What a leaf's reports tell of the way to it."""

from joinleaf.core.reliability.path import BASE_WINDOW_NS, BLOCK_SYMBOLS, BLOCKS_KEPT, LeafPath

MS = 1_000_000


def path_with(shares: list[float]) -> LeafPath:
    """A way of one millisecond, with one block for each share of losses."""
    path = LeafPath(0)
    for block, share in enumerate(shares, 1):
        now_ns = 2 * MS * block
        path.round_trip(MS, now_ns)
        assert path.losses(int(share * BLOCK_SYMBOLS), BLOCK_SYMBOLS, now_ns)
        path.close_block(now_ns)
    return path


def test_losses_in_every_block_are_usual_and_only_more_than_twice_as_many_exceed_them() -> None:
    path = path_with([0.05] * 4)
    assert 0.04 < path.usual < 0.06
    path.losses(int(0.06 * BLOCK_SYMBOLS), BLOCK_SYMBOLS, 0)
    assert not path.exceeds
    path.losses(int(0.12 * BLOCK_SYMBOLS), 0, 0)
    assert path.exceeds


def test_losses_in_some_blocks_only_are_not_usual() -> None:
    assert path_with([0.1] * 3).usual == 0, "three blocks tell nothing"
    assert path_with([0.1, 0.0, 0.1, 0.0] * 4).usual == 0
    path = path_with([0.0] * 4)
    path.losses(1, 10, 0)
    assert path.exceeds


def test_a_loss_in_every_block_is_what_a_shared_full_queue_brings() -> None:
    assert path_with([1 / BLOCK_SYMBOLS] * BLOCKS_KEPT).usual == 0


def test_losses_that_have_ceased_are_not_usual_any_more() -> None:
    path = path_with([0.05] * BLOCKS_KEPT + [0.0] * (BLOCKS_KEPT // 2))
    assert path.usual == 0


def test_a_block_takes_two_round_trips_and_so_many_symbols() -> None:
    path = LeafPath(0)
    path.round_trip(MS, 0)
    assert not path.losses(0, 10 * BLOCK_SYMBOLS, 2 * MS - 1)
    assert path.losses(0, 0, 2 * MS)
    path.close_block(2 * MS)
    assert not path.losses(0, BLOCK_SYMBOLS - 1, 9 * MS)
    assert path.losses(0, 1, 10 * MS)


def test_the_queue_is_the_least_wait_of_a_round_beyond_the_least_round_trip() -> None:
    path = LeafPath(0)
    for now_ms, rtt_ms in enumerate((1, 9, 4, 7, 4, 8, 5, 7, 6, 9)):
        path.round_trip(rtt_ms * MS, now_ms * MS)
    assert path.base_ns == MS
    assert path.queue_ns == 3 * MS, "the shortest of the last two rounds' waits, not their mean"


def test_a_longer_way_becomes_the_base_once_the_shorter_is_forgotten() -> None:
    path = LeafPath(0)
    path.round_trip(MS, 0)
    path.round_trip(10 * MS, BASE_WINDOW_NS)
    assert path.base_ns == MS
    path.round_trip(10 * MS, 2 * BASE_WINDOW_NS)
    assert path.base_ns == 10 * MS


def test_the_rate_of_delivery_is_that_of_the_best_round_of_late() -> None:
    path = LeafPath(0)

    def deliver(begin_ms: int, end_ms: int, symbols: int) -> None:
        for now_ms in range(begin_ms, end_ms):
            path.losses(0, symbols, now_ms * MS)
            path.round_trip(MS, now_ms * MS)

    deliver(1, 500, 100)
    deliver(500, 1000, 1)
    assert 90_000 < path.symbols_per_s < 110_000
    deliver(1000, 4000, 1)
    assert path.symbols_per_s < 2000

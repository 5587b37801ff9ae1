"""How much waits in this host: little while it is asked for in time, else more."""

from joinleaf.drivers.local_queue import LEAST_BYTES, LocalQueue


class Port:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.limits: list[int] = []

    def limit_queue(self, size: int) -> None:
        self.limits.append(size)


def test_a_queue_that_never_runs_empty_shrinks_to_two_trains() -> None:
    port = Port()
    queue = LocalQueue(port, 1 << 18)
    for _ in range(200):
        queue.had_room(queue.size, 20_000)
    assert queue.size == 40_000 == port.limits[-1]
    for _ in range(200):
        queue.had_room(queue.size, 1000)
    assert queue.size == LEAST_BYTES


def test_a_queue_that_ran_empty_doubles_up_to_where_it_began() -> None:
    port = Port()
    queue = LocalQueue(port, 1 << 18)
    for _ in range(200):
        queue.had_room(queue.size, 1000)
    for _ in range(9):
        queue.had_room(0, 1000)
    assert queue.size == 1 << 18


def test_a_queue_that_is_neither_full_nor_empty_is_left_alone() -> None:
    port = Port()
    LocalQueue(port, 1 << 18).had_room(1 << 16, 1000)
    assert port.limits == []

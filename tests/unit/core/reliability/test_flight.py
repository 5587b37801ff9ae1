"""What is on the way: sent, and not known of by every leaf."""

from joinleaf.core.reliability.flight import Flight


def test_the_edge_is_where_the_leaf_is_that_knows_least() -> None:
    flight = Flight()
    assert flight.edge(500) == 500, "nobody is there"
    flight.saw(1, 0)
    flight.saw(2, 0)
    assert flight.saw(1, 300) == 0
    assert flight.edge(500) == 0
    assert flight.saw(2, 200) == 200
    assert flight.edge(500) == 200


def test_a_late_report_moves_nothing() -> None:
    flight = Flight()
    flight.saw(1, 0)
    assert flight.saw(1, 300) == 300
    assert flight.saw(1, 200) == 0
    assert flight.edge(500) == 300


def test_a_leaf_that_is_gone_holds_nothing_back() -> None:
    flight = Flight()
    flight.saw(1, 10)
    flight.saw(2, 400)
    flight.forget(1)
    flight.forget(7)
    assert flight.edge(500) == 400


def test_memory_does_not_grow_with_the_reports() -> None:
    flight = Flight()
    flight.saw(1, 0)
    for offset in range(1, 10_000):
        flight.saw(2, offset)
    assert len(flight._heap) < 200
    assert flight.edge(1 << 20) == 0

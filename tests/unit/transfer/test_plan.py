from __future__ import annotations

from joinleaf.transfer.manifest import Entry, Layout, Manifest
from joinleaf.transfer.plan import Piece, Plan
from joinleaf.transfer.ranges import RangeSet


def make_plan(*sizes: int, chunk: int = 10) -> Plan:
    entries = tuple(Entry(f"t/{n}", size=size) for n, size in enumerate(sizes))
    return Plan(Layout(Manifest("folder", "t", entries)), chunk)


def drain(plan: Plan) -> list[Piece]:
    pieces = []
    while (piece := plan.poll_piece(plan.layout.end)) is not None:
        pieces.append(piece)
    return pieces


def test_pieces_go_in_order_to_everybody_and_never_across_files() -> None:
    plan = make_plan(25, 5)
    plan.want("a", RangeSet())
    plan.want("b", RangeSet())
    pieces = [(p.index, p.offset, p.size, p.to) for p in drain(plan)]
    both = ("a", "b")
    assert pieces == [(0, 0, 10, both), (0, 10, 10, both), (0, 20, 5, both), (1, 0, 5, both)]
    assert plan.idle


def test_what_nobody_wants_is_read_once_and_sent_to_nobody() -> None:
    plan = make_plan(30)
    plan.want("a", RangeSet([(0, 25)]))
    assert [(p.offset, p.size, p.to) for p in drain(plan)] == [
        (0, 10, ()),
        (10, 10, ()),
        (20, 5, ()),
        (25, 5, ("a",)),
    ]


def test_pieces_are_cut_where_somebody_begins_to_want() -> None:
    plan = make_plan(10)
    plan.want("a", RangeSet())
    plan.want("b", RangeSet([(0, 4)]))
    assert [(p.offset, p.size, p.to) for p in drain(plan)] == [(0, 4, ("a",)), (4, 6, ("a", "b"))]


def test_late_leaves_share_the_second_pass() -> None:
    plan = make_plan(40)
    plan.want("a", RangeSet())
    plan.poll_piece(40)
    plan.want("b", RangeSet())
    plan.poll_piece(40)
    plan.want("c", RangeSet())
    pieces = drain(plan)
    assert [(p.offset, p.to) for p in pieces] == [
        (20, ("a", "b", "c")),
        (30, ("a", "b", "c")),
        (0, ("b", "c")),
        (10, ("c",)),
    ]
    assert [p.first_pass for p in pieces] == [True, True, False, False]


def test_a_leaf_that_needs_order_is_served_at_its_own_position_only() -> None:
    plan = make_plan(40)
    plan.want("a", RangeSet())
    plan.poll_piece(40)
    plan.want("pipe", RangeSet(), in_order=True)
    offsets = [p.offset for p in drain(plan) if "pipe" in p.to]
    assert offsets == [0, 10, 20, 30]


def test_while_a_stream_has_nothing_new_late_leaves_catch_up() -> None:
    plan = Plan(Layout(Manifest("stream", "s", (Entry("s"),))), 10)
    plan.want("a", RangeSet())
    assert plan.poll_piece(10) == Piece(0, 0, 10, ("a",), True)
    assert plan.poll_piece(10) is None
    plan.want("late", RangeSet())
    assert plan.poll_piece(10) == Piece(0, 0, 10, ("late",), False)
    assert plan.poll_end(10) is None
    plan.finish_stream(10)
    assert plan.poll_end(10) == 0
    assert plan.idle


def test_the_end_of_each_file_is_told_once_when_it_has_been_read() -> None:
    plan = make_plan(0, 10, 0, 10)
    assert [plan.poll_end(20) for _ in range(2)] == [0, None]
    plan.poll_piece(20)
    assert [plan.poll_end(20) for _ in range(3)] == [1, 2, None]


def test_a_file_that_cannot_be_had_is_wanted_by_nobody_any_more() -> None:
    plan = make_plan(20, 20)
    plan.want("a", RangeSet())
    plan.want("has it", RangeSet([(0, 20)]))
    plan.poll_piece(40)
    assert plan.drop_file(0) == ("a",)
    plan.want("late", RangeSet())
    plan.want_again("a", [(0, 40)])
    assert {p.index for p in drain(plan)} == {1}


def test_a_leaf_that_is_dropped_gets_nothing_and_may_ask_for_nothing() -> None:
    plan = make_plan(20)
    plan.want("a", RangeSet())
    plan.drop_leaf("a")
    plan.want_again("a", [(0, 20)])
    assert [p.to for p in drain(plan)] == [(), ()]
    assert plan.outstanding("a") == 0


def test_what_is_asked_for_again_is_sent_again_within_the_object() -> None:
    plan = make_plan(20)
    plan.want("a", RangeSet())
    drain(plan)
    plan.want_again("a", [(5, 8), (15, 1000)])
    assert plan.outstanding("a") == 8
    assert [(p.offset, p.size) for p in drain(plan)] == [(5, 3), (15, 5)]

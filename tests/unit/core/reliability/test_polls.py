"""When the root asks for reports."""

from __future__ import annotations

import pytest

from joinleaf.core.reliability.sender import POLL_LEAST_NS, StreamSender
from joinleaf.core.wire.frames import HEADER as FRAME
from joinleaf.core.wire.reports import Report, report_frame
from joinleaf.core.wire.units import POLL, Layout

WINDOW = 1 << 20
UNITS = 200


@pytest.mark.parametrize(
    ("leaves", "window_ns", "per_window"),
    [
        (1, 4 * POLL_LEAST_NS, 4),  # a window in 2.4 ms: one leaf is asked as often as ever
        (8, 4 * POLL_LEAST_NS, 2),  # eight half as often
        (8, 40 * POLL_LEAST_NS, 4),  # but not where a window takes long
        (40, 4 * POLL_LEAST_NS, 4),  # nor are so many that they back off
        (8, 0, 2),  # and never less than twice in a window
    ],
)
def test_a_window_that_passes_fast_is_asked_for_less_often(
    leaves: int, window_ns: int, per_window: int
) -> None:
    sender = StreamSender(Layout(1_452), tag=1, window_bytes=WINDOW)
    for key in range(leaves):
        sender.add_leaf(key, 1 << 30, 0)
    size = sender.capacity
    polls, now, left = 0, 0, 0
    for _ in range(UNITS):
        sender.begin([bytes(size)], size)
        train = sender.poll_transmit(now)
        assert train is not None
        polls += train.buffer[4] == POLL
        left += len(train.buffer) + 1024
        now += window_ns * len(train.buffer) // WINDOW
        for key in range(leaves):
            report = Report(
                sender.next_unit, sender.next_unit - 1, 0, 0, 1 << 30, False, False, 0, ()
            )
            sender.handle_report(key, memoryview(report_frame(report))[FRAME.size :], now)
    windows = left / WINDOW
    assert polls / windows == pytest.approx(per_window, rel=0.2)

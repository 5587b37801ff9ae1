"""Handles, events, windows and threads, as a Winsock program sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock.objects import (
    WAIT_IO_COMPLETION,
    WAIT_TIMEOUT,
    Handles,
    Objects,
    ThreadState,
    process_objects,
)

BOUND = 10.0  # seconds; the longest any wait here may take before the test is broken


@pytest.fixture
def objects() -> Objects:
    return Objects()


class Background:
    """One call on another thread, and its result."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.result = call()
        except SpiError as error:
            self.result = error.code

    def join(self) -> Any:
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.result


def until_waiting(objects: Objects, handle: int) -> None:
    """Return once somebody waits for the event: seen under the lock that a wait gives up."""
    ticks = threading.Event()
    for _ in range(int(BOUND * 1000)):
        with objects.lock:
            if objects.event(handle).waiters:
                return
        ticks.wait(0.001)
    raise AssertionError("nobody waits")


def test_handles_are_multiples_of_four_and_not_used_again_soon() -> None:
    handles = Handles(first=8, last=20)
    first = [handles.open(name) for name in "abc"]
    assert first == [8, 12, 16]
    assert handles.close(8) == "a"
    assert handles.close(8) is None
    assert handles.open("d") == 20
    assert handles.open("e") == 8
    assert handles.get(12) == "b"


def test_when_all_handles_are_open_the_next_is_refused() -> None:
    handles = Handles(first=8, last=100, most=2)
    handles.open("a"), handles.open("b")
    with pytest.raises(SpiError) as caught:
        handles.open("c")
    assert caught.value.code == codes.WSAENOBUFS
    handles.close(8)
    assert handles.open("c") == 16


def test_an_event_stays_set_until_it_is_reset(objects: Objects) -> None:
    event = objects.create_event()
    assert not objects.wait(event, 0)
    objects.set_event(event)
    assert objects.wait(event, 0)
    assert objects.wait(event, 0)
    objects.reset_event(event)
    assert not objects.is_set(event)


def test_a_set_on_one_thread_wakes_every_waiter_on_others(objects: Objects) -> None:
    event = objects.create_event()
    waiters = [Background(lambda: objects.wait(event, BOUND)) for _ in range(3)]
    until_waiting(objects, event)
    objects.set_event(event)
    assert [waiter.join() for waiter in waiters] == [True] * 3
    assert objects.event(event).waiters == []


def test_waiting_for_any_tells_the_lowest_index_that_is_set(objects: Objects) -> None:
    events = [objects.create_event() for _ in range(64)]
    for index in (63, 5, 40):
        objects.set_event(events[index])
    assert objects.wait_many(events, timeout=0) == 5


def test_waiting_for_all_wants_all_at_the_same_time(objects: Objects) -> None:
    first, second = objects.create_event(), objects.create_event()
    waiting = Background(lambda: objects.wait_many([first, second], wait_all=True, timeout=BOUND))
    until_waiting(objects, second)
    objects.set_event(first)
    objects.reset_event(first)
    objects.set_event(second)
    assert objects.wait_many([first, second], wait_all=True, timeout=0) == WAIT_TIMEOUT
    objects.set_event(first)
    assert waiting.join() == 0


@pytest.mark.parametrize("count", [0, 65])
def test_no_events_or_more_than_64_cannot_be_waited_for(objects: Objects, count: int) -> None:
    event = objects.create_event()
    with pytest.raises(SpiError) as caught:
        objects.wait_many([event] * count, timeout=0)
    assert caught.value.code == codes.WSA_INVALID_PARAMETER


def test_a_closed_event_ends_the_waits_for_it_and_is_no_event_any_more(objects: Objects) -> None:
    event = objects.create_event()
    waiting = Background(lambda: objects.wait(event, BOUND))
    until_waiting(objects, event)
    objects.close_event(event)
    assert waiting.join() == codes.WSA_INVALID_HANDLE
    for call in (objects.set_event, objects.reset_event, objects.close_event, objects.is_set):
        with pytest.raises(SpiError) as caught:
            call(event)
        assert caught.value.code == codes.WSA_INVALID_HANDLE


def test_under_the_lock_copy_clear_and_reset_are_one_step(objects: Objects) -> None:
    event, record, seen = objects.create_event(), [0], 0
    total = 500

    def indicate() -> None:
        for _ in range(total):
            with objects.lock:
                record[0] += 1
                objects.set_event(event)

    producer = Background(indicate)
    while seen < total:
        assert objects.wait(event, BOUND)
        with objects.lock:
            assert record[0] > 0, "the event was set and the record was empty"
            seen += record[0]
            record[0] = 0
            objects.reset_event(event)
    producer.join()
    assert (seen, objects.is_set(event)) == (total, False)


def test_a_message_waits_in_its_window_and_comes_out_in_order(objects: Objects) -> None:
    window, other = objects.create_window(), objects.create_window()
    getting = Background(lambda: objects.get_message(window, BOUND))
    assert objects.post(window, 0x401, 8, 0x10 | 10061 << 16)
    first = getting.join()
    assert (first.hwnd, first.msg, first.wparam) == (window, 0x401, 8)
    assert (first.event, first.error) == (0x10, 10061)
    assert objects.post(window, 1, 0, 0)
    assert objects.post(window, 2, 0, 0)
    assert objects.get_message(other, 0) is None
    taken = [objects.get_message(window, 0) for _ in range(3)]
    assert [message and message.msg for message in taken] == [1, 2, None]


def test_a_message_for_no_window_or_a_full_one_is_refused(objects: Objects) -> None:
    window = objects.create_window()
    assert not objects.post(window + 4, 1, 0, 0)
    posted = sum(objects.post(window, 1, 0, 0) for _ in range(10_001))
    assert posted == 10_000
    objects.destroy_window(window)
    assert not objects.post(window, 1, 0, 0)


def test_a_thread_is_busy_while_a_call_blocks_or_a_callback_runs(objects: Objects) -> None:
    state = objects.thread()
    assert not state.busy
    with state.blocking(lambda: None):
        assert state.busy
        assert not Background(lambda: objects.thread().busy).join()
    with state.callback(), state.callback():
        assert state.busy
    assert not state.busy


def test_cancelling_wakes_the_blocking_call_once_and_needs_one(objects: Objects) -> None:
    state, woken = objects.thread(), [0]

    def wake() -> None:
        woken[0] += 1

    assert not state.cancel_blocking_call()
    with state.blocking(wake) as call:
        assert state.cancel_blocking_call()
        assert state.cancel_blocking_call()
        assert call.cancelled
    assert woken == [1]
    assert not state.cancel_blocking_call()


def test_a_completion_routine_runs_only_in_an_alertable_wait_of_its_thread(
    objects: Objects,
) -> None:
    event, ran = objects.create_event(), list[int]()
    objects.thread().queue_apc(ran.append, 7)
    assert objects.wait_many([event], timeout=0) == WAIT_TIMEOUT
    assert Background(lambda: objects.wait_many([event], timeout=0, alertable=True)).join() == (
        WAIT_TIMEOUT
    )
    assert ran == []
    assert objects.wait_many([event], timeout=BOUND, alertable=True) == WAIT_IO_COMPLETION
    assert ran == [7]


def test_a_routine_queued_from_another_thread_ends_the_alertable_wait(objects: Objects) -> None:
    event, states, ran = objects.create_event(), list[ThreadState](), list[int]()

    def wait() -> int:
        states.append(objects.thread())
        return objects.wait_many([event], timeout=BOUND, alertable=True)

    waiting = Background(wait)
    until_waiting(objects, event)
    states[0].queue_apc(lambda _: ran.append(threading.get_ident()), None)
    assert waiting.join() == WAIT_IO_COMPLETION
    assert len(ran) == 1
    assert ran != [threading.get_ident()]


def test_routines_of_one_socket_never_nest_and_those_of_another_may(objects: Objects) -> None:
    state, ran = objects.thread(), list[str]()

    def outer(_: Any) -> None:
        ran.append("begin")
        objects.sleep(0)
        ran.append("end")

    state.queue_apc(outer, None, source=8)
    state.queue_apc(lambda _: ran.append("same"), None, source=8)
    state.queue_apc(lambda _: ran.append("other"), None, source=12)
    assert objects.sleep(0) == 2
    assert ran == ["begin", "other", "end", "same"]


def test_a_thread_that_never_waits_alertably_is_refused_more_routines(objects: Objects) -> None:
    state = objects.thread()
    for _ in range(65536):
        state.queue_apc(id, None)
    with pytest.raises(SpiError) as caught:
        state.queue_apc(id, None)
    assert caught.value.code == codes.WSAENOBUFS


def test_a_routine_that_raises_leaves_the_rest_queued(objects: Objects) -> None:
    state, ran = objects.thread(), list[int]()
    state.queue_apc(int, "no number", source=8)
    state.queue_apc(ran.append, 7, source=8)
    with pytest.raises(ValueError, match="no number"):
        objects.sleep(0)
    assert objects.sleep(0) == 1
    assert ran == [7]


def test_all_parts_of_one_process_share_its_objects() -> None:
    assert process_objects() is process_objects()
    event = process_objects().create_event(signalled=True)
    assert process_objects().wait(event, 0)
    process_objects().close_event(event)

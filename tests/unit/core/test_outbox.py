"""What one leg has still to send."""

from __future__ import annotations

import pytest

from joinleaf.core.outbox import MAX_VECTOR, Outbox


def rest(outbox: Outbox) -> bytes:
    return b"".join(bytes(part) for part in outbox.head())


def test_an_empty_outbox_is_false_and_offers_nothing() -> None:
    outbox = Outbox()
    assert not outbox
    assert outbox.head() == []
    outbox.own()
    assert outbox.head() == []


@pytest.mark.parametrize("count", range(8))
def test_any_number_of_bytes_can_be_taken_off_the_front(count: int) -> None:
    outbox = Outbox()
    outbox.push(b"abc")
    outbox.extend([b"", b"de", b"fg"], 4)
    outbox.sent(count)
    assert rest(outbox) == b"abcdefg"[count:]
    assert outbox.size == 7 - count
    assert outbox.sent_bytes == count
    assert bool(outbox) is (count < 7)


def test_byte_by_byte_is_the_same_as_at_once() -> None:
    outbox = Outbox()
    outbox.extend([b"abc", bytearray(b"de"), memoryview(b"fg")], 7)
    seen = b""
    while outbox:
        seen += bytes(outbox.head()[0])[:1]
        outbox.sent(1)
    assert seen == b"abcdefg"


@pytest.mark.parametrize("count", [MAX_VECTOR - 1, MAX_VECTOR, MAX_VECTOR + 1])
def test_one_gathering_call_gets_a_bounded_number_of_buffers(count: int) -> None:
    outbox = Outbox()
    for number in range(count):
        outbox.push(bytes([number]))
    assert len(outbox.head()) == min(count, MAX_VECTOR)
    assert rest(outbox) == bytes(range(min(count, MAX_VECTOR)))
    assert outbox.size == count


def test_owned_bytes_do_not_change_with_the_callers_memory() -> None:
    memory = bytearray(b"abcdef")
    outbox = Outbox()
    outbox.push(memoryview(memory))
    outbox.sent(2)
    outbox.own()
    memory[:] = b"zzzzzz"
    assert rest(outbox) == b"cdef"
    assert outbox.size == 4


def test_clear_forgets_what_waits_but_not_what_was_sent() -> None:
    outbox = Outbox()
    outbox.push(b"abc")
    outbox.sent(1)
    outbox.clear()
    assert not outbox
    assert outbox.sent_bytes == 1

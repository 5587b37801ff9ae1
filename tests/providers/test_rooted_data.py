"""jl:// over real sockets: who hears what, limits, slow leaves, shaping, borrowed memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from tests.providers.rooted_world import (
    BOUND,
    Indications,
    World,
    cancelled,
    in_thread,
    receive,
    say,
    target,
    until,
)

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Batch, Buffer, Endpoint, EndReason, JoinRole, SlowPolicy
from joinleaf.spi.qos import FlowSpec, Qos

BIG = 1 << 20
CLOGGING = [bytes([n]) * BIG for n in range(1, 33)]
"""More than any kernel here buffers for one connection; in parts, as a message that has begun is
read to its end whether somebody asks for it or not."""


@pytest.fixture(params=["legs", "group", "jls", "sealed"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Over legs in the clear, over a group, over encrypted legs, over a sealed group."""
    group = "239.255.83.21:48321" if request.param in ("group", "sealed") else None
    with World(group, "jls" if request.param in ("jls", "sealed") else "jl") as made:
        yield made


def goes(sender: Endpoint, message: Buffer, timeout: float) -> bool:
    """Whether a message could be sent in time."""
    try:
        sender.send_many([message], timeout=timeout)
    except SpiError as error:
        if error.code != codes.WSAETIMEDOUT:
            raise
        return False
    return True


def clog(root: Endpoint) -> int:
    """Send to leaves that do not read until no more goes; returns how many messages went."""
    for sent in range(64):
        if not goes(root, bytes(BIG), 0.2):
            return sent
    raise AssertionError("a leaf that does not read must hold up the sender")


def receive_to_the_end(member: Endpoint) -> None:
    """Receive until that raises."""
    while True:
        member.receive_many(timeout=BOUND)


# Who hears whom


def test_in_a_rooted_plane_root_and_leaves_hear_each_other_and_no_leaf_a_leaf(
    world: World,
) -> None:
    root = world.root()
    (one, _), (two, _) = world.join(root), world.join(root)
    root.send_many([b"to all", b"again"])
    one.send_many([b"from one"])
    assert receive(one, 2) == receive(two, 2) == [b"to all", b"again"]
    batch = root.receive_many(timeout=BOUND)
    assert (batch.messages, batch.sender, batch.sequence) == ([b"from one"], one.local_address, 0)
    with pytest.raises(SpiError):
        two.receive_many(timeout=0)


def test_in_a_nonrooted_plane_all_hear_all_others_in_the_order_of_each(world: World) -> None:
    root = world.root(plane="nonrooted")
    leaves = [world.join(root)[0] for _ in range(3)]
    members = [root, *leaves]
    talks = [
        in_thread(say, member, [b"%d:%d" % (number, n) for n in range(50)])
        for number, member in enumerate(members)
    ]
    heard = [in_thread(receive, member, 150) for member in members]
    for talk in talks:
        talk()
    for own, call in enumerate(heard):
        messages = [message.split(b":") for message in call()]
        for sender in range(4):
            numbers = [int(n) for who, n in messages if int(who) == sender]
            assert numbers == ([] if sender == own else list(range(50)))


def test_a_message_for_some_legs_reaches_these_once_and_no_others(world: World) -> None:
    root = world.root()
    pairs = [world.join(root) for _ in range(3)]
    root.send_many([b"chosen"], to=[pairs[0][1], pairs[2][1], pairs[0][1]])
    root.send_many([b"all"])
    assert receive(pairs[0][0], 2) == receive(pairs[2][0], 2) == [b"chosen", b"all"]
    assert receive(pairs[1][0], 1) == [b"all"]


def test_a_leg_that_has_left_does_not_keep_others_from_what_is_sent_to_some(
    world: World,
) -> None:
    root = world.root()
    (one, first), (two, second) = world.join(root), world.join(root)
    # A leaf on its way out whose leg the root still holds open.
    second.close()
    root.send_many([b"for the rest"], to=[first, second])
    assert receive(one, 1) == [b"for the rest"]
    with pytest.raises(SpiError) as error:
        root.send_many([b"nobody"], to=[second])
    assert error.value.code == codes.WSAENOTCONN
    assert two is not None


def test_sending_to_nobody_is_not_connected(world: World) -> None:
    with pytest.raises(SpiError) as error:
        world.root().send_many([b"hello?"])
    assert error.value.code == codes.WSAENOTCONN


def test_side_chat_goes_to_one_leaf_and_is_told_apart(world: World) -> None:
    root = world.root()
    (one, leg), (two, _) = world.join(root), world.join(root)
    root.send_many([b"session"])
    leg.send_many([b"only you", b"and only you"])
    batches: list[Batch] = [one.receive_many(timeout=BOUND) for _ in range(2)]
    assert [(batch.messages, batch.side) for batch in batches] == [
        ([b"session"], False),
        ([b"only you", b"and only you"], True),
    ]
    assert receive(two, 1) == [b"session"]
    with pytest.raises(SpiError):
        two.receive_many(timeout=0)


def test_a_sender_only_leaf_hears_nothing_and_a_receiver_only_one_may_not_send(
    world: World,
) -> None:
    root = world.root()
    speaker, _ = world.join(root, role=JoinRole.SENDER_ONLY)
    hearer, _ = world.join(root, role=JoinRole.RECEIVER_ONLY)
    speaker.send_many([b"up"])
    root.send_many([b"down"])
    assert receive(root, 1) == [b"up"]
    assert receive(hearer, 1) == [b"down"]
    for refused in (
        lambda: speaker.receive_many(timeout=0),
        lambda: hearer.send_many([b"no"], timeout=0),
    ):
        with pytest.raises(SpiError) as error:
            refused()
        assert error.value.code == codes.WSAEOPNOTSUPP


# Sizes


def test_messages_of_all_sizes_arrive_whole_and_in_order(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    sizes = (0, 1, 2, 255, 8191, 8192, 65535, 65536, 70_000, BIG, 5 * BIG + 1, 0)
    messages = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    for sender, receiver in ((root, leaf), (leaf, root)):
        heard = in_thread(receive, receiver, 3 * len(messages))
        sender.send_many(messages, timeout=BOUND)  # together
        for message in messages:  # one by one, not only as bytes
            sender.send_many([bytearray(message)], timeout=BOUND)
        sender.send_many([memoryview(message) for message in messages[::-1]], timeout=BOUND)
        assert heard() == messages * 2 + messages[::-1]


def test_thousands_of_small_messages_in_one_batch_arrive_in_order(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    messages = [b"%d" % n for n in range(50_000)]
    heard = in_thread(lambda: receive(leaf, len(messages)))
    root.send_many(messages, timeout=BOUND)
    assert heard() == messages


def test_a_message_over_the_limit_is_refused_and_nothing_is_sent(world: World) -> None:
    root = world.root(max_message=100_000)
    leaf, leg = world.join(root, world.leaf(max_message=100_000))
    for sender in (root, leaf, leg):
        with pytest.raises(SpiError, match="100001 bytes is over the limit of 100000") as error:
            sender.send_many([b"before", bytes(100_001), b"after"])
        assert error.value.code == codes.WSAEMSGSIZE
    root.send_many([bytes(100_000)])
    leaf.send_many([bytes(100_000)])
    assert receive(leaf, 1) == receive(root, 1) == [bytes(100_000)]


def test_a_leaf_that_takes_only_shorter_messages_is_told_so_at_the_join(world: World) -> None:
    root = world.root()
    with pytest.raises(SpiError, match="the leaf takes 1000: raise its max_message"):
        world.leaf(max_message=1000).join_leaf(target(root), timeout=BOUND)
    root = world.root(max_message=1000)
    leaf, _ = world.join(root)  # takes longer ones, and may send only what the root takes
    with pytest.raises(SpiError, match="over the limit of 1000") as error:
        leaf.send_many([bytes(1001)])
    assert error.value.code == codes.WSAEMSGSIZE


def test_text_is_refused_with_the_way_out(world: World) -> None:
    root = world.root()
    world.join(root)
    with pytest.raises(TypeError, match="encode"):
        root.send_many(["text"])  # type: ignore[list-item]  # the mistake under test


# Waiting for slow leaves


def test_a_sender_that_waits_times_out_with_nothing_sent(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    sent = clog(root)
    for n in range(3):
        with pytest.raises(SpiError) as error:
            root.send_many([b"never"], timeout=0.05 if n else 0)
        assert error.value.code == (codes.WSAETIMEDOUT if n else codes.WSAEWOULDBLOCK)
    heard = in_thread(lambda: receive(leaf, sent + 1))
    root.send_many([b"at last"], timeout=BOUND)
    assert heard()[-1] == b"at last"


def test_borrowed_memory_may_be_reused_as_soon_as_send_returns(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    buffer = bytearray(BIG)
    expected = []
    for number in range(1, 64):
        buffer[:] = bytes([number]) * BIG
        if not goes(root, memoryview(buffer), 0.1):
            break
        expected.append(bytes([number]))
        buffer[:] = b"\xff" * BIG
    heard = receive(leaf, len(expected))
    assert [message[:1] for message in heard] == expected
    assert all(message == message[:1] * BIG for message in heard)
    buffers = [bytearray(message) for message in CLOGGING]
    leaf.send_many(buffers, timeout=0.1)
    assert leaf.statistics()["bytes_queued"] > 0
    for buffer in buffers:
        buffer[:] = b"\xff" * BIG
    assert receive(root, len(CLOGGING)) == CLOGGING


def test_one_stalled_leaf_does_not_leave_others_with_half_a_message(world: World) -> None:
    root = world.root()
    stalled, _ = world.join(root)
    leaves = [world.join(root)[0] for _ in range(2)]
    heard = [in_thread(receive, leaf, 32) for leaf in leaves]
    sending = in_thread(lambda: root.send_many(CLOGGING))
    for call in heard:
        assert call() == CLOGGING
    assert not sending.done
    assert receive(stalled, 32) == CLOGGING
    sending()


def test_a_send_that_waits_ends_when_the_leaf_leaves(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    clog(root)
    sending = in_thread(lambda: root.send_many([b"x"]))
    leg.close(abort=True)
    with pytest.raises(SpiError) as error:
        sending()
    assert error.value.code == codes.WSAENOTCONN
    assert leaf is not None


def test_a_send_that_waits_is_cancelled_from_another_thread(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    sent = clog(root)
    sending = in_thread(lambda: root.send_many([b"never"]))
    cancelled(sending, root.cancel)
    with pytest.raises(SpiError) as error:
        sending()
    assert error.value.code == codes.WSAEINTR
    heard = in_thread(lambda: receive(leaf, sent + 1))
    root.send_many([b"next"], timeout=BOUND)
    assert heard()[-1] == b"next"


def test_a_cancelled_send_whose_batch_is_on_its_way_has_sent_it(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    for sender, receiver in ((root, leaf), (leaf, root)):
        sending = in_thread(sender.send_many, [*CLOGGING, b"end"])
        while not sender.statistics()["bytes_queued"]:
            assert not sending.done
        assert not sending.done
        cancelled(sending, sender.cancel)
        sending()
        assert receive(receiver, 33)[-1] == b"end"


def test_a_second_thread_in_one_direction_is_turned_away(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    receiving = in_thread(lambda: leaf.receive_many())
    until(lambda: leaf._receiving._lock.locked())
    with pytest.raises(SpiError) as error:
        leaf.receive_many(timeout=0)
    assert error.value.code == codes.WSAEINPROGRESS
    leaf.send_many([b"the other direction is free"])
    root.send_many([b"x"])
    assert receiving().messages == [b"x"]


def test_a_leaf_under_drop_misses_messages_and_is_told_the_exact_count(world: World) -> None:
    root = world.root(slow=SlowPolicy.DROP, queue_bytes=BIG)
    leaf, leg = world.join(root)
    total = 48
    for number in range(total):
        root.send_many([bytes([number]) * BIG], timeout=0)  # never waits
    dropped = leg.statistics()["messages_dropped"]
    assert 0 < dropped <= total
    got, gaps, due = [], 0, 0
    while due < total:
        batch = leaf.receive_many(timeout=BOUND)
        gaps += batch.gap
        assert batch.sequence == due + batch.gap
        got += [message[0] for message in batch.messages]
        due = batch.sequence + len(batch.messages)
    # By the group, the root counts from what the leaf has acknowledged; it may have had more.
    assert gaps == dropped if world.group is None else gaps <= dropped
    assert len(got) == total - gaps
    assert got or world.group  # what lies unread when the root gives up is skipped as well
    assert got == sorted(got)


def test_a_leaf_under_expel_is_put_out_and_the_others_go_on(world: World) -> None:
    root = world.root(slow=SlowPolicy.EXPEL, queue_bytes=BIG)
    (slow, leg), (quick, quick_leg) = world.join(root), world.join(root)
    news = Indications(leg)
    heard = in_thread(lambda: receive(quick, 40))
    for _ in range(40):
        root.send_many([bytes(BIG)], timeout=0)
        until(lambda: quick_leg.statistics()["bytes_queued"] == 0)
    assert news.wait(c.FD_CLOSE).reason is EndReason.SLOW
    assert len(heard()) == 40
    assert root.statistics()["leaves_expelled_slow"] == 1
    with pytest.raises(SpiError) as error:
        receive_to_the_end(slow)
    assert (error.value.code, error.value.reason) == (codes.WSAECONNABORTED, EndReason.SLOW)


def test_a_nonrooted_session_goes_on_once_a_leaf_has_caught_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading pauses for whoever is behind, and must not stay paused; the log says who it is."""
    caplog.set_level(logging.INFO, "joinleaf")
    root = world.root(plane="nonrooted", queue_bytes=65536)
    (talker, _), (late, _) = world.join(root), world.join(root)
    at_root = in_thread(lambda: receive(root, 24))
    sending = in_thread(say, talker, [bytes(BIG)] * 24)
    until(lambda: root._driver.paused)
    # By the group the reports of the talker, behind all it says, can be what is waited for first.
    named = (
        [late.local_address] if world.group is None else [late.local_address, talker.local_address]
    )
    until(lambda: any(f"{member} is " in caplog.text for member in named))
    assert receive(late, 24) == [bytes(BIG)] * 24
    sending()
    at_root()


# A member that does not fetch what it is sent. By the group, what one has in common with all
# waits in the root's window, not in a queue of its own: tests/providers/test_rooted_group.py.


@pytest.fixture
def legs() -> Iterator[World]:
    with World() as made:
        yield made


def test_a_full_inbox_holds_the_sender_and_not_joins_or_leaves(legs: World) -> None:
    root = legs.root()
    talker, _ = legs.join(root)
    sending = in_thread(say, talker, [bytes(BIG)] * 24)
    until(lambda: root.statistics()["bytes_received_waiting"] > BIG)
    other, _ = legs.join(root)
    root.send_many([b"still here"])
    assert receive(other, 1) == [b"still here"]
    assert root.statistics()["bytes_received_waiting"] < 8 * BIG
    assert not sending.done
    assert receive(root, 24) == [bytes(BIG)] * 24
    sending()


def test_closing_with_a_full_inbox_does_not_wait_for_anybody(world: World) -> None:
    root = world.root()
    leaf, leg = world.join(root)
    news = Indications(leg)
    root.send_many([bytes(BIG)] * 3, timeout=0.1)
    until(lambda: leaf.statistics()["bytes_received_waiting"] >= BIG)
    leaf.close(linger=BOUND)
    assert leaf._driver.closed
    assert news.wait(c.FD_CLOSE).reason is EndReason.CLOSED


def test_what_arrives_after_receiving_was_shut_down_holds_up_nobody(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    leaf.shutdown(c.SD_RECEIVE)
    root.send_many(CLOGGING, timeout=BOUND)
    until(lambda: root.statistics()["bytes_queued"] == 0)
    with pytest.raises(SpiError) as error:
        leaf.receive_many(timeout=0)
    assert error.value.code == codes.WSAESHUTDOWN


def test_gaps_and_tiny_frames_cost_inbox_room_as_well(legs: World) -> None:
    root = legs.root()
    leaf, _ = legs.join(root)
    for _ in range(8000):
        root.send_many([b"x"])
    until(lambda: root.statistics()["bytes_queued"] == 0)
    until(lambda: leaf._holding)
    assert leaf.statistics()["bytes_received_waiting"] < BIG
    assert receive(leaf, 8000) == [b"x"] * 8000


# Rates


def test_sending_keeps_to_the_agreed_rate(world: World) -> None:
    root = world.root()
    flow = FlowSpec(token_rate=4_000_000, token_bucket_size=100_000)
    leaf, _ = world.join(root, qos=Qos(flow, FlowSpec()))
    heard = in_thread(lambda: receive(root, 40))
    began = time.monotonic()
    for _ in range(40):
        leaf.send_many([bytes(50_000)])
    took = time.monotonic() - began
    heard()
    assert took > (40 * 50_000 - 150_000) / 4_000_000 * 0.95


def test_a_view_is_shaped_by_its_bytes_not_its_items(world: World) -> None:
    root = world.root()
    flow = FlowSpec(token_rate=1_000_000, token_bucket_size=100_000)
    leaf, _ = world.join(root, qos=Qos(flow, FlowSpec()))
    view = memoryview(bytes(200_000)).cast("q")
    leaf.send_many([view])
    with pytest.raises(SpiError) as error:
        leaf.send_many([view], timeout=0.02)
    assert error.value.code == codes.WSAETIMEDOUT
    assert receive(root, 1) == [bytes(200_000)]


def test_a_send_that_cannot_conform_in_its_time_is_not_sent(world: World) -> None:
    root = world.root()
    root.ioctl(c.SIO_SET_QOS, Qos(FlowSpec(token_rate=100_000, token_bucket_size=1000), FlowSpec()))
    leaf, _ = world.join(root)
    root.send_many([bytes(50_000)], timeout=0.01)
    with pytest.raises(SpiError) as error:
        root.send_many([b"too soon"], timeout=0.01)
    assert error.value.code == codes.WSAETIMEDOUT
    assert receive(leaf, 1) == [bytes(50_000)]
    with pytest.raises(SpiError):
        leaf.receive_many(timeout=0)


def test_an_invited_leaf_sends_at_its_own_rate_and_not_at_the_roots(world: World) -> None:
    root, listener = world.root(), world.listener()
    root_to_leaf, leaf_to_root = (
        FlowSpec(token_rate=rate, token_bucket_size=1000) for rate in (1000, 100_000_000)
    )
    accepted = in_thread(lambda: listener.accept(timeout=BOUND))
    root.join_leaf(target(listener), qos=Qos(root_to_leaf, leaf_to_root), timeout=BOUND)
    member = accepted()
    for _ in range(3):  # at the root's rate the third would be due after minutes
        member.send_many([bytes(100_000)], timeout=BOUND)
    assert receive(root, 3) == [bytes(100_000)] * 3
    member.close()


def test_a_leaf_that_joins_while_a_send_is_under_way_gets_none_of_it(world: World) -> None:
    root = world.root()
    slow, _ = world.join(root)
    sending = in_thread(lambda: root.send_many(CLOGGING))
    until(lambda: root.statistics()["bytes_queued"])
    late, _ = world.join(root)
    heard = in_thread(lambda: receive(slow, 33))
    sending()
    root.send_many([b"next"])
    assert heard()[-1] == b"next"
    assert receive(late, 1) == [b"next"]

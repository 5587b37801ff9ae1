"""The data plane of mem: who hears whom, slow listeners, gaps, ends, descriptors, and waiting."""

from __future__ import annotations

import select
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.memory import MemoryProvider
from joinleaf.providers.memory_hub import Readiness
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import (
    Batch,
    Endpoint,
    EndpointEvent,
    EndReason,
    JoinRole,
    Roles,
    Settings,
    SlowPolicy,
)
from joinleaf.values import Address, SessionAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.providers.conftest import World

PATIENCE = 10.0
QUIET = Settings(loopback=False)
SMALL = 65536


def code_of(call: Callable[[], object]) -> int:
    """The number a call is refused with."""
    with pytest.raises(SpiError) as refusal:
        call()
    return refusal.value.code


def heard(endpoint: Endpoint) -> list[bytes]:
    """All there is to receive."""
    found: list[bytes] = []
    while True:
        try:
            found += endpoint.receive_many(timeout=0).messages
        except SpiError as error:
            if error.code != codes.WSAEWOULDBLOCK:
                raise
            return found


# Who hears whom (model 10.1)


def test_rooted_control_and_data(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    for leaf in (one, two):
        world.admit(root, leaf)
    root.send_many([b"R"])
    one.send_many([b"L"])
    assert (heard(root), heard(one), heard(two)) == ([b"L"], [b"R"], [b"R"])


def test_rooted_control_nonrooted_data(world: World) -> None:
    root = world.root(QUIET, plane="nonrooted")
    one, two = (world.leaf(QUIET, plane="nonrooted") for _ in range(2))
    for leaf in (one, two):
        world.admit(root, leaf)
    root.send_many([b"R"])
    one.send_many([b"1"])
    two.send_many([b"2"])
    assert (heard(root), heard(one), heard(two)) == ([b"1", b"2"], [b"R", b"2"], [b"R", b"1"])


def test_the_data_root_may_be_a_leaf(world: World) -> None:
    root = world.root(d_root=False)
    source, leaf = world.leaf(d_root=True), world.leaf()
    world.admit(root, leaf)
    assert code_of(lambda: leaf.send_many([b"nobody"])) == codes.WSAENOTCONN
    assert code_of(lambda: root.send_many([b"nobody"])) == codes.WSAENOTCONN
    world.admit(root, source)
    source.send_many([b"S"])
    root.send_many([b"R"])
    leaf.send_many([b"L"])
    assert (heard(root), heard(leaf), heard(source)) == ([b"S"], [b"S"], [b"R", b"L"])


def test_an_invited_leaf_may_be_the_data_root(world: World) -> None:
    root, listener = world.root(d_root=False), world.listener(d_root=True)
    _, member = world.invite(root, listener)
    member.send_many([b"S"])
    assert heard(root) == [b"S"]


def test_nonrooted_control_rooted_data(world: World) -> None:
    source = world.member(plane="rooted", d_root=True)
    one, two = (world.member(plane="rooted") for _ in range(2))
    source.send_many([b"S"])
    one.send_many([b"L"])
    assert (heard(source), heard(one), heard(two)) == ([b"L"], [b"S"], [b"S"])


def test_nonrooted_control_and_data_with_loopback_by_member(world: World) -> None:
    loud, quiet = world.member(), world.member(QUIET)
    loud.send_many([b"1"])
    quiet.send_many([b"2"])
    assert (heard(loud), heard(quiet)) == ([b"1", b"2"], [b"1"])
    loud.ioctl(c.SIO_MULTIPOINT_LOOPBACK, False)
    quiet.ioctl(c.SIO_MULTIPOINT_LOOPBACK, True)
    loud.send_many([b"3"])
    quiet.send_many([b"4"])
    assert (heard(loud), heard(quiet)) == ([b"4"], [b"3", b"4"])


def test_sessions_of_other_names_and_other_providers_hear_nothing(world: World) -> None:
    here = world.member(QUIET)
    other = MemoryProvider()
    info = other.select(SessionAddress.parse("mem://x?control=nonrooted&plane=nonrooted"))
    there = other.open(info, Roles())
    there.join_leaf(Address("session"))
    here.send_many([b"x"])
    assert heard(there) == []
    assert there.session_id != here.session_id
    there.close()


def test_the_roots_role_is_the_union_of_its_invitations(world: World) -> None:
    root = world.open(Roles(c_root=True, d_root=True))
    _, first = world.invite(root, world.listener(), role=JoinRole.SENDER_ONLY)
    assert code_of(lambda: root.receive_many(timeout=0)) == codes.WSAEOPNOTSUPP
    assert code_of(lambda: first.send_many([b"x"])) == codes.WSAENOTCONN
    world.invite(root, world.listener(), role=JoinRole.RECEIVER_ONLY)
    first.send_many([b"x"])
    assert heard(root) == [b"x"]


def test_chosen_legs_are_outside_the_numbering(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    leg, _ = world.admit(root, one)
    world.admit(root, two)
    root.send_many([b"0"])
    root.send_many([b"only one"], to=[leg])
    root.send_many([b"1"])
    batches = [one.receive_many(timeout=0) for _ in range(3)]
    assert [(batch.messages, batch.sequence) for batch in batches] == [
        ([b"0"], 0),
        ([b"only one"], -1),
        ([b"1"], 1),
    ]
    assert two.receive_many(timeout=0).messages == [b"0", b"1"]
    other = world.open(Roles(c_root=True, d_root=True))
    stranger, _ = world.invite(other, world.listener())
    assert code_of(lambda: root.send_many([b"x"], to=[stranger])) == codes.WSAEINVAL
    assert code_of(lambda: one.send_many([b"x"], to=[leg])) == codes.WSAEOPNOTSUPP
    one.close()
    assert code_of(lambda: root.send_many([b"x"], to=[leg])) == codes.WSAENOTCONN


def test_side_chat_reaches_one_leaf_and_is_marked(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    leg, _ = world.admit(root, one)
    world.admit(root, two)
    leg.send_many([b"psst"])
    batch = one.receive_many(timeout=0)
    assert (batch.messages, batch.side, batch.sequence) == ([b"psst"], True, -1)
    assert heard(two) == []


def test_what_is_received_is_the_receivers_own(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    for leaf in (one, two):
        world.admit(root, leaf)
    memory = bytearray(b"abc")
    root.send_many([memory, memoryview(memory)[1:]])
    memory[:] = b"xyz"
    first = one.receive_many(timeout=0)
    first.messages.clear()
    second = two.receive_many(timeout=0)
    assert second.messages == [b"abc", b"bc"]
    assert second.sender == root.local_address
    assert abs(second.time_ns - time.time_ns()) < PATIENCE * 1e9


def test_a_batch_is_one_senders_and_numbers_go_on(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    for leaf in (one, two):
        world.admit(root, leaf)
    one.send_many([b"a", b"b"])
    one.send_many([b"c"])
    two.send_many([b"x"])
    one.send_many([b"d"])
    seen = [root.receive_many(timeout=0) for _ in range(3)]
    assert [(batch.messages, batch.sender, batch.sequence) for batch in seen] == [
        ([b"a", b"b", b"c"], one.local_address, 0),
        ([b"x"], two.local_address, 0),
        ([b"d"], one.local_address, 3),
    ]


# Slow listeners


def filled(world: World, slow: SlowPolicy) -> tuple[Endpoint, Endpoint, Endpoint]:
    """A root, a leaf with a full queue, and its leg."""
    root, leaf = world.root(Settings(slow=slow, queue_bytes=SMALL)), world.leaf()
    leg, _ = world.admit(root, leaf)
    root.send_many([bytes(SMALL)])
    return root, leaf, leg


def test_wait_sends_nothing_to_anybody_until_there_is_room_for_all(world: World) -> None:
    root, leaf, leg = filled(world, SlowPolicy.WAIT)
    fast = world.leaf()
    world.admit(root, fast)
    assert code_of(lambda: root.send_many([b"x"], timeout=0)) == codes.WSAEWOULDBLOCK
    assert code_of(lambda: root.send_many([b"x"], timeout=0.01)) == codes.WSAETIMEDOUT
    assert heard(fast) == []
    assert leg.statistics()["bytes_queued"] > SMALL
    sending = world.run(lambda: root.send_many([b"y"], timeout=PATIENCE))
    assert leaf.receive_many(timeout=0).messages == [bytes(SMALL)]
    sending.result()
    assert heard(leaf) == heard(fast) == [b"y"]


def test_wait_is_told_by_fd_write_when_there_is_room(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.WAIT)
    assert code_of(lambda: root.send_many([b"x"], timeout=0)) == codes.WSAEWOULDBLOCK
    before = len(world.of(root, c.FD_WRITE))
    leaf.receive_many(timeout=0)
    assert len(world.of(root, c.FD_WRITE)) == before + 1
    root.send_many([b"x"], timeout=0)


def test_wait_ends_when_the_slow_leaf_leaves(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.WAIT)
    fast = world.leaf()
    world.admit(root, fast)
    sending = world.run(lambda: root.send_many([b"y"], timeout=PATIENCE))
    leaf.close()
    sending.result()
    assert heard(fast) == [b"y"]


def test_drop_tells_the_leaf_how_many_even_if_nothing_follows(world: World) -> None:
    root, leaf, leg = filled(world, SlowPolicy.DROP)
    fast = world.leaf()
    world.admit(root, fast)
    root.send_many([b"1", b"2"], timeout=0)
    root.send_many([b"3"], timeout=0)
    assert heard(fast) == [b"1", b"2", b"3"]
    assert leg.statistics()["messages_dropped"] == 3
    first = leaf.receive_many(timeout=0)
    gap = leaf.receive_many(timeout=0)
    assert (first.sequence, first.messages, first.gap) == (0, [bytes(SMALL)], 0)
    assert (gap.messages, gap.gap, gap.sequence) == ([], 3, 4)
    root.send_many([b"4"], timeout=0)
    after = leaf.receive_many(timeout=0)
    assert (after.messages, after.gap, after.sequence) == ([b"4"], 0, 4)
    assert leaf.statistics()["messages_missed"] == 3


def test_drop_puts_the_gap_before_what_follows_it(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.DROP)
    root.send_many([b"1"], timeout=0)
    assert len(leaf.receive_many(timeout=0).messages) == 1
    root.send_many([b"2"], timeout=0)
    batch = leaf.receive_many(timeout=0)
    assert (batch.messages, batch.gap, batch.sequence) == ([b"2"], 1, 2)


def test_expel_ends_the_slow_leafs_leg_and_goes_on(world: World) -> None:
    root, leaf, leg = filled(world, SlowPolicy.EXPEL)
    fast = world.leaf()
    world.admit(root, fast)
    root.send_many([b"x"], timeout=0)
    assert heard(fast) == [b"x"]
    (event,) = world.of(leg, c.FD_CLOSE)
    assert (event.code, event.reason) == (codes.WSAECONNABORTED, EndReason.SLOW)
    assert leaf.receive_many(timeout=0).messages == [bytes(SMALL)]
    assert code_of(lambda: leaf.receive_many(timeout=0)) == codes.WSAECONNABORTED
    assert root.statistics()["leaves_expelled_slow"] == 1


@pytest.mark.parametrize("slow", list(SlowPolicy))
def test_a_root_is_always_waited_for(world: World, slow: SlowPolicy) -> None:
    root, leaf = world.root(Settings(slow=slow, queue_bytes=SMALL)), world.leaf()
    world.admit(root, leaf)
    leaf.send_many([bytes(SMALL)], timeout=0)
    assert code_of(lambda: leaf.send_many([b"x"], timeout=0)) == codes.WSAEWOULDBLOCK
    assert len(heard(root)) == 1
    leaf.send_many([b"x"], timeout=0)


def test_in_a_nonrooted_session_the_senders_policy_counts_and_expel_drops(world: World) -> None:
    sender = world.member(Settings(slow=SlowPolicy.EXPEL, queue_bytes=SMALL, loopback=False))
    listener = world.member()
    for _ in range(2):
        sender.send_many([bytes(SMALL)], timeout=0)
    batches = [listener.receive_many(timeout=0) for _ in range(2)]
    assert [batch.gap for batch in batches] == [0, 1]


def test_nobody_waits_for_the_echo_of_its_own_words(world: World) -> None:
    member = world.member(Settings(queue_bytes=SMALL))
    for _ in range(3):
        member.send_many([bytes(SMALL)], timeout=0)
    batches = [member.receive_many(timeout=0) for _ in range(2)]
    assert [(len(batch.messages), batch.gap) for batch in batches] == [(1, 0), (0, 2)]


def test_empty_messages_count_too(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.WAIT)
    leaf.receive_many(timeout=0)
    root.send_many([b""] * (SMALL // 16), timeout=0)
    assert code_of(lambda: root.send_many([b""], timeout=0)) == codes.WSAEWOULDBLOCK
    assert len(leaf.receive_many(timeout=0).messages) <= SMALL // 16


# Losses on demand


def test_every_third_message_of_a_nonrooted_session_is_lost_and_told(world: World) -> None:
    sender, listener = world.member(QUIET), world.member()
    world.faults.drop_every = 3
    sender.send_many([b"%d" % number for number in range(9)])
    seen: list[Batch] = [listener.receive_many(timeout=0) for _ in range(4)]
    assert [(batch.messages, batch.gap, batch.sequence) for batch in seen] == [
        ([b"0", b"1"], 0, 0),
        ([b"3", b"4"], 1, 3),
        ([b"6", b"7"], 1, 6),
        ([], 1, 9),
    ]


def test_rooted_sessions_lose_nothing(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    world.faults.drop_every = 1
    root.send_many([b"x"])
    assert heard(leaf) == [b"x"]


# Limits, shutting down, closing


def test_a_batch_with_one_message_too_long_is_refused_whole(world: World) -> None:
    root, leaf = world.root(Settings(max_message=3)), world.leaf()
    world.admit(root, leaf)
    assert code_of(lambda: root.send_many([b"abc", b"abcd"])) == codes.WSAEMSGSIZE
    assert root.get_option(c.SO_MAX_MSG_SIZE) == 3
    root.send_many([b"abc"])
    assert heard(leaf) == [b"abc"]
    with pytest.raises(TypeError):
        root.send_many([5])  # type: ignore[list-item]  # wrong on purpose


def test_dissolving_tells_all_and_keeps_what_has_arrived(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    leaf.send_many([b"up"])
    root.send_many([b"down"])
    waiting = world.leaf()
    waiting.start_join_leaf(root.local_address)
    root.shutdown(c.SD_SEND, data=b"over")
    assert code_of(waiting.join_result) == codes.WSAECONNREFUSED
    assert [event.data for event in world.of(leg, c.FD_CLOSE)] == [b"over"]
    assert world.of(root, c.FD_CLOSE) == []
    assert heard_then_end(root) == ([b"up"], 10101, "dissolved")
    assert heard_then_end(leaf) == ([b"down"], 10101, "dissolved")
    assert code_of(lambda: root.send_many([b"x"])) == codes.WSAESHUTDOWN
    root.shutdown(c.SD_BOTH)


def heard_then_end(endpoint: Endpoint) -> tuple[list[bytes], int, str]:
    found = endpoint.receive_many(timeout=0).messages
    with pytest.raises(SpiError) as end:
        endpoint.receive_many(timeout=0)
    return found, end.value.code, end.value.reason


def test_shutting_down_a_leg_expels_and_a_leaf_leaves(world: World) -> None:
    root, one, two = world.root(), world.leaf(), world.leaf()
    leg, _ = world.admit(root, one)
    other, _ = world.admit(root, two)
    leg.shutdown(c.SD_SEND, data=b"out")
    two.shutdown(c.SD_SEND, data=b"bye")
    assert world.of(one, c.FD_CLOSE)[0].reason is EndReason.EXPELLED
    assert world.of(other, c.FD_CLOSE)[0].data == b"bye"
    assert code_of(lambda: two.send_many([b"x"])) == codes.WSAESHUTDOWN
    assert code_of(lambda: root.send_many([b"x"])) == codes.WSAENOTCONN


def test_shutting_down_receiving_is_local_and_holds_nobody_up(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.WAIT)
    leaf.shutdown(c.SD_RECEIVE)
    assert code_of(lambda: leaf.receive_many(timeout=0)) == codes.WSAESHUTDOWN
    root.send_many([bytes(SMALL)], timeout=0)
    root.send_many([b"x"], timeout=0)
    leaf.send_many([b"up"])
    assert heard(root) == [b"up"]
    assert code_of(lambda: leaf.shutdown(7)) == codes.WSAEINVAL


def test_an_abortive_close_is_told_as_a_reset(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    leaf.close(abort=True)
    (event,) = world.of(leg, c.FD_CLOSE)
    assert (event.code, event.reason) == (codes.WSAECONNRESET, EndReason.LOST)


def test_a_reason_given_on_closing_is_the_one_told(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    leg, _ = world.admit(root, leaf)
    leg.close(reason=EndReason.SLOW)
    assert world.of(leaf, c.FD_CLOSE)[0].reason is EndReason.SLOW


def test_too_much_disconnect_data_closes_nothing(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    assert code_of(lambda: leaf.close(data=bytes(65537))) == codes.WSAEFAULT
    leaf.send_many([b"still here"])
    leaf.close(data=bytes(65536))
    leaf.close()


# Waiting, from several threads


def test_close_and_cancel_end_every_wait(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    for end in (leaf.cancel, leaf.close):
        receiving = world.run(leaf.receive_many)
        wait_until_receiving(leaf)
        while receiving.is_running:
            end()
        assert code_of(receiving.result) == codes.WSAEINTR
    accepting = world.run(root.accept)
    while accepting.is_running:
        root.cancel()
    assert code_of(accepting.result) == codes.WSAEINTR


def wait_until_receiving(endpoint: Endpoint) -> None:
    end = time.monotonic() + PATIENCE
    while code_of(lambda: endpoint.receive_many(timeout=0)) != codes.WSAEINPROGRESS:
        assert time.monotonic() < end


def test_a_second_sender_is_refused_while_the_first_waits(world: World) -> None:
    root, leaf, _ = filled(world, SlowPolicy.WAIT)
    sending = world.run(lambda: root.send_many([b"first"], timeout=PATIENCE))
    end = time.monotonic() + PATIENCE
    while code_of(lambda: root.send_many([b"second"], timeout=0)) != codes.WSAEINPROGRESS:
        assert time.monotonic() < end
    leaf.receive_many(timeout=0)
    sending.result()
    assert heard(leaf) == [b"first"]


def test_callbacks_may_call_back_and_their_errors_stay_with_them(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    answers: list[bytes] = []

    def answer(endpoint: Endpoint, event: EndpointEvent) -> None:
        if event.kind != c.FD_READ:
            return
        answers.extend(heard(endpoint))
        if len(answers) < 3:
            endpoint.send_many([b"again"])
        raise RuntimeError("mine")

    def ask(endpoint: Endpoint, event: EndpointEvent) -> None:
        if event.kind == c.FD_READ:
            endpoint.send_many([b"ask"] * len(heard(endpoint)))

    leaf.subscribe(answer)
    root.subscribe(ask)
    root.send_many([b"ask"])
    assert answers == [b"ask"] * 3
    assert "a subscriber of LeafEndpoint raised" in caplog.text


def test_nothing_is_indicated_under_a_lock_of_the_provider(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    free: list[bool] = []

    def elsewhere(_: Endpoint, __: object) -> None:
        done = threading.Event()

        def look() -> None:
            root.statistics()
            done.set()

        threading.Thread(target=look, daemon=True).start()
        free.append(done.wait(PATIENCE))

    leaf.subscribe(elsewhere)
    world.admit(root, leaf)
    assert free
    assert all(free)


def test_a_late_subscriber_is_told_what_is_true_already(world: World) -> None:
    root, leaf, asking = world.root(), world.leaf(), world.leaf()
    for endpoint in (root, leaf):
        endpoint.subscribe(None)
    leg, _ = world.admit(root, leaf)
    asking.start_join_leaf(root.local_address)
    root.send_many([b"x"])
    kinds: list[int] = []
    root.subscribe(lambda _, event: kinds.append(event.kind))
    assert kinds == [c.FD_ACCEPT, c.FD_WRITE]
    kinds.clear()
    leaf.subscribe(lambda _, event: kinds.append(event.kind))
    assert kinds == [c.FD_CONNECT, c.FD_READ, c.FD_WRITE]
    leg.close()
    leaf.receive_many()
    kinds.clear()
    leaf.subscribe(lambda _, event: kinds.append(event.kind))
    assert kinds == [c.FD_CLOSE]


# The descriptor, options, commands


def readable(endpoint: Endpoint) -> bool:
    return bool(select.select([endpoint.fileno()], [], [], 0)[0])


def test_the_descriptor_is_readable_while_receive_would_not_wait(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    assert leaf.fileno() == leaf.fileno()
    assert not readable(leaf)
    leg, _ = world.admit(root, leaf)
    assert not readable(leaf)
    root.send_many([b"x", b"y"])
    assert readable(leaf)
    heard(leaf)
    assert not readable(leaf)
    leg.close()
    assert readable(leaf)
    number = leaf.fileno()
    leaf.close()
    assert leaf.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        select.select([number], [], [], 0)


def test_options_have_their_defaults_and_can_be_set(world: World) -> None:
    leaf = world.leaf(Settings(reuse_address=True))
    assert leaf.get_option(c.SO_REUSEADDR) is True
    assert leaf.get_option(c.SO_DONTLINGER) is True
    leaf.set_option(c.SO_LINGER, (1, 3))
    assert leaf.get_option(c.SO_DONTLINGER) is False
    leaf.set_option(c.SO_DONTLINGER, True)
    assert leaf.get_option(c.SO_LINGER) is None
    assert leaf.get_option(c.SO_PROTOCOL_INFOW) == leaf.info
    assert code_of(lambda: leaf.set_option(c.SO_TYPE, 1)) == codes.WSAENOPROTOOPT
    root = world.root()
    assert root.get_option(c.SO_ACCEPTCONN) is True
    assert code_of(lambda: root.set_option(c.SO_CONDITIONAL_ACCEPT, True)) == codes.WSAEINVAL


def test_commands_know_what_is_queued_and_what_is_not_theirs(world: World) -> None:
    root, leaf = world.root(), world.leaf()
    world.admit(root, leaf)
    root.send_many([b"x" * 10])
    assert leaf.ioctl(c.FIONREAD) >= 10
    assert code_of(lambda: leaf.ioctl(c.SIO_MULTIPOINT_LOOPBACK, True)) == codes.WSAEINVAL
    assert code_of(lambda: leaf.ioctl(c.SIO_MULTICAST_SCOPE, 1)) == codes.WSAEINVAL
    assert code_of(lambda: leaf.ioctl(c.SIO_SET_QOS, "fast")) == codes.WSAEFAULT


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_readiness_is_an_eventfd_or_a_socket_pair(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("no eventfd here")
    monkeypatch.setattr(sys, "platform", platform)
    readiness = Readiness()
    for wanted in (False, True, True, False, False, True):
        readiness.set(wanted)
        assert bool(select.select([readiness.fd], [], [], 0)[0]) is wanted
    readiness.close()


def test_side_chat_waits_for_its_leaf_and_is_told_when_there_is_room(world: World) -> None:
    _, leaf, leg = filled(world, SlowPolicy.WAIT)
    assert code_of(lambda: leg.send_many([b"x"], timeout=0)) == codes.WSAEWOULDBLOCK
    before = len(world.of(leg, c.FD_WRITE))
    leaf.receive_many(timeout=0)
    assert len(world.of(leg, c.FD_WRITE)) == before + 1
    leg.send_many([b"x"], timeout=0)
    assert code_of(lambda: leg.send_many([b"x"], to=[leg])) == codes.WSAEOPNOTSUPP


def test_an_implicit_name_avoids_one_that_is_taken(world: World) -> None:
    world.leaf().bind(Address("~1"))
    leaf = world.leaf()
    leaf.bind(Address(""))
    assert leaf.local_address == Address("~2")
    leaf.subscribe(None)
    leaf.close()
    leaf.subscribe(lambda _, __: None)
    assert code_of(lambda: leaf.ioctl(c.FIONREAD)) == codes.WSAENOTSOCK

"""Clauses 110 to 133: memory, connect data, quality of service, roles, breakage, requirements."""

from __future__ import annotations

import ctypes

import pytest
from tests.conformance.test_clauses_result import BOTH_KINDS, parties
from tests.conformance.world import (
    GUARD,
    Condition,
    Pair,
    RefusedError,
    Starter,
    Task,
    World,
    flow,
    qos,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Settings
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.table import missing_entries
from joinleaf.winsock.types import FLOWSPEC


def guaranteed(rate: int) -> FLOWSPEC:
    """A reservation of so many bytes per second."""
    return flow(rate, c.SERVICETYPE_GUARANTEED)


def test_the_memory_is_the_clients_before_and_after(rooted: World) -> None:
    callee_memory = bytearray(b"." * 64)
    callee, caller = Wsabuf(callee_memory), Wsabuf(bytearray(b"question"))
    place = callee.buf
    pair = rooted.admit(
        rooted.root(), rooted.leaf(), Condition(data=b"answer"), caller=caller, callee=callee
    )
    assert callee.buf == place
    assert callee_memory == b"answer".ljust(64, b".")
    # Free to be used again: nothing the provider does later touches it.
    callee_memory[:] = b"#" * 64
    rooted.send(pair.root, b"news")
    assert rooted.receive(pair.leaf) == b"news"
    rooted.close(pair.leaf)
    assert callee_memory == b"#" * 64


def test_caller_data_are_taken_by_value(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    rooted.nonblocking(leaf)
    memory = bytearray(b"original")
    caller = Wsabuf(memory)
    wanted = qos(flow(9200), None, b"objects")
    rooted.join(leaf, rooted.local(root), caller=caller, sqos=wanted)
    memory[:] = b"scribble"
    wanted.SendingFlowspec.TokenRate = 1
    ctypes.memset(wanted.ProviderSpecific.buf, 0, 7)
    condition = Condition()
    rooted.accept(root, condition)
    assert condition.data == b"original"
    assert condition.qos is not None
    assert condition.qos.SendingFlowspec.TokenRate == 9200
    assert condition.specific == b"objects"


@pytest.mark.parametrize("caller", [None, Wsabuf(), Wsabuf(b"")])
def test_no_caller_data_are_null_to_the_peer(rooted: World, caller: Wsabuf | None) -> None:
    condition = Condition()
    rooted.admit(rooted.root(), rooted.leaf(), condition, caller=caller)
    assert condition.calls == 1
    assert condition.data is None


def test_callee_data_are_a_result(rooted: World) -> None:
    callee = Wsabuf(64)
    rooted.invite(rooted.root(), rooted.listener(), Condition(data=b"yo"), callee=callee)
    assert callee.data == b"yo"


@pytest.mark.parametrize("room", [9, 10, 11])
def test_nothing_is_written_beyond_the_length_given(rooted: World, room: int) -> None:
    memory = bytearray(GUARD * 64)
    callee = Wsabuf(memory, room)
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    asking = Task(lambda: rooted.join(leaf, name, callee=callee))
    rooted.accept(root, Condition(data=b"0123456789"))
    if room < 10:
        assert asking.code() == codes.WSAEFAULT
        assert memory == GUARD * 64
    else:
        asking.result()
        assert callee.len == 10
        assert memory == b"0123456789" + GUARD * 54


def test_no_answer_makes_the_length_zero(every: World) -> None:
    memory = bytearray(GUARD * 64)
    callee = Wsabuf(memory)
    if every.rooted:
        every.admit(every.root(), every.leaf(), callee=callee)
    else:
        every.join(every.leaf(), every.session(), callee=callee)
    assert callee.len == 0
    assert memory == GUARD * 64


@BOTH_KINDS
def test_callee_data_of_a_nonblocking_join_are_final_at_fd_connect(
    rooted: World, kind: str
) -> None:
    s, listener = parties(rooted, kind)
    callee = Wsabuf(64)
    watch = rooted.watch(s, c.FD_CONNECT)
    rooted.join(s, rooted.local(listener), callee=callee)
    assert callee.len == 64

    def poll() -> bytes:
        rooted.objects.wait(watch.event, 10)
        return callee.data

    polling = Task(poll)
    rooted.accept(listener, Condition(data=b"answer"))
    assert polling.result() == b"answer"


@BOTH_KINDS
def test_callee_data_of_a_blocking_join_are_final_at_its_return(rooted: World, kind: str) -> None:
    s, listener = parties(rooted, kind)
    callee, name = Wsabuf(64), rooted.local(listener)

    def ask() -> bytes:
        rooted.join(s, name, callee=callee)
        return callee.data

    asking = Task(ask)
    rooted.accept(listener, Condition(data=b"answer"))
    assert asking.result() == b"answer"


def test_an_answer_nobody_wants_is_dropped(rooted: World) -> None:
    rooted.admit(rooted.root(), rooted.leaf(), Condition(data=b"answer"), callee=None)


def test_every_byte_passes_unchanged(rooted: World) -> None:
    every_byte = bytes(range(256)) + b"\0\0"
    condition, callee = Condition(data=every_byte), Wsabuf(300)
    rooted.admit(rooted.root(), rooted.leaf(), condition, caller=Wsabuf(every_byte), callee=callee)
    assert condition.data == callee.data == every_byte


# -- quality of service -----------------------------------------------------------------------


def test_the_specification_of_the_join_overrides_the_preset_one(rooted: World) -> None:
    root = rooted.root()
    first, second = rooted.leaf(), rooted.leaf()
    for leaf in (first, second):
        rooted.preset(leaf, qos(flow(1111)))
    condition = Condition()
    rooted.admit(root, first, condition, sqos=qos(flow(2222)))
    assert condition.qos is not None
    assert condition.qos.SendingFlowspec.TokenRate == 2222
    assert rooted.agreed(first).SendingFlowspec.TokenRate == 2222
    rooted.admit(root, second, condition, sqos=None)
    assert condition.qos.SendingFlowspec.TokenRate == 1111
    assert rooted.agreed(second).SendingFlowspec.TokenRate == 1111


def test_provider_specific_parameters_reach_the_peer(rooted: World) -> None:
    condition = Condition()
    wanted = qos(flow(9200), None, bytes(range(256)))
    assert type(wanted).ProviderSpecific.offset == 64
    rooted.admit(rooted.root(), rooted.leaf(), condition, sqos=wanted)
    assert condition.specific == bytes(range(256))


def test_what_cannot_be_honoured_is_refused(every: World, start: Starter) -> None:
    if not every.rooted:  # the provider in general
        wanted = qos(guaranteed(1), guaranteed(1))
        assert every.refusal(every.leaf(), every.session(), sqos=wanted) == codes.WSAEOPNOTSUPP
        return
    world = start(every.scheme, settings=Settings(capacity=1000))  # this socket in particular
    root, listener = world.root(), world.listener()
    wanted = qos(guaranteed(2000), guaranteed(2000))
    assert world.refusal(root, world.local(listener), sqos=wanted) == codes.WSAEOPNOTSUPP


@pytest.mark.parametrize("scheme", ["jl"])
@pytest.mark.parametrize("flag", [c.XP1_UNI_SEND, c.XP1_UNI_RECV])
def test_the_direction_a_one_way_socket_lacks_is_ignored(
    start: Starter, scheme: str, flag: int
) -> None:
    world = start(scheme, add_flags=flag, settings=Settings(capacity=1000))
    impossible = guaranteed(1 << 31)
    wanted = qos(None, impossible) if flag == c.XP1_UNI_SEND else qos(impossible, None)
    world.admit(world.root(), world.leaf(), sqos=wanted)


@pytest.mark.parametrize("role", [c.JL_SENDER_ONLY, c.JL_RECEIVER_ONLY])
def test_the_direction_a_role_lacks_is_ignored(scheme: str, start: Starter, role: int) -> None:
    world = start(scheme, settings=Settings(capacity=1000))
    impossible = guaranteed(1 << 31)
    wanted = qos(None, impossible) if role == c.JL_SENDER_ONLY else qos(impossible, None)
    world.admit(world.root(), world.leaf(), sqos=wanted, flags=role)


def test_no_provider_specific_parameters_are_null_and_zero(every: World) -> None:
    name = every.local(every.root()) if every.rooted else every.session()
    s = every.leaf()
    lacking = qos()
    lacking.ProviderSpecific.len = 1
    assert every.refusal(s, name, sqos=lacking) == codes.WSAEFAULT
    every.nonblocking(s)
    assert every.join(s, name, sqos=qos()) == s


def test_without_a_specification_the_acceptor_sees_none(rooted: World) -> None:
    condition = Condition()
    rooted.admit(rooted.root(), rooted.leaf(), condition, sqos=None)
    assert condition.calls == 1
    assert condition.qos is None


# -- roles ------------------------------------------------------------------------------------


def test_a_sender_sends_and_hears_nothing(group: World) -> None:
    name = group.session()
    hearer = group.member(name, flags=c.JL_RECEIVER_ONLY)
    sender = group.member(name, speaks=True, flags=c.JL_SENDER_ONLY)
    group.send(sender, b"from me")
    assert group.receive(hearer) == b"from me"
    assert group.hears_nothing(sender)


def test_a_receiver_hears_and_has_nobody_to_send_to(group: World) -> None:
    name = group.session()
    hearer = group.member(name, flags=c.JL_RECEIVER_ONLY)
    speaker = group.member(name, speaks=True)
    group.send(speaker, b"news")
    assert group.receive(hearer) == b"news"
    sending = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)
    expected = codes.WSAENOTCONN if group.scheme == "udp" else codes.WSAEOPNOTSUPP
    assert group.code("WSPSend", hearer, *sending) == expected


@pytest.mark.parametrize("scheme", ["mem", "udp"])
def test_a_member_that_does_both_sends_and_hears(start: Starter, scheme: str) -> None:
    world = start(scheme, rooted=False)
    name = world.session()
    first, second = world.member(name), world.member(name)
    for sender, hearer, data in ((first, second, b"one"), (second, first, b"two")):
        world.send(sender, data)
        while (heard := world.receive_from(hearer))[0] != data:
            pass  # its own, which loopback brings back
        assert heard[1] != name, "the sender's address is wanted, not the session's"


def test_a_leaf_that_only_receives_cannot_send(rooted: World) -> None:
    pair = rooted.pair(flags=c.JL_RECEIVER_ONLY)
    sending = ([Wsabuf(b"x")], 1, Cell(), 0, None, None, None)
    assert rooted.code("WSPSend", pair.leaf, *sending) == codes.WSAEOPNOTSUPP
    rooted.send(pair.root, b"news")
    assert rooted.receive(pair.leaf) == b"news"


def test_a_leaf_that_only_sends_cannot_receive(rooted: World) -> None:
    pair = rooted.pair(flags=c.JL_SENDER_ONLY)
    rooted.send(pair.leaf, b"news")
    assert rooted.receive(pair.root) == b"news"
    rooted.nonblocking(pair.leaf)
    assert rooted.receive_code(pair.leaf) == codes.WSAEOPNOTSUPP


@pytest.mark.parametrize("flags", [0, 3, 5, 6, 7, 8, 0xFFFFFFFF])
def test_flags_that_are_no_role_are_refused(every: World, flags: int) -> None:
    name = every.local(every.root()) if every.rooted else every.session()
    assert every.refusal(every.leaf(), name, flags=flags) == codes.WSAEINVAL


# -- breakage ---------------------------------------------------------------------------------


def broken_leaf(world: World) -> tuple[int, int]:
    """A leaf whose root has put it out, and that root."""
    pair = world.pair()
    watch = world.watch(pair.leaf, c.FD_CLOSE)
    world.close(pair.leg)
    assert watch.wait(c.FD_CLOSE) == 0
    return pair.leaf, pair.root


def test_a_broken_socket_does_not_join_again_and_a_new_one_does(rooted: World) -> None:
    leaf, root = broken_leaf(rooted)
    assert rooted.refusal(leaf, rooted.local(root)) == codes.WSAEINVAL
    rooted.close(leaf)
    rooted.admit(root, rooted.leaf())


@pytest.mark.parametrize("mishap", ["cancelled", "put out", "root gone", "lost"])
def test_after_any_mishap_closing_and_new_sockets_help(rooted: World, mishap: str) -> None:
    root = rooted.root()
    sockets = [root]
    if mishap == "cancelled":
        leaf = rooted.leaf()
        name = rooted.local(root)
        with rooted.hooked(lambda _: False):
            assert rooted.refusal(leaf, name) == codes.WSAEINTR
        sockets.append(leaf)
    else:
        pair = rooted.admit(root, rooted.leaf())
        watch = rooted.watch(pair.leaf, c.FD_CLOSE)
        end(rooted, pair, mishap)
        watch.wait(c.FD_CLOSE)
        sockets += [pair.leg, pair.leaf]
    closed = {"put out": 1, "root gone": 0, "lost": 0}.get(mishap)
    for number, s in enumerate(sockets):
        if number != closed:
            rooted.close(s)
    fresh = rooted.pair()
    rooted.send(fresh.root, b"again")
    assert rooted.receive(fresh.leaf) == b"again"


def end(world: World, pair: Pair, mishap: str) -> None:
    """Do something to a session."""
    if mishap == "put out":
        world.close(pair.leg)
        return
    if mishap == "lost":  # an abortive close is what a crash looks like
        world.set_option(pair.root, c.SO_LINGER, 1)
    world.close(pair.root)


# -- requirements -----------------------------------------------------------------------------


def test_the_related_functions_are_in_the_table(every: World) -> None:
    related = {
        "WSPAccept",
        "WSPAsyncSelect",
        "WSPBind",
        "WSPCancelBlockingCall",
        "WSPCloseSocket",
        "WSPConnect",
        "WSPEventSelect",
        "WSPIoctl",
        "WSPListen",
        "WSPSelect",
        "WSPSocket",
    }
    assert related <= set(PROVIDER_FUNCTIONS)
    assert len(PROVIDER_FUNCTIONS) == 30
    assert missing_entries(every.provider.proc_table) == ()


def test_the_rules_around_the_page_are_kept_too(rooted: World) -> None:
    """A walk through the companion topic: both ways in, data, an end by the root."""
    root = rooted.root()
    pairs = [rooted.invite(root, rooted.listener()), rooted.admit(root, rooted.leaf())]
    for pair in pairs:
        rooted.send(pair.leaf, b"up")
        assert rooted.receive(root) == b"up"
    legs = [rooted.watch(pair.leg, c.FD_CLOSE) for pair in pairs]
    leaves = [rooted.watch(pair.leaf, c.FD_CLOSE) for pair in pairs]
    rooted.close(root)
    assert [watch.wait(c.FD_CLOSE) for watch in legs + leaves] == [0, 0, 0, 0]
    for pair in pairs:  # the descriptors stay until they are closed
        rooted.close(pair.leg)
        with pytest.raises(RefusedError):
            rooted.close(pair.leg)

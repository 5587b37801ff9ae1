"""Clauses 1 to 17: what WSPJoinLeaf is for, its shape, its parameters."""

from __future__ import annotations

import ctypes
import inspect

import pytest
from tests.conformance.world import (
    GUARD,
    SENTINEL,
    Condition,
    Starter,
    Task,
    World,
    flow,
    inet,
    qos,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.memory import Cell, Wsabuf
from joinleaf.winsock.types import INVALID_SOCKET, POINTER_BYTES, SOCKET_ERROR, WSPPROC_TABLE

NAMES = (
    "s",
    "name",
    "namelen",
    "lpCallerData",
    "lpCalleeData",
    "lpSQOS",
    "lpGQOS",
    "dwFlags",
    "lpErrno",
)


def test_an_invited_leaf_hears_the_root_and_an_uninvited_one_does_not(rooted: World) -> None:
    root, invited, other = rooted.root(), rooted.listener(), rooted.listener()
    pair = rooted.invite(root, invited)
    rooted.send(root, b"news")
    assert rooted.receive(pair.leaf) == b"news"
    rooted.nonblocking(other)
    assert rooted.code("WSPAccept", other, None, None, None, 0) == codes.WSAEWOULDBLOCK


def test_a_datagram_to_the_session_arrives_after_the_join_and_not_before(group: World) -> None:
    name = group.session()
    speaker = group.member(name, speaks=True)
    s = group.leaf()
    if group.scheme != "mem":
        port = int.from_bytes(name[2:4], "big")
        group.set_option(s, c.SO_REUSEADDR, 1)
        group.bind(s, inet("0.0.0.0", port))
    group.send(speaker, b"before")
    group.join(s, name)
    group.send(speaker, b"after")
    assert group.receive(s) == b"after"


def test_connect_data_travel_both_ways_during_the_join(rooted: World) -> None:
    condition = Condition(data=b"yo")
    callee = Wsabuf(64)
    rooted.invite(rooted.root(), rooted.listener(), condition, caller=Wsabuf(b"hi"), callee=callee)
    assert condition.data == b"hi"
    assert callee.data == b"yo"


def test_the_flow_specification_reaches_the_acceptor_and_is_kept(rooted: World) -> None:
    condition = Condition()
    wanted = qos(flow(9200), flow(4600))
    pair = rooted.admit(rooted.root(), rooted.leaf(), condition, sqos=wanted)
    assert condition.qos is not None
    rates = {condition.qos.SendingFlowspec.TokenRate, condition.qos.ReceivingFlowspec.TokenRate}
    assert rates == {9200, 4600}
    assert rooted.agreed(pair.leaf).SendingFlowspec.TokenRate == 9200


def test_the_procedure_table_reaches_it_at_index_17(every: World) -> None:
    table = every.provider.proc_table
    assert WSPPROC_TABLE.lpWSPJoinLeaf.offset == 17 * POINTER_BYTES
    error = ctypes.c_int(SENTINEL)
    made = table.lpWSPJoinLeaf(
        INVALID_SOCKET, None, 0, None, None, None, None, c.JL_BOTH, ctypes.byref(error)
    )
    assert made == INVALID_SOCKET
    assert error.value == codes.WSAENOTSOCK


def test_a_join_through_the_table_with_c_memory_works(group: World) -> None:
    name = group.session()
    memory = ctypes.create_string_buffer(name, len(name))
    s = group.leaf()
    error = ctypes.c_int(SENTINEL)
    made = group.provider.proc_table.lpWSPJoinLeaf(
        s,
        ctypes.cast(memory, ctypes.c_void_p).value,
        len(name),
        None,
        None,
        None,
        None,
        c.JL_BOTH,
        ctypes.byref(error),
    )
    assert made == s
    assert error.value == SENTINEL
    assert group.peer(s)[: len(name)].rstrip(b"\0") == name.rstrip(b"\0")


def test_success_is_a_handle_and_failure_is_invalid_socket(rooted: World) -> None:
    pair = rooted.pair()
    assert pair.leaf not in (INVALID_SOCKET, SOCKET_ERROR)
    rooted.close(pair.leaf)
    nobody = rooted.nobody()
    error = Cell(SENTINEL)
    made = rooted.provider.WSPJoinLeaf(
        rooted.leaf(), nobody, len(nobody), None, None, None, None, c.JL_BOTH, error
    )
    assert made == INVALID_SOCKET == (1 << 8 * POINTER_BYTES) - 1
    assert made != SOCKET_ERROR


def test_it_takes_nine_parameters_in_the_order_of_the_header(every: World) -> None:
    function = every.provider.WSPJoinLeaf
    assert tuple(inspect.signature(function).parameters) == NAMES
    for count in (8, 10):
        with pytest.raises(TypeError):
            function(*[None] * count)


def test_name_is_left_as_it_was(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = bytearray(rooted.local(root))
    before = bytes(name)
    asking = Task(lambda: rooted.join(leaf, name))
    rooted.accept(root)
    asking.result()
    assert bytes(name) == before
    second = rooted.leaf()
    rooted.nonblocking(second)
    rooted.join(second, name)
    assert bytes(name) == before
    gone = bytearray(rooted.nobody())
    before = bytes(gone)
    rooted.refusal(rooted.leaf(), gone)
    assert bytes(gone) == before


def test_only_callee_data_and_the_error_are_outputs(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = bytearray(rooted.local(root))
    caller = Wsabuf(bytearray(b"question"))
    wanted = qos(flow(9200), flow(4600), b"objects")
    inputs = [bytes(name), bytes(caller), caller.data, bytes(wanted)]

    def change(shown: object) -> None:
        shown.SendingFlowspec.TokenRate = 7  # type: ignore[attr-defined]  # a QOS

    condition = Condition(data=b"answer", also=change)
    rooted.admit(root, leaf, condition, caller=caller, sqos=wanted, callee=Wsabuf(64))
    assert [bytes(name), bytes(caller), caller.data, bytes(wanted)] == inputs
    assert ctypes.string_at(wanted.ProviderSpecific.buf, 7) == b"objects"


def test_name_is_whom_the_join_reaches_and_nobody_else(rooted: World) -> None:
    first, second = rooted.listener(), rooted.listener()
    root = rooted.root()
    rooted.nonblocking(root, first)
    rooted.join(root, rooted.local(second))
    rooted.accept(second)
    assert rooted.code("WSPAccept", first, None, None, None, 0) == codes.WSAEWOULDBLOCK


def test_a_longer_name_is_taken_and_its_end_not_looked_at(every: World) -> None:
    if every.rooted:
        root, leaf = every.root(), every.leaf()
        name = every.local(root).ljust(64, b"\0" if every.scheme == "mem" else GUARD)
        asking = Task(lambda: every.join(leaf, name))
        every.accept(root)
        assert asking.result() == leaf
    else:
        s = every.leaf()
        assert every.join(s, every.session().ljust(64, GUARD)) == s


def test_the_name_length_of_the_structure_is_enough_and_less_is_not(every: World) -> None:
    name = every.nobody() if every.rooted else every.session()
    assert every.refusal(every.leaf(), name, namelen=1) == codes.WSAEFAULT


def test_caller_data_are_there_while_the_condition_runs(rooted: World) -> None:
    condition = Condition()
    rooted.admit(rooted.root(), rooted.leaf(), condition, caller=Wsabuf(b"now"))
    assert condition.calls == 1
    assert condition.data == b"now"


def test_callee_data_are_there_when_the_join_is_complete(rooted: World) -> None:
    callee = Wsabuf(64)
    rooted.admit(rooted.root(), rooted.leaf(), Condition(data=b"welcome"), callee=callee)
    assert callee.data == b"welcome"


def test_the_two_directions_of_a_specification_are_not_mixed_up(rooted: World) -> None:
    assert type(qos()).ReceivingFlowspec.offset == 32
    wanted = qos(flow(9200, Latency=11), flow(4600, Latency=22))
    condition = Condition()
    pair = rooted.admit(rooted.root(), rooted.leaf(), condition, sqos=wanted)
    assert condition.qos is not None
    for arrived in (condition.qos, rooted.agreed(pair.leaf)):
        sending, receiving = arrived.SendingFlowspec, arrived.ReceivingFlowspec
        assert (sending.TokenRate, sending.Latency) == (9200, 11)
        assert (receiving.TokenRate, receiving.Latency) == (4600, 22)


def test_the_group_specification_changes_nothing(every: World) -> None:
    group_qos = qos(flow(1, c.SERVICETYPE_GUARANTEED), flow(1))
    if every.rooted:
        every.pair(gqos=group_qos)
    else:
        s = every.leaf()
        assert every.join(s, every.session(), gqos=group_qos) == s


@pytest.mark.parametrize(
    ("role", "sends", "hears"),
    [(c.JL_SENDER_ONLY, True, False), (c.JL_RECEIVER_ONLY, False, True), (c.JL_BOTH, True, True)],
)
def test_flags_say_whether_it_sends_receives_or_both(
    scheme: str, start: Starter, role: int, sends: bool, hears: bool
) -> None:
    world = start(scheme)
    pair = world.pair(flags=role)
    world.nonblocking(pair.leaf)
    assert (
        world.code("WSPSend", pair.leaf, [Wsabuf(b"x")], 1, Cell(), 0, None, None, None) == 0
    ) == (sends)
    if hears:
        world.send(pair.root, b"to all")
        assert world.watch(pair.leaf, c.FD_READ).wait(c.FD_READ) == 0
        assert world.receive(pair.leaf) == b"to all"
    else:
        assert world.receive_code(pair.leaf) == codes.WSAEOPNOTSUPP


def test_the_error_cell_is_written_on_failure_only(every: World) -> None:
    error = Cell(SENTINEL)
    bad = every.provider.WSPJoinLeaf(
        INVALID_SOCKET, None, 0, None, None, None, None, c.JL_BOTH, error
    )
    assert (bad, error.value) == (INVALID_SOCKET, codes.WSAENOTSOCK)
    # No place for it: INVALID_SOCKET all the same.
    assert (
        every.provider.WSPJoinLeaf(INVALID_SOCKET, None, 0, None, None, None, None, c.JL_BOTH, None)
        == INVALID_SOCKET
    )

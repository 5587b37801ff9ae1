"""Clauses 87 to 109: what a c_root gets, what a c_leaf gets, and who admits whom."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conformance.world import (
    Condition,
    Pair,
    Starter,
    Task,
    Watch,
    World,
    flow,
    inet,
    qos,
)

from joinleaf.spi import codes
from joinleaf.spi import constants as c

BOTH_WAYS = pytest.mark.parametrize("way", ["invited", "admitted"])


def session(world: World, way: str, root: int | None = None, **how: Any) -> Pair:
    """A leaf in a session, by either way in."""
    root = world.root() if root is None else root
    if way == "invited":
        return world.invite(root, world.listener(), **how)
    return world.admit(root, world.leaf(), **how)


def test_the_result_is_new_for_a_root_and_the_same_for_a_leaf(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    assert rooted.invite(root, rooted.listener()).leg != root
    assert rooted.admit(root, leaf).leaf == leaf


def test_only_the_named_leaf_is_asked(rooted: World) -> None:
    root, named, other = rooted.root(), rooted.listener(), rooted.listener()
    on_named, on_other = rooted.watch(named, c.FD_ACCEPT), rooted.watch(other, c.FD_ACCEPT)
    rooted.nonblocking(root)
    rooted.join(root, rooted.local(named))
    assert on_named.wait(c.FD_ACCEPT) == 0
    assert on_other.silent(c.FD_ACCEPT)


@BOTH_WAYS
def test_the_new_socket_stands_for_its_leaf(rooted: World, way: str) -> None:
    root = rooted.root()
    pairs = [session(rooted, way, root) for _ in range(2)]
    assert len({root, *(pair.leg for pair in pairs)}) == 3
    peers = {rooted.peer(pair.leg) for pair in pairs}
    assert len(peers) == 2
    if way == "admitted":
        assert peers == {rooted.local(pair.leaf) for pair in pairs}
    name = rooted.local(rooted.listener())
    assert rooted.refusal(pairs[0].leg, name) == codes.WSAEISCONN


@pytest.mark.parametrize("scheme", ["jl"])
def test_an_ifs_provider_has_each_new_handle_modified(start: Starter, scheme: str) -> None:
    world = start(scheme, add_flags=c.XP1_IFS_HANDLES)
    root, listener = world.root(), world.listener()
    world.upcalls.calls.clear()
    proposed: list[int] = []

    def modify(catalog_id: int, handle: int, _error: object) -> int:
        assert catalog_id == world.provider.info.catalog_entry_id
        proposed.append(handle)
        return handle + 0x4000

    world.upcalls.replace("WPUModifyIFSHandle", modify)
    pair = world.invite(root, listener)
    assert world.upcalls.calls["WPUModifyIFSHandle"] == 2  # the root's leg, the leaf's member
    assert {pair.leg, pair.leaf} == {handle + 0x4000 for handle in proposed}
    assert not world.upcalls.calls["WPUCreateSocketHandle"]
    world.upcalls.replace("WPUModifyIFSHandle", None)


def test_a_provider_without_ifs_handles_gets_each_from_the_client(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    name = rooted.local(listener)
    rooted.nonblocking(root)
    rooted.upcalls.calls.clear()
    before = set(rooted.objects.handles.things())
    leg = rooted.join(root, name)
    assert rooted.upcalls.calls["WPUCreateSocketHandle"] == 1
    assert rooted.objects.handles.get(leg) in set(rooted.objects.handles.things()) - before


def test_exactly_one_upcall_for_a_root_and_none_for_a_leaf(rooted: World) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    rooted.nonblocking(leaf)
    rooted.upcalls.calls.clear()
    rooted.join(leaf, name)
    for upcall in ("WPUCreateSocketHandle", "WPUModifyIFSHandle"):
        assert not rooted.upcalls.calls[upcall]


def test_a_nonrooted_join_makes_no_handle(group: World) -> None:
    s, name = group.leaf(), group.session()
    group.upcalls.calls.clear()
    group.join(s, name)
    for upcall in ("WPUCreateSocketHandle", "WPUModifyIFSHandle"):
        assert not group.upcalls.calls[upcall]


@BOTH_WAYS
def test_the_new_socket_has_the_properties_of_the_root(rooted: World, way: str) -> None:
    root = rooted.root()
    linger = 1 | 7 << 16
    rooted.set_option(root, c.SO_LINGER, linger)
    rooted.set_option(root, c.SO_RCVBUF, 12345)
    if rooted.provider.info.has(c.XP1_QOS_SUPPORTED):
        rooted.preset(root, qos(flow(7777)))
    pair = session(rooted, way, root)
    assert rooted.option(pair.leg, c.SO_LINGER) == linger
    assert rooted.option(pair.leg, c.SO_RCVBUF) == 12345
    if way == "invited":
        assert rooted.agreed(pair.leg).SendingFlowspec.TokenRate == 7777


def test_the_new_socket_has_the_mode_of_the_root(rooted: World) -> None:
    root, listener = rooted.root(), rooted.listener()
    rooted.nonblocking(root)
    leg = rooted.join(root, rooted.local(listener))
    watch = rooted.watch(root, c.FD_CONNECT)
    rooted.accept(listener)
    assert watch.wait(c.FD_CONNECT) == 0
    assert rooted.receive_code(leg) == codes.WSAEWOULDBLOCK


@BOTH_WAYS
def test_the_new_socket_inherits_the_window(rooted: World, way: str) -> None:
    root = rooted.root()
    window = rooted.objects.create_window()
    rooted.call("WSPAsyncSelect", root, window, 0x402, c.FD_CLOSE | c.FD_CONNECT)
    pair = nonblocking_session(rooted, way, root)
    rooted.close(pair.leaf)
    while (message := rooted.objects.get_message(window, 10)) is not None:
        if message.event == c.FD_CLOSE:
            break
    assert message is not None
    assert (message.msg, message.wparam, message.error) == (0x402, pair.leg, 0)


def nonblocking_session(world: World, way: str, root: int) -> Pair:
    """A leaf in a session whose root is nonblocking."""
    if way == "admitted":
        leaf = world.leaf()
        world.nonblocking(leaf)
        world.join(leaf, world.local(root))
        return Pair(root, accept_soon(world, root), leaf)
    listener = world.listener()
    leg = world.join(root, world.local(listener))
    return Pair(root, leg, world.accept(listener))


def accept_soon(world: World, root: int) -> int:
    """Accept on a nonblocking listener whose registration is not to be touched."""
    reading = [root]
    assert world.call("WSPSelect", 0, reading, None, None, 10.0) == 1
    return world.accept(root)


@BOTH_WAYS
def test_the_new_socket_inherits_the_event_object(rooted: World, way: str) -> None:
    root = rooted.root()
    on_root = rooted.watch(root)
    pair = nonblocking_session(rooted, way, root)
    if way == "invited":
        assert on_root.wait(c.FD_CONNECT) == 0
    on_root.enumerate()
    rooted.close(pair.leaf)
    on_leg = Watch(rooted, pair.leg, on_root.event)
    assert on_leg.wait(c.FD_CLOSE) == 0
    assert c.FD_CLOSE not in on_root.enumerate()


@BOTH_WAYS
def test_the_new_socket_carries_no_session_data(rooted: World, way: str) -> None:
    pair = session(rooted, way)
    rooted.nonblocking(pair.leg)
    rooted.send(pair.root, b"to all")
    assert rooted.receive(pair.leaf) == b"to all"
    rooted.send(pair.leaf, b"to the root")
    assert rooted.receive(pair.root) == b"to the root"
    assert rooted.receive_code(pair.leg) == codes.WSAEWOULDBLOCK


@BOTH_WAYS
def test_side_chat_reaches_one_leaf_and_is_told_from_session_data(rooted: World, way: str) -> None:
    root = rooted.root()
    pair, other = session(rooted, way, root), session(rooted, way, root)
    rooted.send(pair.leg, b"between us")
    assert rooted.receive(pair.leaf) == b"between us"
    assert rooted.flags != 0
    rooted.send(root, b"to all")
    assert rooted.receive(other.leaf) == b"to all"
    assert rooted.receive(pair.leaf) == b"to all"
    assert rooted.flags == 0


@BOTH_WAYS
def test_a_leaf_that_closes_is_told_on_its_own_leg_only(rooted: World, way: str) -> None:
    root = rooted.root()
    leaving, staying = session(rooted, way, root), session(rooted, way, root)
    on_root, on_staying = rooted.watch(root), rooted.watch(staying.leg)
    on_leaving = rooted.watch(leaving.leg, c.FD_CLOSE)
    rooted.close(leaving.leaf)
    assert on_leaving.wait(c.FD_CLOSE) == 0
    assert on_root.silent(c.FD_CLOSE)
    assert on_staying.silent(c.FD_CLOSE)
    rooted.send(root, b"still here")
    assert rooted.receive(staying.leaf) == b"still here"


@BOTH_WAYS
def test_closing_a_leg_tells_its_leaf_only(rooted: World, way: str) -> None:
    root = rooted.root()
    out, staying = session(rooted, way, root), session(rooted, way, root)
    on_out, on_staying = rooted.watch(out.leaf), rooted.watch(staying.leaf)
    rooted.close(out.leg)
    assert on_out.wait(c.FD_CLOSE) == 0
    assert on_staying.silent(c.FD_CLOSE)
    rooted.send(root, b"to the rest")
    assert on_staying.wait(c.FD_READ) == 0
    assert rooted.receive(staying.leaf) == b"to the rest"


# -- c_leaf -----------------------------------------------------------------------------------


def test_a_leaf_names_the_root_and_no_other_leaf(rooted: World) -> None:
    rooted.admit(rooted.root(), rooted.leaf())
    another = rooted.listener()
    rooted.provider.join_timeout = 1.0
    name = rooted.local(another)
    asking = Task(lambda: rooted.join(rooted.leaf(), name))
    assert asking.code() == codes.WSAECONNREFUSED


def test_a_leaf_names_a_session_and_no_host(group: World) -> None:
    group.member(group.session())
    if group.scheme == "mem":
        assert group.refusal(group.leaf(), group.any_address()) == codes.WSAEADDRNOTAVAIL
    else:
        for host in ("127.0.0.1", "10.1.2.3"):
            assert group.refusal(group.leaf(), inet(host, 5000)) == codes.WSAEADDRNOTAVAIL


@pytest.mark.parametrize("blocking", [True, False])
def test_a_leaf_gets_its_own_descriptor_back(every: World, blocking: bool) -> None:
    s = every.leaf()
    if not blocking:
        every.nonblocking(s)
    if not every.rooted:
        assert every.join(s, every.session()) == s
    elif blocking:
        assert every.admit(every.root(), s).leaf == s
    else:
        assert every.join(s, every.local(every.root())) == s


def test_no_descriptor_is_allocated_for_a_leaf(every: World) -> None:
    s = every.leaf()
    name = every.local(every.root()) if every.rooted else every.session()
    every.nonblocking(s)
    before = every.upcalls.open_sockets
    every.join(s, name)
    assert every.upcalls.open_sockets == before
    every.close(s)
    assert every.code("WSPCloseSocket", s) == codes.WSAENOTSOCK


def test_a_root_that_does_not_listen_refuses(rooted: World) -> None:
    root = rooted.root(listening=False)
    name = rooted.local(root)
    assert rooted.refusal(rooted.leaf(), name) == codes.WSAECONNREFUSED
    rooted.call("WSPListen", root, c.SOMAXCONN)
    rooted.admit(root, rooted.leaf())


def test_a_request_is_told_by_fd_accept_until_it_is_answered(rooted: World) -> None:
    root = rooted.root()
    watch = rooted.watch(root, c.FD_ACCEPT)
    leaves = [rooted.leaf(), rooted.leaf()]
    rooted.nonblocking(*leaves)
    rooted.join(leaves[0], rooted.local(root))
    assert watch.wait(c.FD_ACCEPT) == 0
    rooted.join(leaves[1], rooted.local(root))
    assert watch.silent(c.FD_ACCEPT)  # until the re-enabling call
    rooted.accept(root)
    assert watch.wait(c.FD_ACCEPT) == 0  # the second still waits: level-triggered
    rooted.accept(root)
    assert watch.silent(c.FD_ACCEPT)


@pytest.mark.parametrize("condition", [None, Condition()])
def test_the_join_of_a_leaf_is_complete_after_its_admission(
    rooted: World, condition: Condition | None
) -> None:
    root, leaf = rooted.root(), rooted.leaf()
    name = rooted.local(root)
    asking = Task(lambda: rooted.join(leaf, name))
    assert asking.lasts()
    rooted.accept(root, condition)
    assert asking.result() == leaf


def test_what_accept_returns_is_a_c_leaf(rooted: World) -> None:
    pair = rooted.pair()
    assert rooted.refusal(pair.leg, rooted.nobody()) == codes.WSAEISCONN
    for call in (("WSPListen", pair.leg, 1), ("WSPAccept", pair.leg, None, None, None, 0)):
        assert rooted.code(*call) == codes.WSAEINVAL


def test_a_listening_root_invites_and_admits(rooted: World) -> None:
    root = rooted.root(listening=True)
    invited = rooted.invite(root, rooted.listener())
    admitted = rooted.admit(root, rooted.leaf())
    rooted.send(root, b"both")
    assert rooted.receive(invited.leaf) == rooted.receive(admitted.leaf) == b"both"

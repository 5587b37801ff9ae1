"""Checks about names, joins in both directions, refusals, and joins under way."""

from __future__ import annotations

import time
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAEACCES,
    WSAEADDRNOTAVAIL,
    WSAEALREADY,
    WSAECONNREFUSED,
    WSAECONNRESET,
    WSAEFAULT,
    WSAEINVAL,
    WSAEISCONN,
    WSAENOTCONN,
    WSAEOPNOTSUPP,
    WSAEPROTONOSUPPORT,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
    WSATRY_AGAIN,
)
from joinleaf.spi.provider import (
    DEFER,
    Accept,
    Defer,
    Endpoint,
    Joined,
    JoinRequest,
    JoinRole,
    Reject,
    Roles,
    Settings,
)
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.testing.provider_bench import SHORT, Bench, CheckFailed, Checks, NotApplicable, Task
from joinleaf.values import Address

__all__ = ["JOINING_CHECKS"]

JOINING_CHECKS: Final = Checks()
_check = JOINING_CHECKS.add
_ALL_BYTES: Final = bytes(range(256))


@_check("64, 65, model 5.17")
def names(bench: Bench) -> None:
    """Before it is bound an endpoint has no address, and it is bound once only."""
    leaf = bench.leaf()
    with bench.refused("local_address while unbound", WSAEINVAL):
        _ = leaf.local_address
    with bench.refused("peer_address before joining", WSAENOTCONN):
        _ = leaf.peer_address
    where = bench.session.address
    own = Address("127.0.0.1" if where.ip is not None and where.ip.version == 4 else "")
    leaf.bind(own)
    bench.require(isinstance(leaf.local_address, Address), "local_address is no Address")
    with bench.refused("a second bind", WSAEINVAL):
        leaf.bind(own)


@_check("12, 13, 103, 107", control="rooted")
def leaf_joins(bench: Bench) -> None:
    """A leaf joins a listening root: its own endpoint comes back, and both know each other."""
    root, leaf = bench.root(), bench.leaf()
    leg, joined = bench.admit(root, leaf)
    bench.require(joined.endpoint is leaf, "join_leaf of a leaf gave another endpoint")
    bench.require(joined.data == b"", f"callee data {joined.data!r} out of nothing")
    bench.require(leg is not root, "accept gave the root itself")
    bench.require(leg.roles == Roles(), f"a leg is a c_leaf and d_leaf, not {leg.roles}")
    bench.require(leaf.peer_address == root.local_address, "peer_address is not the root's")
    bench.require(isinstance(leg.peer_address, Address), "a leg has no peer_address")
    bench.require(
        leaf.session_id == root.session_id == leg.session_id != b"",
        "root, leg and leaf do not agree on the session's identity",
    )
    with bench.refused("a second join", WSAEISCONN):
        leaf.join_leaf(root.local_address, timeout=bench.patience)


@_check("76, 89, 97", control="rooted")
def root_invites(bench: Bench) -> None:
    """A root invites one leaf after another: a leg for each, a member beside each listener."""
    root = bench.open(Roles(c_root=True, d_root=bench.info.data_plane_rooted))
    for number in range(2):
        listener = bench.listener()
        joined, member = bench.invite(root, listener)
        bench.require(joined.endpoint not in (root, listener), "the leg is no new endpoint")
        bench.require(member is not listener, "accept gave the listener itself")
        bench.require(not member.roles.c_root, "the member is a c_root")
        bench.require(
            joined.endpoint.peer_address.host == listener.local_address.host
            or bool(joined.endpoint.peer_address.host),
            "the leg does not say who its peer is",
        )
        bench.require(member.session_id == root.session_id, f"member {number}: another session")


@_check("2, 12, 13, 120", control="rooted", flags=c.XP1_CONNECT_DATA)
def connect_data(bench: Bench) -> None:
    """Connect data of every byte value go both ways, in both directions of joining."""
    seen: list[JoinRequest] = []

    def admit(request: JoinRequest) -> Accept:
        seen.append(request)
        return Accept(_ALL_BYTES[::-1])

    root, leaf = bench.root(), bench.leaf(Settings(name="the asker"))
    _, joined = bench.admit(root, leaf, admit, data=_ALL_BYTES)
    bench.require(seen[0].data == _ALL_BYTES, "the caller's data did not arrive unchanged")
    bench.require(joined.data == _ALL_BYTES[::-1], "the callee's data did not come back unchanged")
    bench.require(seen[0].name in ("", "the asker"), f"the asker's name became {seen[0].name!r}")
    invited, _ = bench.invite(root, bench.listener(), admit, data=b"come")
    bench.require(seen[1].data == b"come", "an invitation lost its data")
    bench.require(invited.data == _ALL_BYTES[::-1], "the answer to an invitation lost its data")


@_check("52", control="rooted", flags=c.XP1_CONNECT_DATA)
def connect_data_limit(bench: Bench) -> None:
    """Connect data beyond any sense are refused with WSAEFAULT, and nobody hears of it."""
    root, leaf = bench.root(), bench.leaf()
    with bench.refused("caller data of 16 MiB", WSAEFAULT):
        leaf.join_leaf(root.local_address, caller_data=bytes(1 << 24), timeout=bench.patience)
    with bench.refused("accept, with nothing to accept", WSAEWOULDBLOCK):
        root.accept(timeout=0)
    bench.admit(root, leaf)


@_check("60")
def connect_data_unsupported(bench: Bench) -> None:
    """Caller data are refused by an entry without connect data; none at all are fine."""
    if bench.info.has(c.XP1_CONNECT_DATA):
        raise NotApplicable("the entry has connect data")
    leaf = bench.leaf()
    with bench.refused("caller data", WSAEPROTONOSUPPORT):
        leaf.join_leaf(bench.session.address, caller_data=b"x", timeout=bench.patience)
    bench.join(leaf)


@_check("30, 45, model 3.4", control="rooted")
def refusal(bench: Bench) -> None:
    """A refused leaf gets WSAECONNREFUSED and what was said, and may ask again."""
    root, leaf = bench.root(), bench.leaf()
    asking = bench.task(lambda: leaf.join_leaf(root.local_address, timeout=bench.patience))
    with bench.refused("accept of a rejected request", WSAECONNREFUSED):
        root.accept(lambda _: Reject(b"no, and why"), timeout=bench.patience)
    with bench.refused("the rejected join", WSAECONNREFUSED) as errors:
        asking.result()
    if bench.info.has(c.XP1_CONNECT_DATA):
        bench.require(errors[0].data == b"no, and why", "the refusal's data did not arrive")
    bench.admit(root, leaf)


@_check("model 3.4", control="rooted")
def deferral(bench: Bench) -> None:
    """A deferred request stays first, and can be admitted later."""
    root, leaf = bench.root(), bench.leaf()
    asking = bench.task(
        lambda: leaf.join_leaf(root.local_address, caller_data=b"", timeout=bench.patience)
    )
    with bench.refused("accept of a deferred request", WSATRY_AGAIN):
        root.accept(lambda _: DEFER, timeout=bench.patience)
    bench.keep(root.accept(timeout=bench.patience))
    asking.result()


@_check("seam, model 3.4", control="rooted")
def requests_taken(bench: Bench) -> None:
    """Requests can be taken first and answered later, in any order, as ``accept`` would."""
    root, one, two = bench.root(), bench.leaf(), bench.leaf()
    with bench.refused("taking a request, with none there", WSAEWOULDBLOCK):
        root.take_request(timeout=0)

    def ask(leaf: Endpoint) -> Task[Joined]:
        address = root.local_address
        return bench.task(lambda: leaf.join_leaf(address, timeout=bench.patience))

    asking = [ask(one), ask(two)]
    first = root.take_request(timeout=bench.patience)
    second = root.take_request(timeout=bench.patience)
    bench.require(
        first.request.incarnation != second.request.incarnation, "one request was taken twice"
    )
    with bench.refused("taking a third of two requests", WSAEWOULDBLOCK):
        root.take_request(timeout=0)
    leg = bench.keep(second.answer(Accept()))
    bench.require(leg.peer_address == second.request.peer, "the leg is another asker's")
    with bench.refused("answering with DEFER", WSATRY_AGAIN):
        first.answer(DEFER)
    again = root.take_request(timeout=bench.patience)
    bench.require(again.request == first.request, "a deferred request is not the first again")
    with bench.refused("answering with a Reject", WSAECONNREFUSED):
        again.answer(Reject(b""))
    codes = sorted(_outcome(task) for task in asking)
    bench.require(codes == [0, WSAECONNREFUSED], f"the askers got {codes}")


def _outcome(task: Task[Joined]) -> int:
    try:
        task.result()
    except SpiError as error:
        return error.code
    return 0


@_check("seam, 74", control="rooted")
def taken_and_gone(bench: Bench) -> None:
    """Answering an asker that has gone meanwhile tells so, and the next is not concerned."""
    root, leaf = bench.root(), bench.leaf()
    leaf.start_join_leaf(root.local_address)
    taken = root.take_request(timeout=bench.patience)
    leaf.close()
    end = time.monotonic() + bench.patience
    while time.monotonic() < end:  # the news takes its time; a yes that came too late is none
        with bench.refused("answering who is gone", WSAECONNRESET, WSAEACCES, WSATRY_AGAIN) as why:
            taken.answer(DEFER)
        if why[0].code != WSATRY_AGAIN:
            break
        try:
            taken = root.take_request(timeout=SHORT)
        except SpiError:
            break
    bench.admit(root, bench.leaf())


@_check("30, 45, 105", control="rooted")
def nobody_listens(bench: Bench) -> None:
    """Where nobody listens the join is refused, and the leaf may go elsewhere."""
    former = bench.root()
    address = former.local_address
    former.close(linger=0)
    leaf = bench.leaf()
    with bench.refused("a join where nobody listens", WSAECONNREFUSED):
        leaf.join_leaf(address, timeout=bench.patience)
    bench.admit(bench.root(), leaf)


@_check("43")
def wildcard(bench: Bench) -> None:
    """The wildcard is no address to join."""
    where = bench.session.address
    version = where.ip.version if where.ip is not None else 0
    wild = Address({4: "0.0.0.0", 6: "::"}.get(version, ""), where.port)
    with bench.refused("a join of the wildcard", WSAEADDRNOTAVAIL):
        bench.leaf().join_leaf(wild, timeout=bench.patience)


@_check("45, model 5.3", control="rooted")
def backlog(bench: Bench) -> None:
    """Requests beyond the backlog are refused; those within it wait."""
    root = bench.open(Roles(c_root=True, d_root=bench.info.data_plane_rooted))
    events = bench.events(root)
    root.bind(bench.session.address)
    root.listen(1)
    first = bench.leaf()
    first.start_join_leaf(root.local_address, timeout=bench.patience)
    events.wait(root, c.FD_ACCEPT, "a waiting request (FD_ACCEPT)")
    with bench.refused("a request beyond the backlog", WSAECONNREFUSED):
        bench.leaf().join_leaf(root.local_address, timeout=bench.patience)
    bench.keep(root.accept(timeout=bench.patience))


@_check("61, 32", control="rooted")
def join_timeout(bench: Bench) -> None:
    """A join that nobody answers ends with WSAETIMEDOUT, not early, and may be repeated."""
    root, leaf = bench.root(), bench.leaf()
    start = time.monotonic()
    with bench.refused("a join that nobody answers", WSAETIMEDOUT):
        leaf.join_leaf(root.local_address, timeout=SHORT)
    bench.require(time.monotonic() - start >= SHORT * 0.9, "it timed out too early")
    asking = bench.task(lambda: leaf.join_leaf(root.local_address, timeout=bench.patience))
    bench.keep(_accept_past_the_gone(bench, root))
    asking.result()


def _accept_past_the_gone(bench: Bench, root: Endpoint) -> Endpoint:
    """Accept, passing over requests that were withdrawn meanwhile (model 3.4)."""
    for _ in range(4):
        try:
            return root.accept(timeout=bench.patience)
        except SpiError as error:
            if error.code not in (WSAECONNRESET, WSAEACCES):
                raise
    raise CheckFailed("accept tells of withdrawn requests again and again")


@_check("22 to 26, 79, model 6.4", control="rooted")
def started_join(bench: Bench) -> None:
    """A started join returns at once, blocks others, and is reported by FD_CONNECT once."""
    root, leaf = bench.root(), bench.leaf()
    events = bench.events(leaf)
    returned = leaf.start_join_leaf(root.local_address, timeout=bench.patience)
    bench.require(returned is leaf, "start_join_leaf of a leaf gave another endpoint")
    bench.require(isinstance(leaf.local_address, Address), "it is not bound while pending")
    with bench.refused("a second join while one is pending", WSAEALREADY):
        leaf.start_join_leaf(root.local_address)
    with bench.refused("join_result while pending", WSAEALREADY):
        leaf.join_result()
    with bench.refused("sending while pending", WSAENOTCONN):
        leaf.send_many([b"x"], timeout=0)
    bench.keep(root.accept(lambda _: Accept(b""), timeout=bench.patience))
    event = events.wait(leaf, c.FD_CONNECT, "the outcome of the join (FD_CONNECT)")
    bench.require(event.code == 0, f"FD_CONNECT came with {event.code} after an acceptance")
    bench.require(leaf.join_result().endpoint is leaf, "join_result gave another endpoint")
    bench.require(len(events.of(leaf, c.FD_CONNECT)) == 1, "FD_CONNECT came twice")


@_check("24, 25, 30", control="rooted")
def started_join_refused(bench: Bench) -> None:
    """A started join that is refused reports the number, by FD_CONNECT and join_result."""
    root, leaf = bench.root(), bench.leaf()
    events = bench.events(leaf)
    leaf.start_join_leaf(root.local_address, timeout=bench.patience)
    with bench.refused("accept of a rejected request", WSAECONNREFUSED):
        root.accept(lambda _: Reject(), timeout=bench.patience)
    event = events.wait(leaf, c.FD_CONNECT, "the outcome of the join (FD_CONNECT)")
    bench.require(event.code == WSAECONNREFUSED, f"FD_CONNECT came with {event.code}")
    with bench.refused("join_result", WSAECONNREFUSED):
        leaf.join_result()
    bench.admit(root, leaf)


@_check("29, 72 to 75", control="rooted")
def pending_leg_closed(bench: Bench) -> None:
    """Closing the leg of a pending invitation cancels it, silently, and the root may go on."""
    root = bench.open(Roles(c_root=True, d_root=bench.info.data_plane_rooted))
    listener = bench.listener()
    events, arrivals = bench.events(root), bench.events(listener)
    leg = bench.keep(root.start_join_leaf(listener.local_address))
    bench.require(leg is not root, "a started invitation gave the root itself")
    arrivals.wait(listener, c.FD_ACCEPT, "the invitation (FD_ACCEPT)")
    with bench.refused("sending on a pending leg", WSAENOTCONN):
        leg.send_many([b"x"], timeout=0)
    with bench.refused("another invitation meanwhile", WSAEALREADY):
        root.start_join_leaf(listener.local_address)
    leg.close()
    bench.require(not events.of(root, c.FD_CONNECT), "FD_CONNECT came for a cancelled invitation")
    inviting = bench.task(lambda: root.join_leaf(listener.local_address, timeout=bench.patience))
    member = bench.keep(_accept_past_the_gone(bench, listener))
    bench.keep(inviting.result().endpoint)
    late = [event for event in events.of(root, c.FD_CONNECT) if event.code]
    bench.require(not late, "FD_CONNECT came late for a cancelled invitation")
    bench.require(member.session_id == root.session_id, "the member is of another session")


@_check("102, 103, 27", control="nonrooted")
def session_joins(bench: Bench) -> None:
    """A nonrooted session is joined without anybody's leave; once for each endpoint."""
    leaf = bench.leaf()
    joined = leaf.join_leaf(bench.session.address, timeout=bench.patience)
    bench.require(joined.endpoint is leaf, "join_leaf gave another endpoint")
    bench.require(isinstance(leaf.local_address, Address), "a member has no address")
    with bench.refused("a second join", WSAEISCONN):
        leaf.join_leaf(bench.session.address, timeout=bench.patience)
    bench.join(bench.leaf())


@_check("23, model 6.6", control="nonrooted")
def started_session_join(bench: Bench) -> None:
    """A started join of a nonrooted session is reported by FD_CONNECT, however fast it was."""
    leaf = bench.leaf()
    events = bench.events(leaf)
    leaf.start_join_leaf(bench.session.address, timeout=bench.patience)
    event = events.wait(leaf, c.FD_CONNECT, "the outcome of the join (FD_CONNECT)")
    bench.require(event.code == 0, f"FD_CONNECT came with {event.code}")
    bench.require(leaf.join_result().endpoint is leaf, "join_result gave another endpoint")


@_check("model 5.3", control="nonrooted")
def no_listening(bench: Bench) -> None:
    """Nobody listens and nobody accepts in a nonrooted control plane."""
    leaf = bench.leaf()
    with bench.refused("listen", WSAEOPNOTSUPP, WSAEINVAL):
        leaf.listen()
    with bench.refused("accept", WSAEOPNOTSUPP, WSAEINVAL):
        leaf.accept(timeout=0)
    with bench.refused("taking a request", WSAEOPNOTSUPP, WSAEINVAL):
        leaf.take_request(timeout=0)


@_check("3, 14, 121, model 8.2", control="rooted", flags=c.XP1_QOS_SUPPORTED)
def qos_is_negotiated(bench: Bench) -> None:
    """The asker's flow specifications reach the condition, and its answer reaches the asker."""
    asked = Qos(FlowSpec(token_rate=9200), FlowSpec(token_rate=4600))
    agreed = Qos(FlowSpec(token_rate=1000), FlowSpec(token_rate=2000))
    seen: list[Qos | None] = []

    def admit(request: JoinRequest) -> Accept | Reject | Defer:
        seen.append(request.qos)
        return Accept(qos=agreed)

    root, leaf = bench.root(), bench.leaf()
    leg, joined = bench.admit(root, leaf, admit, qos=asked)
    bench.require(seen == [asked], f"the condition was shown {seen}")
    bench.require(joined.qos == agreed, f"the asker was told {joined.qos}")
    bench.require(leaf.qos == agreed, f"the leaf's qos is {leaf.qos}")
    bench.require(leg.qos == agreed, f"the leg's qos is {leg.qos}")


@_check("58, 59", control="rooted", flags=c.XP1_QOS_SUPPORTED)
def qos_is_admitted(bench: Bench) -> None:
    """A reservation beyond the root's capacity is refused, one within it is not."""
    root, leaf = bench.root(Settings(capacity=10_000)), bench.leaf()
    greedy = Qos(FlowSpec(token_rate=20_000, service_type=c.SERVICETYPE_GUARANTEED))
    asking = bench.task(
        lambda: leaf.join_leaf(root.local_address, qos=greedy, timeout=bench.patience)
    )
    with bench.refused("accept of what does not fit", WSAEOPNOTSUPP):
        root.accept(timeout=bench.patience)
    with bench.refused("a reservation that does not fit", WSAEOPNOTSUPP):
        asking.result()
    modest = Qos(FlowSpec(token_rate=8_000, service_type=c.SERVICETYPE_GUARANTEED))
    bench.admit(root, leaf, qos=modest)


@_check("58, 60")
def qos_unsupported(bench: Bench) -> None:
    """An entry without QoS refuses a reservation, and lets a request for nothing pass."""
    if bench.info.has(c.XP1_QOS_SUPPORTED):
        raise NotApplicable("the entry has QoS")
    leaf = bench.leaf()
    reservation = Qos(FlowSpec(token_rate=1000, service_type=c.SERVICETYPE_GUARANTEED))
    with bench.refused("a reservation", WSAEOPNOTSUPP):
        leaf.join_leaf(bench.session.address, qos=reservation, timeout=bench.patience)
    leaf.join_leaf(bench.session.address, qos=Qos(), timeout=bench.patience)


@_check("16, model 10.1", control="rooted", plane="rooted")
def one_data_root(bench: Bench) -> None:
    """A session has one d_root: a second is refused."""
    root, leaf = bench.root(), bench.leaf(d_root=True)
    asking = bench.task(
        lambda: leaf.join_leaf(root.local_address, role=JoinRole.BOTH, timeout=bench.patience)
    )
    with bench.refused("accept of a second d_root", WSAECONNREFUSED):
        root.accept(timeout=bench.patience)
    with bench.refused("a second d_root", WSAECONNREFUSED):
        asking.result()

"""Checks about leaving, expelling, dissolving, breaking, and ending calls that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from joinleaf.spi import constants as c
from joinleaf.spi.codes import (
    WSAECONNABORTED,
    WSAECONNRESET,
    WSAEDISCON,
    WSAEINVAL,
    WSAENOTCONN,
    WSAENOTSOCK,
    WSAESHUTDOWN,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
)
from joinleaf.spi.provider import Endpoint, EndpointEvent, EndReason
from joinleaf.testing.provider_bench import SHORT, Bench, Checks

__all__ = ["ENDING_CHECKS"]

ENDING_CHECKS: Final = Checks()
_check = ENDING_CHECKS.add


@_check("99, model 7.5", control="rooted")
def leaf_leaves(bench: Bench) -> None:
    """A leaf that closes is told on its leg, with its words; nobody else is disturbed."""
    root, leaving, staying = bench.root(), bench.leaf(), bench.leaf()
    events = bench.events(root)
    leg, _ = bench.admit(root, leaving)
    other, _ = bench.admit(root, staying)
    leaving.close(data=b"bye")
    event = events.wait(leg, c.FD_CLOSE, "the leaf's leaving (FD_CLOSE on the leg)")
    _check_event(bench, event, EndReason.CLOSED, b"bye")
    bench.require(not events.of(other, c.FD_CLOSE), "another leg was told")
    bench.require(not events.of(root, c.FD_CLOSE), "the root was told")
    _check_end(bench, leg, EndReason.CLOSED, b"bye")
    root.send_many([b"on"], timeout=bench.patience)
    bench.gather(staying, 1, b"on")


@_check("100", control="rooted")
def root_expels(bench: Bench) -> None:
    """Closing a leg expels its leaf, after what was sent; the others stay."""
    root, expelled, staying = bench.root(), bench.leaf(), bench.leaf()
    leg, _ = bench.admit(root, expelled)
    bench.admit(root, staying)
    events = bench.events(expelled)
    root.send_many([b"first"], timeout=bench.patience)
    leg.close(data=b"out", linger=bench.patience)
    bench.gather(expelled, 1, b"first")
    _check_end(bench, expelled, EndReason.EXPELLED, b"out")
    event = events.wait(expelled, c.FD_CLOSE, "being expelled (FD_CLOSE)")
    _check_event(bench, event, EndReason.EXPELLED, b"out")
    root.send_many([b"on"], timeout=bench.patience)
    bench.gather(staying, 1, b"on")


@_check("model 1.4", control="rooted")
def root_dissolves(bench: Bench) -> None:
    """Closing the root ends the session for every leaf, after what was sent."""
    root, leaves = bench.root(), [bench.leaf() for _ in range(3)]
    for leaf in leaves:
        bench.admit(root, leaf)
    root.send_many([b"last"], timeout=bench.patience)
    root.close(data=b"over", linger=bench.patience)
    for leaf in leaves:
        bench.gather(leaf, 1, b"last")
        _check_end(bench, leaf, EndReason.DISSOLVED, b"over")


@_check("model 5.8", control="rooted")
def root_shuts_down(bench: Bench) -> None:
    """Shutting a root down dissolves the session while the root stays open."""
    root, leaf = bench.root(), bench.leaf()
    leg, _ = bench.admit(root, leaf)
    root.shutdown(c.SD_BOTH, data=b"over")
    _check_end(bench, leaf, EndReason.DISSOLVED, b"over")
    with bench.refused("sending on a dissolved root", WSAESHUTDOWN, WSAEDISCON, WSAENOTCONN):
        root.send_many([b"x"], timeout=0)
    with bench.refused("inviting with a dissolved root", WSAEINVAL):
        root.join_leaf(bench.session.address, timeout=bench.patience)
    bench.until_end(leg)


@_check("model 5.7", control="rooted")
def root_aborts(bench: Bench) -> None:
    """An abortive close is told as WSAECONNRESET."""
    root, leaf = bench.root(), bench.leaf()
    bench.admit(root, leaf)
    root.close(abort=True)
    error = bench.until_end(leaf, (WSAECONNRESET, WSAECONNABORTED))
    bench.require(error.reason == EndReason.LOST, f"the reason is {error.reason!r}, not lost")


@_check("130, model 6.3", control="rooted")
def broken_is_broken(bench: Bench) -> None:
    """A leaf whose membership has ended cannot join again; a new one can."""
    root, leaf = bench.root(), bench.leaf()
    leg, _ = bench.admit(root, leaf)
    leg.close()
    bench.until_end(leaf)
    with bench.refused("a join after the membership ended", WSAEINVAL):
        leaf.join_leaf(root.local_address, timeout=bench.patience)
    bench.admit(root, bench.leaf())


def _check_end(bench: Bench, endpoint: Endpoint, reason: EndReason, data: bytes) -> None:
    error = bench.until_end(endpoint)
    bench.require(error.reason == reason, f"the reason is {error.reason!r}, not {reason!r}")
    if bench.info.has(c.XP1_DISCONNECT_DATA):
        bench.require(error.data == data, f"the disconnect data are {error.data!r}")


def _check_event(bench: Bench, event: EndpointEvent, reason: EndReason, data: bytes) -> None:
    bench.require(event.code == 0, f"FD_CLOSE has code {event.code} for an orderly end")
    bench.require(event.reason == reason, f"FD_CLOSE has reason {event.reason!r}, not {reason!r}")
    if bench.info.has(c.XP1_DISCONNECT_DATA):
        bench.require(event.data == data, f"FD_CLOSE has data {event.data!r}")


@_check("seam")
def receive_timeout(bench: Bench) -> None:
    """Receive with a time ends with WSAETIMEDOUT, not early; with none, WSAEWOULDBLOCK."""
    _, listener = bench.pair()
    _times_out(bench, lambda timeout: listener.receive_many(timeout=timeout))


@_check("model 5.5", control="rooted")
def accept_timeout(bench: Bench) -> None:
    """Accept with a time ends with WSAETIMEDOUT, not early; with none, WSAEWOULDBLOCK."""
    root = bench.root()
    _times_out(bench, lambda timeout: root.accept(timeout=timeout))
    with bench.refused("accept without listening", WSAEINVAL):
        bench.leaf().accept(timeout=0)


def _times_out(bench: Bench, call: Callable[[float], object]) -> None:
    with bench.refused("a call that may not wait", WSAEWOULDBLOCK):
        call(0)
    start = time.monotonic()
    with bench.refused("a call that waits in vain", WSAETIMEDOUT):
        call(SHORT)
    bench.require(time.monotonic() - start >= SHORT * 0.9, "it timed out too early")


@_check("38, seam")
def receive_is_cancelled(bench: Bench) -> None:
    """Cancel from another thread ends a receive with WSAEINTR; the endpoint goes on."""
    sender, listener = bench.pair()
    bench.interrupt(bench.task(listener.receive_many), listener.cancel)
    sender.send_many([b"G"], timeout=bench.patience)
    bench.gather(listener, 1, b"G")


@_check("38, model 5.16", control="rooted")
def accept_is_cancelled(bench: Bench) -> None:
    """Cancel from another thread ends an accept with WSAEINTR; the listener goes on."""
    root = bench.root()
    bench.interrupt(bench.task(root.accept), root.cancel)
    bench.admit(root, bench.leaf())


@_check("38, model 6.3", control="rooted")
def join_is_cancelled(bench: Bench) -> None:
    """Cancel from another thread ends a blocking join with WSAEINTR, and nobody has joined."""
    root, leaf = bench.root(), bench.leaf()
    address = root.local_address
    bench.interrupt(bench.task(lambda: leaf.join_leaf(address)), leaf.cancel)
    with bench.refused("sending after a cancelled join", WSAENOTCONN):
        leaf.send_many([b"x"], timeout=0)


@_check("seam")
def receive_ends_by_close(bench: Bench) -> None:
    """Close from another thread ends a receive with WSAEINTR."""
    _, listener = bench.pair()
    bench.interrupt(bench.task(listener.receive_many), listener.close)


@_check("seam", control="rooted")
def accept_ends_by_close(bench: Bench) -> None:
    """Close from another thread ends an accept with WSAEINTR."""
    root = bench.root()
    bench.interrupt(bench.task(root.accept), root.close)


@_check("57, 131")
def closed_is_closed(bench: Bench) -> None:
    """Closing twice is allowed; anything else on a closed endpoint is WSAENOTSOCK."""
    sender, _ = bench.pair()
    unjoined = bench.leaf()
    for endpoint in (sender, unjoined):
        endpoint.close()
        endpoint.close()
        with bench.refused("sending on a closed endpoint", WSAENOTSOCK):
            endpoint.send_many([b"x"], timeout=0)
        with bench.refused("receiving on a closed endpoint", WSAENOTSOCK):
            endpoint.receive_many(timeout=0)
        with bench.refused("joining with a closed endpoint", WSAENOTSOCK):
            endpoint.join_leaf(bench.session.address, timeout=bench.patience)
        endpoint.cancel()

"""Finding and choosing interfaces; made-up lists where the host's own would decide the outcome."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
from collections.abc import Sequence

import pytest

from joinleaf.drivers import interfaces
from joinleaf.drivers.interfaces import (
    Interface,
    IpAddress,
    OwnAddresses,
    check_usable,
    choose_interface,
    find_interface,
    list_interfaces,
)
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEADDRNOTAVAIL, WSAENETDOWN, WSAENETUNREACH

GROUP = ipaddress.ip_address("239.255.1.1")


def make(name: str, index: int, *addresses: str, **flags: bool) -> Interface:
    return Interface(name, index, tuple(map(ipaddress.ip_address, addresses)), **flags)


LO = make("lo", 1, "127.0.0.1", "::1", loopback=True, multicast=False)
ETH = make("eth0", 2, "10.0.0.5", "fe80::1")
WLAN = make("wlan0", 3, "10.9.0.5")
DOWN = make("eth9", 4, "10.8.0.5", up=False)


def pretend(
    monkeypatch: pytest.MonkeyPatch, listed: Sequence[Interface], route: str | None
) -> None:
    source: IpAddress | None = None if route is None else ipaddress.ip_address(route)
    monkeypatch.setattr(interfaces, "list_interfaces", lambda: list(listed))
    monkeypatch.setattr(interfaces, "route_source", lambda _group: source)


def test_loopback_is_found_by_name_index_and_address() -> None:
    loopback = next(one for one in list_interfaces() if one.loopback)
    for wanted in (loopback.name, loopback.index, str(loopback.index), "127.0.0.1"):
        assert find_interface(wanted) == loopback


def test_every_interface_of_the_system_is_listed() -> None:
    assert {(one.index, one.name) for one in list_interfaces()} == set(socket.if_nameindex())


def test_an_unknown_interface_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(SpiError) as caught:
        find_interface("nope0")
    assert caught.value.code == WSAEADDRNOTAVAIL
    assert "127.0.0.1" in caught.value.hint


@pytest.mark.parametrize(
    ("listed", "route", "chosen", "why"),
    [
        ([LO, ETH, WLAN], "10.9.0.5", WLAN, "the route"),
        ([LO, DOWN, ETH], None, ETH, "first up"),
        ([LO, DOWN], None, LO, "only this host"),
    ],
)
def test_the_choice_follows_the_route_then_what_is_up_then_loopback(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    listed: list[Interface],
    route: str | None,
    chosen: Interface,
    why: str,
) -> None:
    pretend(monkeypatch, listed, route)
    with caplog.at_level(logging.INFO, logger="joinleaf"):
        assert choose_interface(GROUP) == chosen
    assert chosen.name in caplog.text
    assert why in caplog.text


def test_without_an_interface_of_the_family_the_network_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, [WLAN, DOWN], None)
    with pytest.raises(SpiError) as caught:
        choose_interface(ipaddress.ip_address("ff15::1"))
    assert caught.value.code == WSAENETUNREACH


def test_an_interface_that_is_down_or_without_the_family_is_not_usable() -> None:
    check_usable(ETH, 4)
    with pytest.raises(SpiError) as caught:
        check_usable(DOWN, 4)
    assert caught.value.code == WSAENETDOWN
    with pytest.raises(SpiError) as caught:
        check_usable(WLAN, 6)
    assert caught.value.code == WSAEADDRNOTAVAIL


def test_own_addresses_are_read_again_after_their_short_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = OwnAddresses()
    pretend(monkeypatch, [LO, ETH], None)
    assert own.contains("10.0.0.5", 100.0)
    assert own.contains("fe80::1%eth0", 100.0)
    assert own.contains("127.0.0.99", 100.0)
    assert not own.contains("10.9.0.5", 100.0)
    pretend(monkeypatch, [LO, WLAN], None)
    assert not own.contains("10.9.0.5", 101.0)
    assert own.contains("10.9.0.5", 102.5)
    assert not own.contains("10.0.0.5", 102.5)


@pytest.mark.skipif(sys.platform != "linux", reason="flags are asked for on Linux only")
def test_loopback_is_up_and_known_as_loopback() -> None:
    loopback = find_interface("127.0.0.1")
    assert loopback.up
    assert loopback.loopback

"""The mem provider itself: its entries, its addresses, and which roles it opens."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from joinleaf.errors import SpiError
from joinleaf.providers.memory import AF_MEMORY, Faults, MemoryProvider
from joinleaf.spi import constants as c
from joinleaf.spi.catalogue import Catalogue
from joinleaf.spi.codes import WSAEINVAL, WSAENETDOWN
from joinleaf.spi.protocol_info import accepts_roles
from joinleaf.spi.provider import Provider, Roles
from joinleaf.values import SessionAddress

ROOTED = 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x400 | 0x800 | 0x2000
NONROOTED = 0x1 | 0x2 | 0x4 | 0x8 | 0x400


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ("", ROOTED | 0x1000),
        ("?control=rooted&plane=rooted", ROOTED | 0x1000),
        ("?plane=nonrooted", ROOTED),
        ("?control=nonrooted", NONROOTED | 0x1000),
        ("?control=nonrooted&plane=nonrooted", NONROOTED),
    ],
)
def test_an_address_selects_its_quadrant_with_exact_bits(options: str, flags: int) -> None:
    info = MemoryProvider().select(SessionAddress.parse(f"mem://name{options}"))
    assert info.service_flags == flags
    assert info.address_family == AF_MEMORY
    assert info.socket_type == (c.SOCK_SEQPACKET if flags & 0x800 else c.SOCK_RDM)


@pytest.mark.parametrize(
    "text",
    ["mem://x?speed=1", "mem://x?plane=round", "mem://x?control=", "mem://me@x", "mem://x#key"],
)
def test_options_it_does_not_know_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mem://"):
        MemoryProvider().select(SessionAddress.parse(text))


def test_the_entries_are_told_apart_and_stay_the_same() -> None:
    one, two = MemoryProvider().protocols(), MemoryProvider().protocols()
    assert tuple(one) == tuple(two)
    # Programs store these: they must be the same in every process and every version.
    assert [str(info.provider_id) for info in one] == [
        "4f489ea0-0d95-5eea-a17c-57d0acc0767c",
        "a615ed97-1200-51f3-94b8-fd7386db9abf",
        "4bd196c2-2ba8-5b28-91a8-b5a61c0babbc",
        "f90ab2ee-ab8d-55b4-b420-3168075fc114",
    ]


def test_roles_open_by_table_2_1() -> None:
    provider = MemoryProvider()
    for info, c_root, d_root in product(provider.protocols(), (True, False), (True, False)):
        roles = Roles(c_root=c_root, d_root=d_root)
        if accepts_roles(info, c_root, not c_root, d_root, not d_root):
            endpoint = provider.open(info, roles)
            assert (endpoint.roles, endpoint.info) == (roles, info)
            endpoint.close()
        else:
            with pytest.raises(SpiError) as refusal:
                provider.open(info, roles)
            assert refusal.value.code == WSAEINVAL
    assert provider.is_empty


def test_entries_of_others_are_refused_and_numbered_ones_taken() -> None:
    catalogue = Catalogue()
    provider = MemoryProvider()
    numbered = catalogue.add(provider)
    assert provider.open(numbered[0], Roles()).info.catalog_entry_id > 0
    with pytest.raises(SpiError) as refusal:
        provider.open(replace(numbered[0], address_family=c.AF_INET), Roles())
    assert refusal.value.code == WSAEINVAL


def test_with_the_network_down_nothing_opens() -> None:
    provider = MemoryProvider()
    provider.faults.network_down = True
    with pytest.raises(SpiError) as refusal:
        provider.open(provider.protocols()[0], Roles())
    assert refusal.value.code == WSAENETDOWN


def test_it_is_a_provider_by_type() -> None:
    provider: Provider = MemoryProvider()
    assert provider.scheme == "mem"


def test_faults_by_themselves_release_nothing() -> None:
    with pytest.raises(RuntimeError, match="belong to no provider"):
        Faults().release()

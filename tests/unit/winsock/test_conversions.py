"""Catalogue entries and QOS: the bytes of a structure, and back."""

from __future__ import annotations

import ctypes
import socket
import struct
import uuid

import pytest

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.values import Address
from joinleaf.winsock import conversions as v
from joinleaf.winsock import types as t

INFO = ProtocolInfo(
    service_flags=0x3DEE,
    name="joinleaf \N{GRINNING FACE}",
    provider_id=uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    catalog_entry_id=1001,
    chain=(5, 6, 7),
    address_family=23,
    max_sockaddr=28,
    min_sockaddr=27,
    message_size=0xFFFFFFFF,
)


def test_an_entry_has_its_members_at_the_offsets_of_the_header() -> None:
    raw = bytes(v.info_to_c(INFO))
    assert len(raw) == 628
    assert struct.unpack_from("=I", raw, 0) == (0x3DEE,)
    assert struct.unpack_from("=IHH", raw, 20) == (0x00112233, 0x4455, 0x6677)
    assert raw[28:36] == bytes.fromhex("8899aabbccddeeff")
    assert struct.unpack_from("=I4i", raw, 36) == (1001, 3, 5, 6, 7)
    assert struct.unpack_from("=3i", raw, 76) == (23, 28, 27)
    assert struct.unpack_from("=I", raw, 108) == (0xFFFFFFFF,)
    assert raw[116:118].decode("utf-16") == "j"


def test_an_entry_survives_the_round_trip() -> None:
    assert v.info_from_c(v.info_to_c(INFO)) == INFO
    longest = ProtocolInfo(service_flags=0, name="x" * 255)
    assert v.info_from_c(v.info_to_c(longest)) == longest


@pytest.mark.parametrize("length", [-1, 8])
def test_an_impossible_chain_is_invalid(length: int) -> None:
    structure = v.info_to_c(INFO)
    structure.ProtocolChain.ChainLen = length
    with pytest.raises(SpiError) as caught:
        v.info_from_c(structure)
    assert caught.value.code == codes.WSAEINVAL


def test_sending_and_receiving_are_not_swapped() -> None:
    qos = Qos(FlowSpec(token_rate=9200, latency=5), FlowSpec(token_rate=7), b"objects")
    structure = v.qos_to_c(qos)
    assert struct.unpack_from("=I", bytes(structure), 0) == (9200,)
    assert struct.unpack_from("=I", bytes(structure), 32) == (7,)
    assert v.qos_from_c(structure) == qos


def test_a_qos_nobody_can_satisfy_or_read_is_refused_with_its_number() -> None:
    structure = v.qos_to_c(Qos())
    structure.SendingFlowspec.ServiceType = 0x55
    with pytest.raises(SpiError) as caught:
        v.qos_from_c(structure)
    assert caught.value.code == codes.WSAEOPNOTSUPP
    structure = v.qos_to_c(Qos())
    structure.ProviderSpecific.len = 4
    with pytest.raises(SpiError) as caught:
        v.qos_from_c(structure)
    assert caught.value.code == codes.WSAEFAULT


def test_storing_keeps_within_the_clients_own_memory() -> None:
    memory = ctypes.create_string_buffer(b"........", 8)
    target = t.QOS()
    target.ProviderSpecific = t.WSABUF(4, ctypes.addressof(memory))
    v.store_qos(target, Qos(provider_specific=b"longer"))
    assert (target.ProviderSpecific.len, memory.raw) == (0, b"........")
    target.ProviderSpecific.len = 4
    v.store_qos(target, Qos(FlowSpec(token_rate=3), provider_specific=b"abc"))
    assert (target.ProviderSpecific.len, memory.raw) == (3, b"abc.....")
    assert target.SendingFlowspec.TokenRate == 3


IPV4 = Address("239.1.2.3", 5000)
IPV6 = Address("ff15::1", 5000, "3")


def test_an_address_has_its_family_in_host_order_and_the_rest_in_network_order() -> None:
    raw = v.pack_sockaddr(IPV4, 2)
    assert raw == struct.pack("=H", 2) + b"\x13\x88" + bytes((239, 1, 2, 3)) + bytes(8)
    raw = v.pack_sockaddr(IPV6, 23)
    assert len(raw) == 28
    place = t.sockaddr_in6.from_buffer_copy(raw)
    assert (place.sin6_family, place.sin6_scope_id) == (23, 3)
    assert v.pack_sockaddr(Address("room"), 0x4A4C) == struct.pack("=H", 0x4A4C) + b"room\0"


@pytest.mark.parametrize(
    ("address", "family"),
    [(IPV4, 2), (IPV6, 23), (Address("r\N{LATIN SMALL LETTER U WITH DIAERESIS}m"), 0x4A4C)],
)
def test_an_address_survives_the_round_trip_and_what_follows_is_ignored(
    address: Address, family: int
) -> None:
    raw = v.pack_sockaddr(address, family)
    assert v.sockaddr_family(raw) == family
    assert v.unpack_sockaddr(raw) == address
    assert v.unpack_sockaddr(raw + b"\0more") == address


def test_the_empty_host_is_the_wildcard_of_each_family() -> None:
    assert v.unpack_sockaddr(v.pack_sockaddr(Address(""), 2)) == Address("0.0.0.0")
    assert v.unpack_sockaddr(v.pack_sockaddr(Address(""), 23)) == Address("::")


def test_an_interface_name_becomes_its_index() -> None:
    raw = v.pack_sockaddr(Address("fe80::1", 1, "lo"), 23)
    assert v.unpack_sockaddr(raw).scope == str(socket.if_nametoindex("lo"))


@pytest.mark.parametrize("raw", [b"", b"\2", *(struct.pack("=H", f) + b"1" for f in (2, 23))])
def test_an_address_that_is_too_short_is_a_fault(raw: bytes) -> None:
    with pytest.raises(SpiError) as caught:
        v.unpack_sockaddr(raw)
    assert caught.value.code == codes.WSAEFAULT


def test_a_name_that_is_not_utf_8_is_a_fault() -> None:
    with pytest.raises(SpiError) as caught:
        v.unpack_sockaddr(struct.pack("=H", 0x4A4C) + b"\xff\0")
    assert caught.value.code == codes.WSAEFAULT


def test_an_address_of_another_family_cannot_be_expressed() -> None:
    for address in (IPV6, Address("some-host", 1)):
        with pytest.raises(SpiError) as caught:
            v.pack_sockaddr(address, 2)
        assert caught.value.code == codes.WSAEADDRNOTAVAIL

"""Parameters and results as a trace shows them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from joinleaf.providers.memory import AF_MEMORY, MemoryProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.qos import FlowSpec, Qos
from joinleaf.winsock import INVALID_SOCKET, Cell, Wsabuf
from joinleaf.winsock.conversions import qos_to_c
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.tracing import outputs_text, parameters_text
from joinleaf.winsock.types import QOS, WSABUF, WSANETWORKEVENTS

INFO = MemoryProvider().protocols()[0]
NAME = struct.pack("=H", AF_MEMORY) + b"hub\0"


def before(function: str, **given: Any) -> str:
    """The text of the parameters given, without those that are not."""
    prototype = PROVIDER_FUNCTIONS[function]
    args = tuple(given.get(name) for name in prototype.parameter_names)
    text = parameters_text(prototype, args, INFO)
    missing = {f"{name}=NULL" for name in prototype.parameter_names if name not in given}
    return ", ".join(part for part in text.split(", ") if part not in missing)


def after(function: str, result: int, **given: Any) -> str:
    prototype = PROVIDER_FUNCTIONS[function]
    args = tuple(given.get(name) for name in prototype.parameter_names)
    return outputs_text(prototype, args, result, INFO)


def record(bits: int, **errors: int) -> WSANETWORKEVENTS:
    made = WSANETWORKEVENTS(bits)
    for name, code in errors.items():
        made.iErrorCode[getattr(c, f"{name}_BIT")] = code
    return made


@pytest.mark.parametrize(
    ("function", "given", "text"),
    [
        ("WSPListen", {"s": 260, "backlog": 5}, "s=0x104, backlog=5"),
        ("WSPListen", {"s": INVALID_SOCKET, "backlog": 5}, "s=INVALID_SOCKET, backlog=5"),
        ("WSPBind", {"s": 8, "name": NAME, "namelen": 6}, "s=0x8, name=hub, namelen=6"),
        ("WSPBind", {"s": 8, "name": b"x", "namelen": 6}, "s=0x8, name=?, namelen=6"),
        ("WSPJoinLeaf", {"s": 8, "dwFlags": c.JL_SENDER_ONLY}, "s=0x8, dwFlags=JL_SENDER_ONLY"),
        ("WSPJoinLeaf", {"s": 8, "dwFlags": 9}, "s=0x8, dwFlags=JL_SENDER_ONLY|0x8"),
        ("WSPJoinLeaf", {"s": 8, "dwFlags": 0}, "s=0x8, dwFlags=0"),
        (
            "WSPJoinLeaf",
            {"s": 8, "lpCallerData": Wsabuf(b"hi"), "lpCalleeData": Wsabuf(64), "dwFlags": 4},
            "s=0x8, lpCallerData=b'hi', lpCalleeData=[64], dwFlags=JL_BOTH",
        ),
        (
            "WSPSendDisconnect",
            {"s": 8, "lpOutboundDisconnectData": Wsabuf(bytes(40))},
            f"s=0x8, lpOutboundDisconnectData={bytes(32)!r}... (40 bytes)",
        ),
        (
            "WSPConnect",
            {"s": 8, "lpSQOS": qos_to_c(Qos(FlowSpec(token_rate=9200)))},
            f"s=0x8, lpSQOS=(sending 9200 B/s type {FlowSpec().service_type}; "
            "receiving unspecified)",
        ),
        (
            "WSPEventSelect",
            {"s": 8, "hEventObject": 256, "lNetworkEvents": c.FD_ACCEPT | c.FD_CLOSE},
            "s=0x8, hEventObject=0x100, lNetworkEvents=FD_ACCEPT|FD_CLOSE",
        ),
        ("WSPShutdown", {"s": 8, "how": c.SD_SEND}, "s=0x8, how=SD_SEND"),
        ("WSPShutdown", {"s": 8, "how": 77}, "s=0x8, how=77"),
        (
            "WSPSelect",
            {"nfds": 0, "readfds": [8, 12], "writefds": [], "timeout": None},
            "nfds=0, readfds={0x8, 0xc}, writefds={}, timeout=NULL",
        ),
        (
            "WSPStringToAddress",
            {"AddressString": "1.2.3.4", "AddressFamily": 2},
            "AddressString='1.2.3.4', AddressFamily=2",
        ),
        ("WSPAccept", {"s": 8, "lpfnCondition": before}, "s=0x8, lpfnCondition=before"),
        ("WSPAccept", {"s": 8, "lpfnCondition": 0x7F0000}, "s=0x8, lpfnCondition=0x7f0000"),
    ],
)  # fmt: skip
def test_parameters_are_shown_by_name(function: str, given: dict[str, Any], text: str) -> None:
    numbers = {
        name: 0
        for kind, name in PROVIDER_FUNCTIONS[function].parameters
        if kind in ("int", "DWORD", "DWORD_PTR") and name not in given
    }
    shown = before(function, **given, **numbers)
    for name in numbers:
        shown = shown.replace(f", {name}=0", "")
    assert shown == text


def test_a_socket_is_shown_with_its_family_type_and_roles() -> None:
    flags = c.WSA_FLAG_OVERLAPPED | c.WSA_FLAG_MULTIPOINT_C_ROOT
    shown = before("WSPSocket", af=c.AF_INET, type=c.SOCK_DGRAM, lpProtocolInfo=INFO, dwFlags=flags)
    assert "af=AF_INET, type=SOCK_DGRAM" in shown
    assert f"lpProtocolInfo={INFO.name!r}" in shown
    assert "dwFlags=WSA_FLAG_OVERLAPPED|WSA_FLAG_MULTIPOINT_C_ROOT" in shown


def test_commands_and_options_are_shown_by_name() -> None:
    shown = before("WSPIoctl", s=8, dwIoControlCode=c.SIO_GET_QOS, cbInBuffer=0, cbOutBuffer=80)
    assert "dwIoControlCode=SIO_GET_QOS" in shown
    shown = before("WSPSetSockOpt", s=8, level=c.SOL_SOCKET, optname=c.SO_LINGER, optlen=4)
    assert "level=SOL_SOCKET, optname=SO_LINGER, " in shown


@pytest.mark.parametrize(
    ("function", "result", "given", "text"),
    [
        ("WSPBind", 0, {"name": NAME, "namelen": 6}, "0"),
        ("WSPJoinLeaf", 260, {"lpCalleeData": Wsabuf(64)}, "0x104"),
        ("WSPGetSockName", 0, {"name": NAME, "namelen": Cell(6)}, "0, name=hub"),
        ("WSPAccept", 260, {"addr": Cell(NAME)}, "0x104, addr=hub"),
        ("WSPRecv", 0, {"lpNumberOfBytesRecvd": Cell(5)}, "0, lpNumberOfBytesRecvd=5"),
        (
            "WSPRecvFrom",
            0,
            {"lpNumberOfBytesRecvd": Cell(5), "lpFrom": NAME, "lpFromlen": Cell(6)},
            "0, lpNumberOfBytesRecvd=5, lpFrom=hub",
        ),
        ("WSPRecvDisconnect", 0, {"lpInboundDisconnectData": Wsabuf(b"bye")},
         "0, lpInboundDisconnectData=b'bye'"),
        ("WSPSelect", 1, {"readfds": [8], "writefds": []}, "1, readfds={0x8}, writefds={}"),
        (
            "WSPEnumNetworkEvents",
            0,
            {
                "lpNetworkEvents": record(
                    c.FD_CONNECT | c.FD_READ, FD_CONNECT=codes.WSAECONNREFUSED
                )
            },
            "0, lpNetworkEvents={FD_READ, FD_CONNECT WSAECONNREFUSED}",
        ),
        ("WSPEnumNetworkEvents", 0, {"lpNetworkEvents": Cell(record(0))}, "0, lpNetworkEvents={}"),
        ("WSPGetSockName", 0, {"name": b"x", "namelen": Cell(6)}, "0, name=?"),
    ],
)  # fmt: skip
def test_a_success_shows_what_was_written(
    function: str, result: int, given: dict[str, Any], text: str
) -> None:
    assert after(function, result, **given) == text


def test_nothing_that_is_null_or_unreadable_stops_a_trace() -> None:
    shown = before("WSPConnect", s=object(), lpCallerData=WSABUF(5, None), lpSQOS=3)
    assert "s=?" in shown
    assert "lpCallerData=?" in shown
    assert "lpSQOS=?" in shown
    assert before("WSPConnect", s=8, lpSQOS=QOS()).startswith("s=0x8, ")

"""Parameters of the thirty functions as text, for a log: addresses, flags and codes by name.

Reading a parameter never fails and never writes: what cannot be read is shown as ``?``, and the
provider below is left to say so. Contents of messages are not shown, only how long they are; of
connect and disconnect data the first bytes are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.qos import FlowSpec
from joinleaf.winsock.addresses import address_text
from joinleaf.winsock.declarations import Prototype
from joinleaf.winsock.memory import (
    Cell,
    as_int,
    buffer,
    buffers,
    info_at,
    is_null,
    qos_at,
    read_fd_set,
    read_int,
    read_sockaddr,
    read_wide,
    struct_at,
)
from joinleaf.winsock.types import INVALID_SOCKET, WSANETWORKEVENTS

__all__ = ["outputs_text", "parameters_text"]

_SHOWN: Final = 32  # bytes of connect data in one line
_UNREADABLE: Final = "?"


def _table(*prefixes: str) -> dict[int, str]:
    found = {name: value for name, value in vars(c).items() if name.startswith(prefixes)}
    return {value & 0xFFFFFFFF: name for name, value in found.items() if isinstance(value, int)}


def _bits(*prefixes: str) -> dict[int, str]:
    return {value: name for value, name in _table(*prefixes).items() if value.bit_count() == 1}


_JOIN_ROLES: Final = _bits("JL_")
_SOCKET_FLAGS: Final = _bits("WSA_FLAG_")
_EVENTS: Final = _bits("FD_")
_MESSAGE_FLAGS: Final = _bits("MSG_")
_CONTROLS: Final = _table("SIO_", "FIO", "SIOCAT")
_OPTIONS: Final = _table("SO_")
_FAMILIES: Final = _table("AF_")
_TYPES: Final = _table("SOCK_")
_DIRECTIONS: Final = _table("SD_")

_LENGTHS: Final = {"name": "namelen", "lpTo": "iTolen", "lpsaAddress": "dwAddressLength"}
_OUTPUT_NAMES: Final = frozenset({"WSPGetSockName", "WSPGetPeerName"})
_SETS: Final = frozenset({"readfds", "writefds", "exceptfds"})

_Values = dict[str, Any]


def parameters_text(prototype: Prototype, args: tuple[Any, ...], info: ProtocolInfo) -> str:
    """All parameters but lpErrno, as they are before the call: ``s=0x104, backlog=5``."""
    values = dict(zip(prototype.parameter_names, args, strict=True))
    return ", ".join(
        f"{name}={_text(prototype.name, kind, name, values, info)}"
        for kind, name in prototype.parameters
        if name != "lpErrno"
    )


def outputs_text(
    prototype: Prototype, args: tuple[Any, ...], result: int, info: ProtocolInfo
) -> str:
    """The result of a call that has succeeded, and what it has written."""
    values = dict(zip(prototype.parameter_names, args, strict=True))
    head = _handle(result) if prototype.returns == "SOCKET" else str(result)
    parts = [head]
    for name in prototype.parameter_names:
        show = _OUTPUTS.get((prototype.name, name)) or _OUTPUTS.get(("", name))
        if show is not None and not is_null(values[name]):
            parts.append(f"{name}={_safely(show, values, name, info)}")
    return ", ".join(parts)


def _text(function: str, kind: str, name: str, values: _Values, info: ProtocolInfo) -> str:
    value = values[name]
    if kind == "SOCKET":
        return _safely(lambda *_: _handle(as_int(value)), values, name, info)
    if is_null(value) and not isinstance(value, int):
        return "NULL"
    show = _INPUTS.get((function, name)) or _INPUTS.get(("", name))
    if function in _OUTPUT_NAMES:
        show = None
    if show is not None:
        return _safely(show, values, name, info)
    if kind.endswith("*") or kind.removeprefix("const ").startswith(("LP", "P")):
        return _pointer(value)
    return _safely(lambda *_: str(as_int(value)), values, name, info)


def _safely(
    show: Callable[[_Values, str, ProtocolInfo], str],
    values: _Values,
    name: str,
    info: ProtocolInfo,
) -> str:
    try:
        return show(values, name, info)
    except (SpiError, ValueError, TypeError):
        return _UNREADABLE


def _pointer(value: Any) -> str:
    if isinstance(value, int):
        return hex(value) if value else "NULL"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return type(value).__name__


def _handle(handle: int) -> str:
    return "INVALID_SOCKET" if handle == INVALID_SOCKET else hex(handle)


# How one parameter is shown: each takes all values, the parameter's name and the entry.


def _address(values: _Values, name: str, info: ProtocolInfo) -> str:
    return address_text(read_sockaddr(values[name], values[_LENGTHS[name]], info))


def _written_address(length: str) -> Callable[[_Values, str, ProtocolInfo], str]:
    def show(values: _Values, name: str, info: ProtocolInfo) -> str:
        place = values[name]
        if isinstance(place, Cell):
            place = place.value
        size = len(place) if is_null(values[length]) else read_int(values[length])
        return address_text(read_sockaddr(place, size, info))

    return show


def _data(values: _Values, name: str, info: ProtocolInfo) -> str:
    one = buffer(values[name])
    if one is None:
        return "NULL"
    data = one.read()
    more = f"... ({len(data)} bytes)" if len(data) > _SHOWN else ""
    return f"{data[:_SHOWN]!r}{more}"


def _room(values: _Values, name: str, info: ProtocolInfo) -> str:
    one = buffer(values[name])
    return "NULL" if one is None else f"[{one.length}]"


def _messages(values: _Values, name: str, info: ProtocolInfo) -> str:
    return str([one.length for one in buffers(values[name], values["dwBufferCount"])])


def _flow(flow: FlowSpec) -> str:
    if flow == FlowSpec():
        return "unspecified"
    return f"{flow.token_rate} B/s type {flow.service_type}"


def _qos(values: _Values, name: str, info: ProtocolInfo) -> str:
    qos = qos_at(values[name])
    if qos is None:
        return "NULL"
    return f"(sending {_flow(qos.sending)}; receiving {_flow(qos.receiving)})"


def _entry(values: _Values, name: str, info: ProtocolInfo) -> str:
    found = info_at(values[name])
    return "NULL" if found is None else repr(found.name)


def _wide(values: _Values, name: str, info: ProtocolInfo) -> str:
    return repr(read_wide(values[name]))


def _set(values: _Values, name: str, info: ProtocolInfo) -> str:
    handles = read_fd_set(values[name])
    return "NULL" if handles is None else "{" + ", ".join(map(hex, handles)) + "}"


def _number_at(values: _Values, name: str, info: ProtocolInfo) -> str:
    return str(read_int(values[name]))


def _hex(values: _Values, name: str, info: ProtocolInfo) -> str:
    return hex(as_int(values[name]))


def _one_of(names: dict[int, str]) -> Callable[[_Values, str, ProtocolInfo], str]:
    def show(values: _Values, name: str, info: ProtocolInfo) -> str:
        number = as_int(values[name])
        return names.get(number & 0xFFFFFFFF, str(number))

    return show


def _flags(names: dict[int, str]) -> Callable[[_Values, str, ProtocolInfo], str]:
    def show(values: _Values, name: str, info: ProtocolInfo) -> str:
        return _flag_text(as_int(values[name]), names)

    return show


def _flag_text(number: int, names: dict[int, str]) -> str:
    bits = [1 << index for index in range(32) if number >> index & 1]
    return "|".join(names.get(bit, hex(bit)) for bit in bits) or "0"


def _record(values: _Values, name: str, info: ProtocolInfo) -> str:
    place = values[name]
    events = place.value if isinstance(place, Cell) else struct_at(place, WSANETWORKEVENTS)
    parts = []
    for number in range(c.FD_MAX_EVENTS):
        if events.lNetworkEvents >> number & 1:
            code = events.iErrorCode[number]
            text = _EVENTS.get(1 << number, hex(1 << number))
            parts.append(f"{text} {codes.name_of(code)}" if code else text)
    return "{" + ", ".join(parts) + "}"


_Show = Callable[[_Values, str, ProtocolInfo], str]

_INPUTS: Final[dict[tuple[str, str], _Show]] = {
    ("", "name"): _address,
    ("", "lpTo"): _address,
    ("", "lpsaAddress"): _address,
    ("", "lpCallerData"): _data,
    ("", "lpOutboundDisconnectData"): _data,
    ("", "lpQOSName"): _data,
    ("", "lpCalleeData"): _room,
    ("", "lpInboundDisconnectData"): _room,
    ("", "lpBuffers"): _messages,
    ("", "lpSQOS"): _qos,
    ("", "AddressString"): _wide,
    ("WSPSocket", "lpProtocolInfo"): _entry,
    ("WSPAddressToString", "lpProtocolInfo"): _entry,
    ("WSPStringToAddress", "lpProtocolInfo"): _entry,
    ("WSPSocket", "af"): _one_of(_FAMILIES),
    ("WSPSocket", "type"): _one_of(_TYPES),
    ("WSPSocket", "dwFlags"): _flags(_SOCKET_FLAGS),
    ("WSPJoinLeaf", "dwFlags"): _flags(_JOIN_ROLES),
    ("", "dwFlags"): _flags(_MESSAGE_FLAGS),
    ("", "lNetworkEvents"): _flags(_EVENTS),
    ("", "lEvent"): _flags(_EVENTS),
    ("", "dwIoControlCode"): _one_of(_CONTROLS),
    ("", "level"): _one_of({c.SOL_SOCKET: "SOL_SOCKET"}),
    ("", "optname"): _one_of(_OPTIONS),
    ("", "how"): _one_of(_DIRECTIONS),
    ("", "hWnd"): _hex,
    ("", "hEventObject"): _hex,
    **{("", name): _set for name in _SETS},
}

_OUTPUTS: Final[dict[tuple[str, str], _Show]] = {
    ("WSPAccept", "addr"): _written_address("addrlen"),
    ("WSPGetSockName", "name"): _written_address("namelen"),
    ("WSPGetPeerName", "name"): _written_address("namelen"),
    ("WSPRecvFrom", "lpFrom"): _written_address("lpFromlen"),
    # Not lpCalleeData: with a nonblocking join nobody has written them yet.
    ("", "lpInboundDisconnectData"): _data,
    ("", "lpNumberOfBytesSent"): _number_at,
    ("", "lpNumberOfBytesRecvd"): _number_at,
    ("", "lpcbBytesReturned"): _number_at,
    ("", "lpcbTransfer"): _number_at,
    ("", "lpNetworkEvents"): _record,
    **{("WSPSelect", name): _set for name in _SETS},
}

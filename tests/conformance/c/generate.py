"""Write ``joinleaf_spi.h`` from ``joinleaf.winsock.declarations``: ``python generate.py``.

The header is what a C program on Linux needs to call a procedure table: types of fixed width,
structures, both tables, the client's callbacks, and the constants. ``test_c_client.py`` compares
the file with what this script makes, so that the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.winsock.declarations import (
    OTHER_FUNCTIONS,
    PROVIDER_FUNCTIONS,
    STRUCTURES,
    UPCALLS,
    Prototype,
    members,
)

__all__ = ["HEADER", "text"]

HEADER: Final = Path(__file__).with_name("joinleaf_spi.h")

_HEAD: Final = """\
/* The Windows Sockets 2 SPI for programs on other systems. Made by generate.py; do not edit.
 *
 * long has 32 bits there, whatever it has here; a handle is an unsigned integer as wide as a
 * pointer; a character of text has 16 bits. Some names are the system's as well (struct sockaddr,
 * fd_set): do not include <sys/socket.h>, <sys/select.h> or <stdlib.h> in the same file.
 */
#ifndef JOINLEAF_SPI_H
#define JOINLEAF_SPI_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t BOOL, INT, LONG;
typedef uint32_t DWORD, ULONG, UINT, GROUP;
typedef int64_t INT64;
typedef uint16_t WORD, WCHAR, u_short;
typedef uint8_t UCHAR;
typedef uintptr_t SOCKET, HANDLE, HWND, WSAEVENT, DWORD_PTR, WPARAM;
typedef intptr_t LPARAM;
typedef void *LPVOID;
typedef INT *LPINT;
typedef DWORD *LPDWORD;
typedef DWORD_PTR *PDWORD_PTR;
typedef WCHAR *LPWSTR;

#define INVALID_SOCKET (~(SOCKET)0)
#define SOCKET_ERROR (-1)
"""

_POINTERS: Final = {
    "GUID": "LPGUID",
    "QOS": "LPQOS",
    "SOCKET_ADDRESS": "LPSOCKET_ADDRESS",
    "WSABUF": "LPWSABUF",
    "WSANETWORKEVENTS": "LPWSANETWORKEVENTS",
    "WSAOVERLAPPED": "LPWSAOVERLAPPED",
    "WSAPROTOCOL_INFOW": "LPWSAPROTOCOL_INFOW",
    "WSATHREADID": "LPWSATHREADID",
    "WSPDATA": "LPWSPDATA",
    "sockaddr": "LPSOCKADDR",
    "timeval": "PTIMEVAL",
}
_PREFIXES: Final = (
    "AF_", "CF_", "FD_", "FIO", "FROM_", "IPPROTO_", "IPV6_", "IP_", "JL_", "MSG_", "PFL_",
    "QOS_NOT", "SD_", "SERVICETYPE_", "SIOCATMARK", "SIO_", "SOCK_", "SOL_", "SOMAXCONN", "SO_",
    "WSA_FLAG_", "XP1_",
)  # fmt: skip
_BITS: Final = 0xFFFFFFFF


def text() -> str:
    """The whole header."""
    parts = [_HEAD, _constants(), *(_structure(name) for name in STRUCTURES if "/" not in name)]
    parts.append(_callbacks())
    parts.append(_table("WSPPROC_TABLE", PROVIDER_FUNCTIONS.values()))
    parts.append("typedef WSPPROC_TABLE *LPWSPPROC_TABLE;\n")
    parts.append(_table("WSPUPCALLTABLE", UPCALLS.values()))
    for name in ("WSPStartup", "WPUCompleteOverlappedRequest"):
        parts += [_function_type(OTHER_FUNCTIONS[name], f"LP{name.upper()}") + "\n"]
    parts.append("#endif\n")
    return "\n".join(parts)


def _constants() -> str:
    lines = []
    for name, value in vars(c).items():
        if name.startswith(_PREFIXES) and isinstance(value, int):
            lines.append(f"#define {name} {_number(value)}")
    for name, value in vars(codes).items():
        if name.startswith("WSA") and isinstance(value, int):
            lines.append(f"#define {name} {value}")
    return "\n".join(lines) + "\n"


def _number(value: int) -> str:
    if value < 0:
        return f"({value})"
    return str(value) if value < 10 else f"0x{value & _BITS:X}" + ("U" if value >> 31 else "")


def _structure(name: str) -> str:
    lines = [f"typedef struct {name} {{"]
    narrow = f"{name}/4" in STRUCTURES
    if narrow:
        lines.append("#if UINTPTR_MAX > 0xFFFFFFFF")
    lines += _members(name, 8)
    if narrow:
        lines += ["#else", *_members(name, 4), "#endif"]
    lines.append(f"}} {name};")
    if name in _POINTERS:
        lines.append(f"typedef struct {name} *{_POINTERS[name]};")
    return "\n".join(lines) + "\n"


def _members(name: str, pointer_bytes: int) -> list[str]:
    return [
        f"    {one.type}{'' if one.type.endswith('*') else ' '}{one.name}"
        + (f"[{one.count}];" if one.count else ";")
        for one in members(name, pointer_bytes)
    ]


def _callbacks() -> str:
    names = [name for name in OTHER_FUNCTIONS if name.startswith("LP")]
    return "\n".join(_function_type(OTHER_FUNCTIONS[name], name) for name in names) + "\n"


def _function_type(prototype: Prototype, name: str) -> str:
    return f"typedef {_pointer_to(prototype, name)};"


def _pointer_to(prototype: Prototype, name: str) -> str:
    parameters = ", ".join(f"{kind} {one}" for kind, one in prototype.parameters)
    returns = prototype.returns.replace("VOID", "void")
    return f"{returns} (*{name})({parameters})"


def _table(name: str, prototypes: Iterable[Prototype]) -> str:
    lines = [f"    {_pointer_to(one, f'lp{one.name}')};" for one in prototypes]
    return f"typedef struct {name} {{\n" + "\n".join(lines) + f"\n}} {name};\n"


if __name__ == "__main__":
    HEADER.write_text(text(), encoding="ascii")

"""A program in C on the other side of both tables: what ctypes says of itself is no proof."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from joinleaf.spi import codes
from joinleaf.winsock import types as t
from joinleaf.winsock.declarations import PROVIDER_FUNCTIONS
from joinleaf.winsock.memory import buffer, qos_at, read, write_error, write_int
from joinleaf.winsock.objects import Objects
from joinleaf.winsock.table import build_table, fill_table
from joinleaf.winsock.upcalls import TableUpcalls, Upcalls

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

# Written from the reference alone: fixed-width types, no header, the tables as plain arrays.
SOURCE = r"""
#include <stdint.h>
#include <string.h>
typedef uintptr_t SOCKET;
typedef struct { uint32_t len; char *buf; } WSABUF;
typedef struct { uint32_t n[8]; } FLOWSPEC;
typedef struct { FLOWSPEC sending, receiving; WSABUF specific; } QOS;
typedef struct { void *entries[15]; } UPCALLS;
typedef int (*STARTUP)(uint16_t, void *, void *, UPCALLS, void **);
typedef SOCKET (*JOINLEAF)(SOCKET, const void *, int, WSABUF *, WSABUF *, QOS *, QOS *, uint32_t,
                           int *);
typedef int (*CLOSE)(SOCKET, int *);
typedef SOCKET (*CREATE)(uint32_t, uintptr_t, int *);
typedef int (*QUERY)(SOCKET, uintptr_t *, int *);

static void *procs[30];

int start(STARTUP startup, UPCALLS upcalls) {
    char data[516];
    return startup(0x0202, data, 0, upcalls, procs);
}

SOCKET join(SOCKET s, char *reply, uint32_t *length, uint32_t rate, int *error) {
    char name[16] = {2, 0, 0x13, 0x88, 127, 0, 0, 1};
    char ask[] = {'h', 'i'};
    WSABUF caller = {2, ask}, callee = {*length, reply};
    QOS qos;
    memset(&qos, 0xff, sizeof qos);
    qos.sending.n[0] = rate; qos.sending.n[5] = 1; qos.receiving.n[5] = 1;
    qos.specific.len = 0; qos.specific.buf = 0;
    SOCKET made = ((JOINLEAF)procs[17])(s, name, 16, &caller, &callee, &qos, 0, 4, error);
    *length = callee.len;
    return made;
}

int close_it(SOCKET s, int *error) { return ((CLOSE)procs[6])(s, error); }

int make_and_query(UPCALLS upcalls, uintptr_t context, uintptr_t *got, int *error) {
    SOCKET s = ((CREATE)upcalls.entries[3])(1001, context, error);
    if (s == (SOCKET)-1) return -2;
    if (((QUERY)upcalls.entries[9])(s, got, error)) return -3;
    return ((CLOSE)upcalls.entries[1])(s, error);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("c")
    (folder / "caller.c").write_text(SOURCE, encoding="ascii")
    library = folder / "caller.so"
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), "caller.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    loaded = ctypes.CDLL(str(library))
    loaded.start.argtypes = (t.WSPSTARTUP, t.WSPUPCALLTABLE)
    loaded.join.argtypes = (
        t.SOCKET,
        ctypes.c_char_p,
        ctypes.POINTER(t.DWORD),
        t.DWORD,
        ctypes.POINTER(ctypes.c_int),
    )
    loaded.join.restype = t.SOCKET
    loaded.close_it.argtypes = (t.SOCKET, ctypes.POINTER(ctypes.c_int))
    loaded.make_and_query.argtypes = (
        t.WSPUPCALLTABLE,
        t.DWORD_PTR,
        ctypes.POINTER(t.DWORD_PTR),
        ctypes.POINTER(ctypes.c_int),
    )
    return loaded


class Provider:
    """As much of a provider as the C program calls; handles come from the upcalls it was given."""

    def __init__(self) -> None:
        self.upcalls: Any = None
        self.table = build_table(self)
        self.joins: list[Any] = []
        self.closed: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if name not in PROVIDER_FUNCTIONS:
            raise AttributeError(name)
        return lambda *args: t.SOCKET_ERROR

    def startup(
        self, version: int, data: int, info: int | None, table: t.WSPUPCALLTABLE, to: int
    ) -> int:
        self.upcalls = TableUpcalls(table)
        fill_table(to, self.table)
        return 0 if (version, info) == (0x0202, None) else codes.WSAVERNOTSUPPORTED

    def WSPJoinLeaf(self, s: int, name: int, length: int, *rest: Any) -> int:
        lpCallerData, lpCalleeData, lpSQOS, lpGQOS, dwFlags, lpErrno = rest
        caller, callee, qos = buffer(lpCallerData), buffer(lpCalleeData), qos_at(lpSQOS)
        assert caller is not None
        assert callee is not None
        assert qos is not None
        self.joins.append((s, read(name, length)[:8], caller.read(), qos.sending.rate, lpGQOS))
        callee.put(b"welcome")
        assert dwFlags == 4
        made: int = self.upcalls.WPUCreateSocketHandle(1001, s, lpErrno)
        return made

    def WSPCloseSocket(self, s: int, lpErrno: Any) -> int:
        if s in self.closed:
            write_error(lpErrno, codes.WSAENOTSOCK)
            return t.SOCKET_ERROR
        self.closed.append(s)
        return int(self.upcalls.WPUCloseSocketHandle(s, lpErrno))


def test_a_c_program_starts_a_provider_joins_and_closes(program: ctypes.CDLL) -> None:
    provider, upcalls = Provider(), Upcalls(Objects())
    startup = t.WSPSTARTUP(provider.startup)
    assert program.start(startup, upcalls.table) == 0
    reply, length, error = ctypes.create_string_buffer(16), t.DWORD(16), ctypes.c_int(77)
    made = program.join(t.INVALID_SOCKET - 3, reply, length, 9200, error)
    assert made not in (0, t.INVALID_SOCKET)
    assert (reply.value, length.value, error.value) == (b"welcome", 7, 77)
    name = b"\2\0\x13\x88\x7f\0\0\1"
    assert provider.joins == [(t.INVALID_SOCKET - 3, name, b"hi", 9200, None)]
    assert program.close_it(made, error) == 0
    assert program.close_it(made, error) == -1
    assert error.value == codes.WSAENOTSOCK
    assert upcalls.calls == {"WPUCreateSocketHandle": 1, "WPUCloseSocketHandle": 1}


def test_callee_data_that_do_not_fit_come_to_c_as_invalid_socket_and_wsaefault(
    program: ctypes.CDLL,
) -> None:
    provider, upcalls = Provider(), Upcalls(Objects())
    startup = t.WSPSTARTUP(provider.startup)
    assert program.start(startup, upcalls.table) == 0
    reply, length, error = ctypes.create_string_buffer(b"untouched"), t.DWORD(6), ctypes.c_int()
    assert program.join(8, reply, length, 1, error) == t.INVALID_SOCKET
    assert (error.value, length.value, reply.value) == (codes.WSAEFAULT, 0, b"untouched")


def test_a_c_provider_calls_the_upcalls_with_words_as_wide_as_pointers(
    program: ctypes.CDLL,
) -> None:
    upcalls, got, error = Upcalls(Objects()), t.DWORD_PTR(), ctypes.c_int(77)
    context = t.INVALID_SOCKET - 0x1234
    assert program.make_and_query(upcalls.table, context, got, error) == 0
    assert (got.value, error.value) == (context, 77)
    upcalls.fail("WPUCreateSocketHandle", codes.WSAENOBUFS)
    assert program.make_and_query(upcalls.table, context, got, error) == -2
    assert error.value == codes.WSAENOBUFS


def test_memory_of_c_is_written_through_its_address() -> None:
    place = ctypes.c_uint64(0)
    write_int(ctypes.addressof(place), -1)
    assert place.value in (0xFFFFFFFF, 0xFFFFFFFF00000000), "four bytes, whatever the byte order"

"""A client in C that has only the header and the address of a procedure table."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conformance.c import generate
from tests.conformance.world import inet, memory_name

from joinleaf import winsock
from joinleaf.spi.provider import Settings
from joinleaf.winsock import Cell
from joinleaf.winsock.layered import Tracer
from joinleaf.winsock.types import WSPDATA
from joinleaf.winsock.upcalls import Upcalls

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
SOURCE = Path(__file__).with_name("c") / "client.c"
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def test_the_header_is_what_the_declarations_make() -> None:
    current = generate.HEADER.read_text(encoding="ascii")
    assert current == generate.text(), f"run python {generate.__file__}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("c") / "client.so"
    command = [str(COMPILER), *WARNINGS, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def start(scheme: str, layered: bool) -> winsock.ServiceProvider | Tracer:
    settings = Settings(interface="127.0.0.1" if scheme == "udp" else None)
    if not layered:
        return winsock.start(scheme, settings=settings)
    below = winsock.start(scheme, settings=settings)
    assert below.WSPCleanup(Cell()) == 0
    layer = Tracer(below, below.info)
    assert layer.WSPStartup(0x0202, WSPDATA(), None, Upcalls(), Cell()) == 0
    return layer


EXPECTED = [
    "listener FD_ACCEPT 0",
    "root FD_CONNECT 0",
    "root FD_ACCEPT 0",
    "asker FD_CONNECT 0",
    "data",
    "asker's leg FD_CLOSE 0",
    "member FD_CLOSE 0",
]


@needs_compiler
@pytest.mark.parametrize("layered", [False, True], ids=["plain", "traced"])
@pytest.mark.parametrize("scheme", ["mem", "jl"])
def test_a_c_program_holds_a_rooted_session(
    client: ctypes.CDLL, scheme: str, layered: bool
) -> None:
    provider = start(scheme, layered)
    number = f"{os.getpid()}-{layered}"
    root = inet("127.0.0.1", 0) if scheme == "jl" else memory_name(f"c-root-{number}")
    leaf = inet("127.0.0.1", 0) if scheme == "jl" else memory_name(f"c-leaf-{number}")
    log = ctypes.create_string_buffer(4096)
    table = ctypes.byref(provider.proc_table)
    done = client.rooted(table, root, len(root), leaf, len(leaf), log, len(log))
    lines = log.value.decode().splitlines()
    assert (done, lines) == (1, EXPECTED)
    assert provider.upcalls.open_sockets == 0
    assert provider.WSPCleanup(Cell()) == 0


@needs_compiler
@pytest.mark.parametrize("layered", [False, True], ids=["plain", "traced"])
def test_a_c_program_sends_and_receives_by_ip_multicast(client: ctypes.CDLL, layered: bool) -> None:
    provider = start("udp", layered)
    number = os.getpid()
    group = inet(f"239.193.{number >> 8 & 255}.{number & 255}", 30000 + number % 9000)
    log = ctypes.create_string_buffer(4096)
    done = client.multicast(ctypes.byref(provider.proc_table), group, log, len(log))
    lines = log.value.decode().splitlines()
    assert (done, lines) == (1, ["joined", "data"])
    assert provider.WSPCleanup(Cell()) == 0

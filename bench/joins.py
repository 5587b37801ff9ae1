"""How fast do leaves join, and what does an idle leaf cost the root?

The joiners are the same for both contenders: sockets that send one request and wait for one answer,
some of them in flight at a time. So what differs is the root: joinleaf's, or a bare accept loop
with a handshake of 16 bytes each way, which is about the least anybody could do. Then the same over
TLS 1.3 with a certificate at either end: joinleaf's root beside the standard library's handshake.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import selectors
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import joinleaf
from bench.contenders import PATIENCE_S
from bench.record import print_table, spread
from joinleaf.core.wire.control import VERSION, Request, encode
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.drivers.certificates import Authority
from joinleaf.spi.provider import JoinRole, Settings

__all__ = ["run"]

IN_FLIGHT: Final = 50
HANDSHAKE: Final = 16
TLS_THREADS: Final = 8
CERTIFICATES: Final = Path(tempfile.gettempdir()) / f"joinleaf-bench-{os.getuid()}"
_context: Final = multiprocessing.get_context("forkserver")


def _rss() -> int:
    """Resident bytes of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _joinleaf_root(pipe: Connection, legs: int) -> None:
    with joinleaf.open_root("jl://127.0.0.1:0", dead_after=PATIENCE_S) as root:
        _report(
            pipe,
            root.local_address.port,
            lambda: root.wait_for_leaves(legs, timeout=PATIENCE_S),
        )


def _bare_root(pipe: Connection, legs: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    kept: list[socket.socket] = []
    enough, stop = threading.Event(), threading.Event()

    def serve() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in selector.select(0.1):
                    _bare_step(selector, listener, key.fileobj, kept)
                if len(kept) >= legs:
                    enough.set()

    thread = threading.Thread(target=serve)
    thread.start()
    _report(pipe, listener.getsockname()[1], lambda: enough.wait(PATIENCE_S))
    stop.set()
    thread.join()
    for sock in (*kept, listener):
        sock.close()


def _bare_step(
    selector: selectors.BaseSelector, listener: socket.socket, ready: Any, kept: list[socket.socket]
) -> None:
    if ready is listener:
        sock, _ = listener.accept()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    elif ready.recv(HANDSHAKE):
        ready.send(bytes(HANDSHAKE))
        kept.append(ready)
    else:
        selector.unregister(ready)


def _joinleaf_tls_root(pipe: Connection, legs: int) -> None:
    cert, ca = CERTIFICATES / "root.pem", CERTIFICATES / "ca.pem"
    with joinleaf.open_root(
        "jls://127.0.0.1:0", cert=cert, ca=ca, open=True, dead_after=PATIENCE_S
    ) as root:
        _report(
            pipe,
            root.local_address.port,
            lambda: root.wait_for_leaves(legs, timeout=PATIENCE_S),
        )


def _bare_tls_root(pipe: Connection, legs: int) -> None:
    """Threads that accept, shake hands and answer; the fastest way there is with ``ssl`` alone."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=CERTIFICATES / "ca.pem")
    context.load_cert_chain(CERTIFICATES / "root.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    kept: list[ssl.SSLSocket] = []
    enough = threading.Event()

    def serve() -> None:
        while len(kept) < legs:
            try:
                sock, _ = listener.accept()
            except OSError:  # closed: the others had the last
                return
            tls = context.wrap_socket(sock, server_side=True)
            if tls.recv(4096):
                tls.send(bytes(HANDSHAKE))
                kept.append(tls)
        enough.set()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(TLS_THREADS)]
    for thread in threads:
        thread.start()
    _report(pipe, listener.getsockname()[1], lambda: enough.wait(PATIENCE_S))
    listener.close()
    for tls in kept:
        tls.close()


def _tls_joiners(pipe: Connection, port: int, legs: int, request: bytes) -> None:
    """As ``_joiners``, over TLS, from a few threads."""
    context = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    context.load_cert_chain(CERTIFICATES / "leaf.pem")
    left = iter(range(legs))
    kept: list[ssl.SSLSocket] = []

    def join() -> None:
        for _ in left:
            sock = socket.create_connection(("127.0.0.1", port))
            tls = context.wrap_socket(sock, server_hostname="127.0.0.1")
            tls.sendall(request)
            if not tls.recv(4096):
                raise AssertionError("the root hung up")
            kept.append(tls)

    threads = [threading.Thread(target=join) for _ in range(TLS_THREADS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(kept) != legs:
        raise AssertionError(f"{len(kept)} of {legs} joined")
    pipe.send((began, time.monotonic()))
    pipe.recv()
    for tls in kept:
        tls.close()


def _make_certificates() -> None:
    authority = Authority.create("bench", 1)
    CERTIFICATES.mkdir(mode=0o700, exist_ok=True)
    (CERTIFICATES / "ca.pem").write_bytes(authority.credential.certificate)
    for name, server in (("root", True), ("leaf", False)):
        names = ["127.0.0.1"] if server else ["leaf"]
        own = authority.issue(names, 1, server=server)
        (CERTIFICATES / f"{name}.pem").write_bytes(own.certificate + own.key)


def _report(pipe: Connection, port: int, wait: Callable[[], object]) -> None:
    rss, cpu_s = _rss(), _cpu_s()
    pipe.send(port)
    wait()
    pipe.send((time.monotonic(), _cpu_s() - cpu_s, _rss() - rss))
    pipe.recv()


def _request() -> bytes:
    request = Request(
        versions=(VERSION, VERSION),
        incarnation=os.urandom(16),
        role=JoinRole.BOTH,
        dead_after_ms=int(PATIENCE_S * 1000),
        max_message=Settings().max_message,
        d_root=False,
        name="joiner",
    )
    return control_frame(Kind.JOIN, encode(request))


def _joiners(pipe: Connection, port: int, legs: int, request: bytes) -> None:
    """Open ``legs`` connections; each asks once and counts as joined with the first answer."""
    began = time.monotonic()
    kept: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        waiting = answered = 0
        while answered < legs:
            while waiting < IN_FLIGHT and len(kept) < legs:
                sock = socket.create_connection(("127.0.0.1", port))
                sock.sendall(request)
                selector.register(sock, selectors.EVENT_READ)
                kept.append(sock)
                waiting += 1
            for key, _ in selector.select(PATIENCE_S):
                assert isinstance(key.fileobj, socket.socket)
                if not key.fileobj.recv(4096):
                    raise AssertionError("the root hung up")
                selector.unregister(key.fileobj)
                waiting -= 1
                answered += 1
    pipe.send((began, time.monotonic()))
    pipe.recv()
    for sock in kept:
        sock.close()


def _process(target: Callable[..., None], *args: object) -> tuple[Any, Connection]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _get(pipe: Connection) -> Any:
    if not pipe.poll(2 * PATIENCE_S):
        raise TimeoutError("a worker did not answer")
    return pipe.recv()


def _measure(
    root: Callable[..., None], joiners: Callable[..., None], legs: int, request: bytes
) -> tuple[float, float, float]:
    """Joins per second, the root's CPU microseconds and resident bytes for each."""
    serving, pipe = _process(root, legs)
    joining, joiner = _process(joiners, _get(pipe), legs, request)
    began, answered = _get(joiner)
    ended, cpu_s, rss = _get(pipe)
    pipe.send(None)
    joiner.send(None)
    for process in (serving, joining):
        process.join(10.0)
        if process.is_alive():
            process.kill()
    return legs / (max(ended, answered) - began), cpu_s / legs * 1e6, rss / legs


def run(*, legs: int, rounds: int) -> None:
    """Print both tables."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, legs + 200)), hard))
    ways: dict[str, tuple[Callable[..., None], bytes]] = {
        "accept and 16 B each way, selectors": (_bare_root, bytes(HANDSHAKE)),
        "joinleaf": (_joinleaf_root, _request()),
    }
    _table(f"{legs:,} legs, {IN_FLIGHT} joins in flight", ways, _joiners, legs, rounds)
    ways = {
        "ssl and 16 B each way, threads": (_bare_tls_root, bytes(HANDSHAKE)),
        "joinleaf, jls://": (_joinleaf_tls_root, _request()),
    }
    _make_certificates()
    try:
        title = f"{legs:,} legs over mutual TLS 1.3, {TLS_THREADS} joins in flight"
        _table(title, ways, _tls_joiners, legs, rounds)
    finally:
        shutil.rmtree(CERTIFICATES, ignore_errors=True)


def _table(
    title: str,
    ways: dict[str, tuple[Callable[..., None], bytes]],
    joiners: Callable[..., None],
    legs: int,
    rounds: int,
) -> None:
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (root, request) in ways.items():
            results[name].append(_measure(root, joiners, legs, request))
    reference = next(iter(results.values()))
    rows = [
        (
            name,
            spread([rate for rate, _, _ in mine], ",.0f"),
            spread([own[0] / other[0] for own, other in zip(mine, reference, strict=True)]),
            spread([cpu_us for _, cpu_us, _ in mine], ",.0f"),
            spread([rss / 1024 for _, _, rss in mine], ".1f"),
        )
        for name, mine in results.items()
    ]
    head = ("root", "joins/s", "x bare", "root's CPU us/join", "root's KiB per idle leaf")
    print_table(title, head, rows)

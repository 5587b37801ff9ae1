"""``jls://``, and who attacks it: each promise with the program that tries to break it."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.providers.rooted_world import (
    BOUND,
    Indications,
    World,
    in_thread,
    receive,
    target,
    until,
)

from joinleaf.core.keys.guesses import BURST
from joinleaf.core.keys.session_key import SessionKey
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.drivers import certificates, tls_side
from joinleaf.drivers.certificates import Authority, session_credential
from joinleaf.errors import SpiError
from joinleaf.providers.rooted import LeafEndpoint, RootedProvider
from joinleaf.spi import codes
from joinleaf.spi import constants as c
from joinleaf.spi.provider import Accept, EndReason, Roles, Settings, Trust
from joinleaf.values import Address, KeyedAddress, SessionAddress

SECRET = b"nobody but the two ends may see this sentence"


@pytest.fixture
def world() -> Iterator[World]:
    with World(scheme="jls") as made:
        yield made


class Between:
    """A man in the middle: what goes to him goes on to the root, and back; he sees all of it."""

    def __init__(self, root: Address) -> None:
        self._root = root
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._server.getsockname()[1])
        self.seen = b""
        self.cut = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asker, _ = self._server.accept()
                onward = socket.create_connection((self._root.host, self._root.port))
                self._sockets += [asker, onward]
                for source, drain in ((asker, onward), (onward, asker)):
                    threading.Thread(target=self._pass, args=(source, drain), daemon=True).start()

    def _pass(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                drain.sendall(data)

    def end(self) -> None:
        """Cut every connection, in TCP's own orderly way."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.end()
        for sock in self._sockets:
            sock.close()


def keyed(where: Address, key: str) -> KeyedAddress:
    return KeyedAddress(where.host, where.port, where.scope, key)


def refusal(leaf: LeafEndpoint, where: Address) -> SpiError:
    with pytest.raises(SpiError) as error:
        leaf.join_leaf(where, timeout=BOUND)
    return error.value


def admitted(root: Any) -> int:
    """How many have ever joined."""
    return int(root.statistics().get("joins_admitted", 0))


def still_works(root: Any, leaf: LeafEndpoint) -> None:
    """A running leg is unharmed."""
    root.send_many([b"still here"])
    assert receive(leaf, 1) == [b"still here"]


def test_who_listens_on_the_wire_sees_neither_messages_nor_the_secret(world: World) -> None:
    root = world.root()
    between = Between(root.local_address)
    leaf = world.leaf()
    joining = in_thread(
        lambda: leaf.join_leaf(
            keyed(between.address, root.session_key), caller_data=SECRET, timeout=BOUND
        )
    )
    leg: Any = root.accept(lambda request: Accept(SECRET), timeout=BOUND)
    joining()
    root.send_many([SECRET])
    assert receive(leaf, 1) == [SECRET]
    leaf.send_many([SECRET])
    assert receive(root, 1) == [SECRET]
    key = SessionKey.parse(root.session_key)
    assert len(between.seen) > 1000
    assert SECRET not in between.seen
    assert key.secret not in between.seen
    assert leg.peer_identity == "session key"
    assert leaf.peer_identity == "session key"
    between.close()


def test_a_connection_that_is_cut_is_not_taken_for_an_orderly_end(world: World) -> None:
    root = world.root()
    between = Between(root.local_address)
    leaf = world.leaf()
    news = Indications(leaf)
    leaf.start_join_leaf(keyed(between.address, root.session_key), timeout=BOUND)
    root.accept(lambda request: Accept(), timeout=BOUND)
    assert news.wait(c.FD_CONNECT).code == 0
    between.end()
    assert news.wait(c.FD_CLOSE).reason is EndReason.LOST
    between.close()


def test_a_man_in_the_middle_with_a_certificate_of_his_own_is_not_believed(world: World) -> None:
    """He has the join line's address, and not its key."""
    root, false_root = world.root(), world.root()
    leaf = world.leaf()
    error = refusal(leaf, keyed(false_root.local_address, root.session_key))
    assert error.code == codes.WSAEACCES
    assert admitted(false_root) == 0


def test_a_proof_is_of_no_use_on_another_connection(world: World) -> None:
    """He ends TLS towards both, and relays the frames: CHALLENGE and PROOF with them.

    Even with the session's own certificate towards the joiner he could not: the proof covers the
    certificate that the root has shown on *his* connection, and both nonces.
    """
    root = world.root()
    other = session_credential()
    made = SessionKey.of_certificate(other.der, SessionKey.parse(root.session_key).secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with other.as_file() as path:
        server.load_cert_chain(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    listening = socket.create_server(("127.0.0.1", 0))
    where = Address("127.0.0.1", listening.getsockname()[1])
    leaf = world.leaf()
    joining = in_thread(lambda: leaf.join_leaf(keyed(where, made.text), timeout=BOUND))
    asker = server.wrap_socket(listening.accept()[0], server_side=True)
    onward = client.wrap_socket(socket.create_connection(("127.0.0.1", root.local_address.port)))
    asker.sendall(onward.recv(4096))  # the CHALLENGE
    onward.sendall(asker.recv(4096))  # the PROOF, for another certificate
    answer = onward.recv(4096)
    assert answer[4] == Kind.REFUSE
    asker.sendall(answer)
    with pytest.raises(SpiError):
        joining()
    assert admitted(root) == 0
    for sock in (asker, onward, listening):
        sock.close()


def test_wrong_secrets_are_refused_counted_and_then_not_heard(world: World) -> None:
    root = world.root()
    leaf, _ = world.join(root)
    right = SessionKey.parse(root.session_key)
    wrong = SessionKey(right.fingerprint, bytes(16)).text
    seen = []
    for _ in range(BURST + 3):
        error = refusal(world.leaf(), keyed(root.local_address, wrong))
        seen.append(error.code)
    assert set(seen[:BURST]) == {codes.WSAEACCES}
    until(lambda: root.statistics().get("connections_turned_away", 0))
    assert admitted(root) == 1
    still_works(root, leaf)


def test_a_join_line_of_long_ago_says_that_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
        days=certificates.SESSION_DAYS + 2
    )
    monkeypatch.setattr(tls_side, "session_credential", lambda: session_credential(long_ago))
    root = world.root()
    error = refusal(world.leaf(), target(root))
    assert "expired" in str(error) or "over" in str(error)
    assert admitted(root) == 0


def test_cleartext_is_not_spoken_by_either_end(world: World) -> None:
    root = world.root()
    with World() as plain:
        error = refusal(plain.leaf(), root.local_address)
        assert "encrypted" in str(error)
        open_root = plain.root()
        error = refusal(world.leaf(), keyed(open_root.local_address, root.session_key))
        assert "without encryption" in str(error)
        assert admitted(open_root) == 0
    assert admitted(root) == 0


def test_a_join_in_the_clear_behind_the_handshake_of_nobody_is_no_join(world: World) -> None:
    """The frames of the protocol, sent at once without TLS: a downgrade by an attacker."""
    root = world.root()
    with socket.create_connection(("127.0.0.1", root.local_address.port), BOUND) as sock:
        sock.sendall(control_frame(Kind.WHO))
        answer = sock.recv(4096)
        assert answer[4] == Kind.REFUSE
        assert b"encrypted" in answer


def test_garbage_and_half_a_handshake_cost_their_connection_only(world: World) -> None:
    root = world.root(join_timeout=0.5)
    leaf, _ = world.join(root)
    port = root.local_address.port
    garbage = socket.create_connection(("127.0.0.1", port), BOUND)
    garbage.sendall(b"\x16\x03\x01" + os.urandom(4000))
    slow = [socket.create_connection(("127.0.0.1", port), BOUND) for _ in range(20)]
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    words = outgoing.read()
    began = time.monotonic()
    for at in range(8):  # a byte at a time buys no time
        for sock in slow:
            with contextlib.suppress(OSError):
                sock.send(words[at : at + 1])
        time.sleep(0.02)
    still_works(root, leaf)
    for sock in (garbage, *slow):
        sock.settimeout(BOUND)
        with contextlib.suppress(ConnectionError):
            while sock.recv(4096):
                pass
        sock.close()
    assert time.monotonic() - began < BOUND
    still_works(root, leaf)
    world.join(root)


def test_records_that_were_changed_on_the_way_end_the_leg_and_are_never_read(world: World) -> None:
    root = world.root()
    other, _ = world.join(root)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", root.local_address.port), BOUND)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(65536))
    tls.write(control_frame(Kind.PROOF, bytes(64)))
    record = bytearray(outgoing.read())
    record[-1] ^= 1
    raw.sendall(record)
    raw.settimeout(BOUND)
    with contextlib.suppress(ConnectionError):
        while raw.recv(65536):
            pass
    raw.close()
    assert admitted(root) == 1
    still_works(root, other)


# Certificates


class Papers:
    """An authority, and files of what it issues."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.authority = Authority.create(name, 30)
        self.ca = self._write(f"{name}.pem", self.authority.credential.certificate)

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def issue(self, *names: str, server: bool = False, days: int = 2, age: int = 0) -> str:
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age)
        made = self.authority.issue(names, days, server=server, now=now)
        return self._write(f"{names[0]}-{age}.pem", made.certificate + made.key)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path, "ours")


def certified(world: World, papers: Papers, **more: Any) -> Any:
    trust = Trust(cert=papers.issue("127.0.0.1", server=True), ca=papers.ca)
    return world.root(trust=trust, **more)


def test_certificates_name_both_ends_to_each_other(world: World, papers: Papers) -> None:
    root = certified(world, papers)
    leaf = world.leaf(trust=Trust(cert=papers.issue("lab-7"), ca=papers.ca))
    asked: list[Any] = []

    def decide(request: Any) -> Accept:
        asked.append(request)
        return Accept()

    world.join(root, leaf, decide)
    assert root.session_key == ""
    assert asked[0].identity == "lab-7"
    assert leaf.peer_identity == "127.0.0.1"
    still_works(root, leaf)


def test_who_has_no_certificate_or_another_authoritys_or_an_old_one_stays_out(
    world: World, papers: Papers, tmp_path: Path
) -> None:
    root = certified(world, papers)
    theirs = Papers(tmp_path, "theirs")
    for cert in ("", theirs.issue("lab-7"), papers.issue("lab-8", age=9)):
        error = refusal(world.leaf(trust=Trust(cert=cert, ca=papers.ca)), root.local_address)
        assert error.code in (codes.WSAEACCES, codes.WSAECONNRESET, codes.WSAECONNABORTED)
    assert admitted(root) == 0
    world.join(root, world.leaf(trust=Trust(cert=papers.issue("lab-9"), ca=papers.ca)))


def test_a_root_that_is_not_vouched_for_or_is_another_host_is_not_joined(
    world: World, papers: Papers, tmp_path: Path
) -> None:
    stranger = Papers(tmp_path, "strangers")
    other_host = world.root(trust=Trust(cert=papers.issue("10.9.9.9", server=True)))
    unknown = world.root(trust=Trust(cert=stranger.issue("127.0.0.1", server=True)))
    expired = world.root(trust=Trust(cert=papers.issue("127.0.0.1", server=True, age=9)))
    leaf_only = world.root(trust=Trust(cert=papers.issue("127.0.0.1")))
    for root, word in (
        (other_host, "another address"),
        (unknown, "not trusted"),
        (expired, "expired"),
        (leaf_only, "not for this use"),
    ):
        error = refusal(world.leaf(trust=Trust(ca=papers.ca)), root.local_address)
        assert (error.code, word in str(error)) == (codes.WSAEACCES, True), str(error)
        assert admitted(root) == 0


def test_files_that_are_no_certificates_are_told_at_once(world: World, papers: Papers) -> None:
    nothing = papers._write("nothing.pem", b"nothing")
    for trust in (Trust(cert=nothing), Trust(cert="/nowhere/at-all.pem"), Trust(ca=papers.ca)):
        with pytest.raises(SpiError, match=r"certificate|cannot read"):
            world.root(trust=trust)


def test_certificates_in_cleartext_are_refused_rather_than_forgotten(papers: Papers) -> None:
    provider = RootedProvider()
    info = provider.select(SessionAddress.parse("jl://127.0.0.1:1"))
    settings = Settings(trust=Trust(ca=papers.ca))
    with pytest.raises(SpiError, match="cleartext"):
        provider.open(info, Roles(), settings)

"""A connection that is encrypted: TLS between the driver and a TCP socket.

OpenSSL works on memory here and not on the socket. The poller then watches an ordinary socket, and
nothing that has arrived ever hides inside the library: whatever is read is decrypted at once. A
record holds 16 KiB at most, so this also takes a system call for every eight records and not two
for each. It copies once more each way, and is as fast as a socket of ssl's (measured: 1.4 GB/s).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final, Protocol, cast

from joinleaf.core.keys.gates import Gate
from joinleaf.core.outbox import Outbox
from joinleaf.core.wire.control import Refusal, encode
from joinleaf.core.wire.frames import HEADER, MAGIC, Kind, control_frame
from joinleaf.drivers.connections import NO_SIGNAL, Connection
from joinleaf.drivers.poller import READ, WRITE
from joinleaf.drivers.tls_errors import TlsError, broke_off, explained
from joinleaf.spi.codes import WSAEPROTONOSUPPORT
from joinleaf.spi.provider import Buffer

__all__ = ["TlsConnection", "TlsPeer"]

_log: Final = logging.getLogger("joinleaf")

RECORD_BYTES: Final = 16 << 10
"""Most plaintext of one record (RFC 8446, 5.1)."""

SEND_BYTES: Final = 8 * RECORD_BYTES
"""Encrypted at a time: enough for one system call, and little to keep where it is not taken."""

READ_BYTES: Final = 128 << 10
"""Ciphertext read in one call. Less than what the plaintext is put into, which it must fit."""

HANDSHAKE_BYTES: Final = 128 << 10
"""Most bytes a peer may send before it is known: certificate chains are a tenth of that."""

_ACCESS_DENIED: Final = bytes((21, 3, 3, 0, 2, 2, 49))
"""A fatal alert of TLS in the clear, which needs no handshake (RFC 8446, 6): not heard for now."""

_CLEARTEXT: Final = control_frame(
    Kind.REFUSE,
    encode(
        Refusal(
            WSAEPROTONOSUPPORT,
            "this session is encrypted: join it by the line that its root prints (jls://...)",
        )
    ),
)

_memory: Final = threading.local()


def _scratch() -> memoryview:
    """Where this thread reads ciphertext; nothing stays in it from one call to the next."""
    view: memoryview | None = getattr(_memory, "scratch", None)
    if view is None:
        view = _memory.scratch = memoryview(bytearray(READ_BYTES))
    return view


class TlsPeer(Protocol):
    """What a connection asks about the other end once the handshake is done."""

    def check(self, tls: ssl.SSLObject) -> tuple[str, Gate | None]:
        """Who it is, and what stands before the leg; TlsError if it is not to be trusted."""
        ...


class TlsConnection(Connection):
    """See the module.

    Args:
        sock: As for ``Connection``.
        context: With certificates and whom to trust.
        peer: Judges the other end.
        named: For the texts of errors: whom this is a connection with.
        accepted: As for ``Connection``; whoever was connected to is the server of TLS.
        host: What the certificate of a server must name; None: that is not looked at.

    Attributes:
        identity: Whom the peer's certificate names; ``""`` before, or if it names nobody.
        gate: What stands before the leg, once established.
    """

    __slots__ = (
        "_context",
        "_ending",
        "_head",
        "_hidden",
        "_host",
        "_incoming",
        "_named",
        "_outgoing",
        "_peer",
        "_received",
        "_taken",
        "_tls",
        "_torn",
        "_waiting",
        "gate",
        "identity",
    )

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        peer: TlsPeer,
        named: str,
        *,
        accepted: bool = False,
        host: str | None = None,
    ) -> None:
        super().__init__(sock, accepted=accepted)
        self.establishing = True
        self.identity = ""
        self.gate: Gate | None = None
        self._context = context
        self._peer = peer
        self._named = named
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=accepted, server_hostname=host
        )
        self._waiting = memoryview(b"")  # ciphertext that the kernel has not taken
        self._taken = 0  # plaintext behind it, to be accounted for once it has
        self._received = 0  # bytes of the handshake so far
        self._head = b""  # the first bytes of the peer
        self._hidden = False  # something may be had without reading
        self._torn = False  # interrupted in the middle: what comes next would make no sense
        self._ending = False  # refused: only the peer's end is waited for

    def like(self, sock: socket.socket) -> Connection:
        """Another attempt at the same peer."""
        return TlsConnection(sock, self._context, self._peer, self._named, host=self._host)

    # Before the first byte

    def establish(self) -> int:
        """Go on with TCP, then with the handshake."""
        if not self.reached:
            super().establish()
            self.establishing = True
            return self._shake()
        if self._ending:
            return self._drain()
        return self._shake()

    def turn_away(self) -> None:
        """Refuse without a handshake: this address has shown too many wrong keys."""
        self._ending = True
        self._waiting = memoryview(_ACCESS_DENIED)

    def _shake(self) -> int:
        ended = False
        try:
            ended = self._arrived() == 0
            self._tls.do_handshake()
            self.identity, self.gate = self._peer.check(self._tls)
        except ssl.SSLWantReadError:
            if ended:
                return self._failed(broke_off(self._named))
            self._push_quietly()
            return READ | WRITE if self._waiting else READ
        except OSError as error:
            return self._failed(error)
        # A client's last flight may still wait here: it goes out in front of what is sent next.
        self.establishing = False
        self._hidden = True
        self._push_quietly()
        return 0

    def _arrived(self) -> int | None:
        """Bytes that came in just now; None: nothing is there, 0: the end."""
        counts: list[int] = []
        try:
            self._read_raw(counts)
        except BlockingIOError:
            return None
        self._received += counts[0]
        if self._received > HANDSHAKE_BYTES:
            raise TlsError(f"{self._named} sends more than a handshake has")
        if self.accepted and self._is_cleartext():
            with contextlib.suppress(OSError):
                self.sock.send(_CLEARTEXT, NO_SIGNAL)
            raise TlsError(f"{self._named} asked in cleartext", number=errno.EPROTO)
        return counts[0]

    def _is_cleartext(self) -> bool:
        """Whether a client does not encrypt: it is told so in its own words."""
        return len(self._head) == HEADER.size and HEADER.unpack(self._head)[3] == MAGIC

    def _failed(self, error: OSError) -> int:
        """Tell the peer why as far as TLS has words for it; who was connected to also logs it."""
        self._push_quietly()
        if not self.accepted:
            if isinstance(error, ssl.SSLError):
                raise explained(error, self._named) from error
            raise error
        why = explained(error, self._named) if isinstance(error, ssl.SSLError) else error
        _log.info("no leg with %s: %s", self._named, why.strerror)
        self._ending = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        return READ  # a close with something unread would take the alert away from the peer

    def _drain(self) -> int:
        """Refused: have the peer read why, and wait for its end. The leg's time is bounded."""
        data = self.sock.recv(READ_BYTES)  # a refused peer's words are worth nothing
        if not data:
            raise TlsError(f"{self._named} was turned away")
        if self._waiting:
            self._push_quietly()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        return READ

    # Sending

    def send(self, outbox: Outbox) -> None:
        """Encrypt some of it and send that; accounted for once the kernel has all of it.

        Raises:
            BlockingIOError: The kernel takes no more for now.
            OSError: The connection is broken.
        """
        self._check_whole()
        if not self._taken:
            self._encrypt(outbox)
        self._push()
        taken, self._taken = self._taken, 0
        outbox.sent(min(taken, outbox.size))

    def _encrypt(self, outbox: Outbox) -> None:
        """Fill the outgoing memory; Ctrl-C between two steps loses no account of what is in it."""
        left = SEND_BYTES
        for piece in _pieces(outbox.head()):
            if len(piece) > left:
                return
            before = self._outgoing.pending
            try:
                self._tls.write(piece)
            finally:
                if self._outgoing.pending > before:
                    self._taken += len(piece)
            left -= len(piece)

    def _push(self) -> None:
        """Hand the kernel what is encrypted; BlockingIOError if it did not take all."""
        while self._waiting or self._outgoing.pending:
            if not self._waiting:
                self._torn = True
                self._waiting = memoryview(self._outgoing.read())
                self._torn = False
            counts: list[int] = []
            try:
                counts += map(self.sock.send, (self._waiting,), (NO_SIGNAL,))
            finally:
                if counts:
                    self._waiting = self._waiting[counts[0] :]

    def _push_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._push()

    # Receiving

    def receive_into(self, view: memoryview, counts: list[int]) -> None:
        """Read once and decrypt; ``view`` must hold more than ``READ_BYTES`` and a record.

        Raises:
            BlockingIOError: Nothing is there, or not yet a whole record.
            OSError: The connection is broken.
        """
        self._check_whole()
        raw: list[int] = []
        try:
            self._read_raw(raw)
        except BlockingIOError:
            if not self._hidden:
                raise
        self._hidden = False
        count, ended = self._decrypt(view)
        if count:
            self._hidden = ended  # the next call finds the end
            counts.append(count)
        elif ended or raw == [0]:
            counts.append(0)
        else:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _read_raw(self, counts: list[int]) -> None:
        """Read ciphertext into the incoming memory; Ctrl-C loses none."""
        scratch = _scratch()
        try:
            counts += map(self.sock.recv_into, (scratch,))
        finally:
            if counts and counts[0]:
                if not self._received:
                    self._head = bytes(scratch[: min(counts[0], HEADER.size)])
                self._hidden = True
                self._incoming.write(scratch[: counts[0]])

    def _decrypt(self, view: memoryview) -> tuple[int, bool]:
        """Everything that is whole; how much it was, and whether the end came behind it."""
        total = 0
        try:
            while total < len(view):
                # Any writable buffer will do; the annotations know of bytearray only.
                count: int = cast(Any, self._tls).read(len(view) - total, view[total:])
                if not count:
                    return total, True
                total += count
        except ssl.SSLWantReadError:
            return total, False
        except ssl.SSLZeroReturnError:
            return total, True
        except ssl.SSLError as error:
            self._push_quietly()  # the alert, if there is one
            raise explained(error, self._named) from error
        except KeyboardInterrupt:
            # What was decrypted last may be lost; what follows it would be read as something else.
            self._torn = True
            raise
        return total, False

    def _check_whole(self) -> None:
        if self._torn:
            raise ConnectionAbortedError(errno.ECONNABORTED, "interrupted in the middle")

    # The end

    def end_sending(self) -> None:
        """Say so in TLS as well, so that nobody else can end it unnoticed."""
        with contextlib.suppress(ssl.SSLError, OSError):
            self._tls.unwrap()  # writes close_notify; waits for the peer's, which nobody does
        self._push_quietly()
        super().end_sending()


def _pieces(buffers: list[Buffer]) -> Iterator[memoryview | bytes]:
    """Cut and join buffers so that each piece is one record, as full as may be.

    Small ones are joined: a record costs 22 bytes and some microseconds, however little is in it.
    """
    small: list[Buffer] = []
    size = 0
    for buffer in buffers:
        length = len(buffer)
        if size + length <= RECORD_BYTES:
            small.append(buffer)
            size += length
            continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        view = memoryview(buffer)
        whole = length - length % RECORD_BYTES
        for start in range(0, whole, RECORD_BYTES):
            yield view[start : start + RECORD_BYTES]
        if whole < length:
            small, size = [view[whole:]], length - whole
    if small:
        yield b"".join(small)

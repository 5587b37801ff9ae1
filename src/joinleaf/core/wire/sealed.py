"""Sealed datagrams: what ``udp://`` and ``ssm://`` carry when their address has a ``#key``.

    0           3   4           8                 24            28          36
    | "JLS" | 1 | hint | sender id | time | counter | ciphertext … | tag |
       3      1    4       16         4        8                     16

Big-endian; 52 bytes more than the message. AES-256-GCM, the 36 bytes in front authenticated along.

* **hint**: four bytes made of the key, so that another session's datagrams, and anybody's plain
  ones, are dropped by one comparison.
* **sender id**: 16 random bytes, new with every start of a sender. Every sender's key is derived
  from the secret, the session (group, port, source) and this id; so no two starts ever seal under
  one key, and nothing sealed for one session opens in another.
* **nonce**: time and counter, 12 bytes. The counter never repeats under one id, which is all that
  AES-GCM asks; the time (UNIX seconds modulo 2**32) keeps even clones of a machine apart.

**Replays.** A receiver takes every counter of a sender once, within a window of 1,024. A sender it
does not know is admitted only by a datagram sealed within ``fresh_s`` seconds of its own clock, and
from that one on. What a known sender sealed ``fresh_s`` before its newest is refused. Senders that
are silent for longer than ``fresh_s`` may be forgotten to make room; whatever they have sent is too
old to be admitted by then, also if this host's clock is set back, for the newest time ever
forgotten is kept as a floor. If there is no room and nobody to forget, newcomers are refused: only
holders of the key can bring that about. So:

* while a receiver lives it takes no datagram twice;
* one that starts again can be shown datagrams of the last ``fresh_s`` seconds once more, and no
  older ones; and a datagram held back on its way is taken as long as it would be above;
* clocks that differ by more than ``fresh_s`` keep a newcomer out: counted, and told in the log.

Whoever has the key can seal as anybody: the id tells starts apart, it does not prove who.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from joinleaf.core.keys.derive import KEY_BYTES, expand
from joinleaf.core.keys.replay import ReplayWindow
from joinleaf.spi.provider import Buffer

__all__ = [
    "FRESH_S",
    "OVERHEAD",
    "SENDERS_KEPT",
    "SENDER_BYTES",
    "DatagramOpener",
    "DatagramSealer",
    "SharedKey",
]

SENDER_BYTES: Final = 16
"""Length of a sender's id: at 2**48 starts under one secret two are the same with chance 2**-33."""

FRESH_S: Final = 60
"""Default for how far a newcomer's clock may be off: hosts that keep time at all are within it."""

SENDERS_KEPT: Final = 4096
"""Most senders a receiver knows at once; at about 1 KiB each, 4 MiB."""

BYTES_PER_SENDER: Final = 1 << 38
"""A sender takes a new id after 256 GiB (the bound is explained in ``core/keys/group.py``)."""

_MAGIC: Final = b"JLS\x01"
_PREFIX_BYTES: Final = 8
_STAMP: Final = struct.Struct(">IQ")  # time, counter: the nonce
_ID_END: Final = _PREFIX_BYTES + SENDER_BYTES
_HEADER_BYTES: Final = _ID_END + _STAMP.size
_AUTH: Final = 16
OVERHEAD: Final = _HEADER_BYTES + _AUTH
"""Bytes that sealing adds to a message."""

_CLOCK: Final = 0xFFFFFFFF
_HALF: Final = 1 << 31
_SECOND_NS: Final = 1_000_000_000


class SharedKey:
    """A session's key: makes the prefix of its datagrams and the cipher of every sender.

    Args:
        master: What ``master_key`` made of the secret.
        session: Which session it seals: group, port and source.
    """

    __slots__ = ("_base", "prefix")

    def __init__(self, master: bytes, session: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._base = expand(master, b"sealed session", session)
        self.prefix = _MAGIC + expand(self._base, b"hint")[: _PREFIX_BYTES - len(_MAGIC)]

    def cipher_of(self, sender: bytes) -> AESGCM:
        """What one sender seals with."""
        return AESGCM(expand(self._base, b"sender", sender))


class DatagramSealer:
    """Seals what one sender sends. One thread at a time.

    Args:
        key: The session's.
        new_id: Gives ``SENDER_BYTES`` random bytes, others every time.
    """

    __slots__ = ("_bytes", "_counter", "_encrypt", "_front", "_key", "_new_id", "_time_s")

    def __init__(self, key: SharedKey, new_id: Callable[[], bytes]) -> None:
        self._key = key
        self._new_id = new_id
        self._time_s = 0
        self.restart()

    def restart(self) -> None:
        """Take a new sender id. To be called in a child process, which would repeat counters."""
        sender = self._new_id()
        if len(sender) != SENDER_BYTES:
            raise ValueError(f"a sender id has {SENDER_BYTES} bytes")
        self._front = self._key.prefix + sender
        self._encrypt = self._key.cipher_of(sender).encrypt
        self._counter = self._bytes = 0

    def begin(self, now_ns: int) -> None:
        """State the time, in UNIX nanoseconds, before a batch is sealed.

        A new id is taken where much has been sealed under the old, and where the clock was set
        back: receivers would take what is sealed now for held back.
        """
        now_s = now_ns // _SECOND_NS
        if self._bytes >= BYTES_PER_SENDER or now_s < self._time_s:
            self.restart()
        self._time_s = now_s

    def seal(self, message: Buffer) -> bytes:
        """The datagram of a message, ``OVERHEAD`` bytes longer."""
        counter = self._counter
        self._counter = counter + 1
        stamp = _STAMP.pack(self._time_s & _CLOCK, counter)
        header = self._front + stamp
        datagram = header + self._encrypt(stamp, message, header)
        self._bytes += len(datagram)
        return datagram


class _Sender:
    """What a receiver knows of one start of one sender."""

    __slots__ = ("decrypt", "newest", "window")

    def __init__(self, decrypt: Callable[[bytes, Buffer, bytes], bytes], counter: int) -> None:
        self.decrypt = decrypt
        self.window = ReplayWindow(counter)  # nothing of before the first
        self.newest: int | None = None  # until the first has proved authentic


class DatagramOpener:
    """Opens what a receiver receives. One thread at a time.

    Args:
        key: The session's.
        fresh_s: How far the time of a sender not known yet may be off, in seconds, at least 1.
        senders_kept: How many senders are known at once.

    Attributes:
        opened: Datagrams taken.
        plain: Refused: not sealed at all.
        other_key: Refused: sealed under another key, for another session or in another version.
        forged: Refused: they do not authenticate.
        replayed: Refused: taken before, or too far behind.
        stale: Refused: sealed too long ago, or the clocks differ.
        crowded: Refused: too many senders.
        last_stale_s: By how many seconds the last one refused as stale was old; negative: ahead.
    """

    __slots__ = (
        "_floor",
        "_fresh_s",
        "_kept",
        "_key",
        "_prefix",
        "_senders",
        "_swept_s",
        "crowded",
        "forged",
        "last_stale_s",
        "opened",
        "other_key",
        "plain",
        "replayed",
        "stale",
    )

    def __init__(
        self, key: SharedKey, *, fresh_s: int = FRESH_S, senders_kept: int = SENDERS_KEPT
    ) -> None:
        if not 1 <= fresh_s < _HALF:
            raise ValueError("fresh_s must be 1 to 2147483647 seconds")
        self._key = key
        self._prefix = key.prefix
        self._fresh_s = fresh_s
        self._kept = senders_kept
        self._senders: dict[bytes, _Sender] = {}
        self._floor: int | None = None  # nobody is admitted whose time is not above it
        self._swept_s = -1
        self.opened = self.plain = self.other_key = self.forged = 0
        self.replayed = self.stale = self.crowded = 0
        self.last_stale_s = 0

    def open_run(self, datagrams: Sequence[bytes], now_ns: int) -> list[bytes]:
        """The messages of those datagrams that are to be taken, in their order.

        Args:
            datagrams: As they arrived.
            now_ns: The time, in UNIX nanoseconds.
        """
        opened: list[bytes] = []
        prefix, known, unstamp = self._prefix, self._senders, _STAMP.unpack_from
        for datagram in datagrams:
            if datagram[:_PREFIX_BYTES] != prefix or len(datagram) < OVERHEAD:
                self._count_foreign(datagram)
                continue
            time_s, counter = unstamp(datagram, _ID_END)
            sender = known.get(datagram[_PREFIX_BYTES:_ID_END])
            if sender is None:
                sender = self._newcomer(datagram, now_ns // _SECOND_NS)
                if sender is None:
                    continue
            elif (
                counter != sender.window.following or time_s != sender.newest
            ) and not self._is_new(sender, time_s, counter):
                continue
            try:
                message = sender.decrypt(
                    datagram[_ID_END:_HEADER_BYTES],
                    datagram[_HEADER_BYTES:],
                    datagram[:_HEADER_BYTES],
                )
            except InvalidTag:
                self.forged += 1
                continue
            opened.append(message)
            sender.window.accept(counter)
            if time_s != sender.newest:
                self._note_time(datagram[_PREFIX_BYTES:_ID_END], sender, time_s)
        self.opened += len(opened)
        return opened

    def _count_foreign(self, datagram: bytes) -> None:
        if datagram.startswith(_MAGIC[:3]):
            self.other_key += 1
        else:
            self.plain += 1

    def _is_new(self, sender: _Sender, time_s: int, counter: int) -> bool:
        if not sender.window.is_new(counter):
            self.replayed += 1
            return False
        late_s = 0 if sender.newest is None else _difference(sender.newest, time_s)
        if late_s > self._fresh_s:
            self._refuse_stale(late_s)
            return False
        return True

    def _newcomer(self, datagram: bytes, now_s: int) -> _Sender | None:
        """A sender to be known if the datagram proves authentic; None: it may not come in."""
        time_s, counter = _STAMP.unpack_from(datagram, _ID_END)
        old_s = _difference(now_s, time_s)
        is_past = self._floor is not None and _difference(time_s, self._floor) <= 0
        if abs(old_s) > self._fresh_s or is_past:
            self._refuse_stale(old_s)
            return None
        if len(self._senders) >= self._kept and not self._make_room(now_s):
            self.crowded += 1
            return None
        return _Sender(self._key.cipher_of(datagram[_PREFIX_BYTES:_ID_END]).decrypt, counter)

    def _refuse_stale(self, old_s: int) -> None:
        self.stale += 1
        self.last_stale_s = old_s

    def _make_room(self, now_s: int) -> bool:
        """Forget who has been silent for long; looked for at most once a second."""
        if now_s == self._swept_s:
            return False
        self._swept_s = now_s
        for name, sender in list(self._senders.items()):
            if sender.newest is not None and _difference(now_s, sender.newest) > self._fresh_s:
                del self._senders[name]
                if self._floor is None or _difference(sender.newest, self._floor) > 0:
                    self._floor = sender.newest
        return len(self._senders) < self._kept

    def _note_time(self, name: bytes, sender: _Sender, time_s: int) -> None:
        """A sender is heard for the first time, or its time has changed."""
        if sender.newest is None:
            self._senders[name] = sender
            sender.newest = time_s
        elif _difference(time_s, sender.newest) > 0:
            sender.newest = time_s


def _difference(later_s: int, earlier_s: int) -> int:
    """Seconds between two times modulo 2**32, as the nearer of the two ways round."""
    return ((later_s - earlier_s + _HALF) & _CLOCK) - _HALF

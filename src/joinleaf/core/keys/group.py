"""Group keys by epoch: what a root seals its multicast stream with, and a leaf opens it with.

The root alone seals, so one counter under one key is enough for nonces that never repeat:

* An epoch has a number and a fresh random key, told to members over their legs. A root that starts
  again draws new keys, so nothing it numbers anew meets an old key.
* A unit's nonce is the epoch (4 bytes) and the unit (8 bytes), the deterministic construction of
  NIST SP 800-38D, 8.2.1, and RFC 5116, 3.2. Units only grow, which ``GroupKeys.seal`` enforces;
  what is repaired is the sealed image of before, never sealed again.
* SYNC and PROBE, of which many may name the same unit, are sealed under *another key*, derived from
  the epoch's under a label of its own, and numbered by a counter that travels with them: their
  nonces and the units' can be equal without harm.

**When the root rotates** (``GroupKeys.rotate``): before it expels a leaf or answers a leave, once
for all who go at the same time; when a leg breaks; and when ``due_for_rotation``. First rotate,
then send KEY to all who stay, also to those that the group does not serve at the moment and those
whose ACCEPT has just left, then seal. A joiner needs no rotation: it gets the current ``fact``, and
with it can read what was sent since the epoch began, not before.

**What an old key is good for**: a leaf that knows epoch n + 1 takes units of epoch n only below
the unit that n + 1 began with, and no SYNC or PROBE of epoch n at all. So somebody expelled can
forge nothing that comes after the expulsion, from the moment KEY has reached a leaf. Units of
before can still be opened, so that a leaf which lags loses nothing.

Which *member* sealed something the key does not say: every member could have. Members who do not
trust each other stay on their legs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from joinleaf.core.keys.derive import KEY_BYTES, expand
from joinleaf.core.keys.replay import ReplayWindow
from joinleaf.core.reliability.seams import SpoiledError
from joinleaf.errors import LocalProtocolError, RemoteProtocolError
from joinleaf.spi.provider import Buffer

__all__ = [
    "BYTES_PER_EPOCH",
    "EPOCHS_KEPT",
    "KEY_BODY_BYTES",
    "UNITS_PER_EPOCH",
    "GroupKeys",
    "KeyFact",
    "LeafKeys",
    "epoch_byte",
]

BYTES_PER_EPOCH: Final = 1 << 38
"""256 GiB: then a rotation is due. AES-GCM may seal 2**34.5 blocks (388 GB) under one key for an
attacker's advantage to stay below about 2**-57 (RFC 8446, 5.5)."""

UNITS_PER_EPOCH: Final = 1 << 32
"""Then a rotation is due. With counted nonces NIST SP 800-38D sets no such bound (8.3); it is kept
all the same, as it would hold for any way to make them."""

_HARD: Final = 2  # seal refuses at this many times the bounds: 2**-59 still, where nobody rotated

EPOCHS_KEPT: Final = 64
"""Keys a leaf keeps. More are needed only by a leaf that lags behind 64 rotations with units sent
between them, all within one window; below 128, so that an epoch's byte tells old from new."""

_MAX_EPOCH: Final = 0xFFFFFFFF
_AUTH: Final = 16  # bytes of an AES-GCM tag
_CONTROL_WINDOW: Final = 64  # SYNCs and PROBEs are far apart; reordering beyond this loses nothing

_NONCE: Final = struct.Struct(">IQ")
_UNIT_AAD: Final = struct.Struct(">IBBQ")  # tag, epoch, count, unit
_CONTROL_AAD: Final = struct.Struct(">IBBBQ")  # tag, epoch, kind, serial, unit
_NUMBER: Final = struct.Struct(">Q")
_KEY_BODY: Final = struct.Struct(f">IQ{KEY_BYTES}s")

KEY_BODY_BYTES: Final = _KEY_BODY.size


def epoch_byte(epoch: int) -> int:
    """The epoch as headers carry it: 1 to 255, for 0 means cleartext."""
    return (epoch - 1) % 255 + 1


@dataclass(frozen=True, slots=True)
class KeyFact:
    """The key of one epoch, as it travels over a leg. Its text shows no key.

    Attributes:
        epoch: 1 to 2**32 - 1.
        key: ``KEY_BYTES`` random bytes.
        from_unit: The first unit sealed with it.

    Raises:
        ValueError: A field is out of its range.
    """

    epoch: int
    key: bytes = field(repr=False)
    from_unit: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= _MAX_EPOCH:
            raise ValueError(f"epoch {self.epoch} is not between 1 and {_MAX_EPOCH}")
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a group key has {KEY_BYTES} bytes, not {len(self.key)}")
        if not 0 <= self.from_unit < 1 << 64:
            raise ValueError(f"unit {self.from_unit} is out of range")

    def body(self) -> bytes:
        """The body of a KEY frame, ``KEY_BODY_BYTES`` long."""
        return _KEY_BODY.pack(self.epoch, self.from_unit, self.key)

    @classmethod
    def parse(cls, body: Buffer) -> KeyFact:
        """Read the body of a KEY frame; RemoteProtocolError if it is none."""
        try:
            epoch, from_unit, key = _KEY_BODY.unpack(body)
            return cls(epoch, key, from_unit)
        except (struct.error, ValueError) as error:
            raise RemoteProtocolError(f"KEY: {error}") from None


class _Epoch:
    """One epoch's two ciphers."""

    __slots__ = ("control", "end", "first", "number", "seen", "units")

    def __init__(self, fact: KeyFact) -> None:
        self.number = fact.epoch
        self.first = fact.from_unit
        self.end = 1 << 64  # the first unit of the next epoch, once that is known
        self.units = AESGCM(expand(fact.key, b"group unit"))
        self.control = AESGCM(expand(fact.key, b"group control"))
        self.seen = ReplayWindow(0, _CONTROL_WINDOW)


class GroupKeys:
    """The root's side: a ``Sealer`` (``core.reliability.seams``) whose keys rotate.

    Args:
        random_bytes: ``KEY_BYTES`` fresh random bytes, the first epoch's key.
        tag: The session's tag, 32 bits; part of what is authenticated.
        epoch: The number of the first epoch.
    """

    __slots__ = ("_bytes", "_controls", "_current", "_fact", "_next_unit", "_tag", "_units")

    def __init__(self, random_bytes: bytes, tag: int, *, epoch: int = 1) -> None:
        self._tag = tag
        self._next_unit = 0
        self._begin(KeyFact(epoch, random_bytes))

    def __repr__(self) -> str:
        return f"GroupKeys(epoch={self._fact.epoch}, units={self._units}, bytes={self._bytes})"

    def _begin(self, fact: KeyFact) -> None:
        self._fact = fact
        self._current = _Epoch(fact)
        self._units = self._bytes = self._controls = 0

    @property
    def epoch(self) -> int:
        """The current epoch as headers carry it, 1 to 255."""
        return epoch_byte(self._fact.epoch)

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds to a unit."""
        return _AUTH

    @property
    def due_for_rotation(self) -> bool:
        """Whether so much has been sealed that the next unit wants a new epoch."""
        return (
            self._bytes >= BYTES_PER_EPOCH
            or self._units >= UNITS_PER_EPOCH
            or self._controls >= UNITS_PER_EPOCH
        )

    def fact(self) -> KeyFact:
        """The current key: what a joiner gets with ACCEPT, and members in a KEY frame."""
        return self._fact

    def key_frame_body(self) -> bytes:
        """The body of the KEY frame that tells of the current epoch."""
        return self._fact.body()

    def rotate(self, random_bytes: bytes) -> KeyFact:
        """Begin a new epoch, with the first unit that has not been sealed yet.

        Args:
            random_bytes: ``KEY_BYTES`` fresh random bytes.

        Returns:
            The new key: for everybody who stays, and for nobody else.

        Raises:
            LocalProtocolError: Epochs are used up, after 2**32. The old one goes on.
        """
        if self._fact.epoch == _MAX_EPOCH:
            raise LocalProtocolError("epochs are used up: start the session anew")
        self._begin(KeyFact(self._fact.epoch + 1, random_bytes, self._next_unit))
        return self._fact

    def seal(self, unit: int, count: int, payload: Buffer) -> bytes:
        """The sealed payload of a unit: as long as the payload and ``overhead``.

        Args:
            unit: Its number; higher than that of every unit sealed before.
            count: Into how many symbols it will be cut, 1 to 64.
            payload: Contiguous bytes.

        Raises:
            LocalProtocolError: The unit is not higher, so its nonce could have been used; or far
                more has been sealed than a key is good for. Nothing is sealed.
        """
        if unit < self._next_unit:
            raise LocalProtocolError(f"unit {unit} would be sealed twice")
        if self._units >= _HARD * UNITS_PER_EPOCH or self._bytes >= _HARD * BYTES_PER_EPOCH:
            raise LocalProtocolError("the group key is worn out: rotate it")
        current = self._current
        sealed = current.units.encrypt(
            _NONCE.pack(current.number, unit),
            payload,
            _UNIT_AAD.pack(self._tag, epoch_byte(current.number), count, unit),
        )
        self._next_unit = unit + 1
        self._units += 1
        self._bytes += len(sealed)
        return sealed

    def seal_control(self, kind: int, serial: int, unit: int, body: Buffer) -> bytes:
        """The sealed body of a SYNC or PROBE, 24 bytes longer: a number in front, a tag behind.

        Raises:
            LocalProtocolError: Far more has been sealed than a key is good for.
        """
        if self._controls >= _HARD * UNITS_PER_EPOCH:
            raise LocalProtocolError("the group key is worn out: rotate it")
        current, number = self._current, self._controls
        self._controls = number + 1
        sealed = current.control.encrypt(
            _NONCE.pack(current.number, number),
            body,
            _CONTROL_AAD.pack(self._tag, epoch_byte(current.number), kind, serial, unit),
        )
        return _NUMBER.pack(number) + sealed


class LeafKeys:
    """A leaf's side: an ``Opener`` that learns keys as they come.

    Args:
        fact: The key that came with ACCEPT.
        tag: The session's tag.
    """

    __slots__ = ("_epochs", "_newest", "_tag")

    def __init__(self, fact: KeyFact, tag: int) -> None:
        self._tag = tag
        self._newest = _Epoch(fact)
        self._epochs: dict[int, _Epoch] = {epoch_byte(fact.epoch): self._newest}  # oldest first

    def __repr__(self) -> str:
        return f"LeafKeys(epoch={self._newest.number}, kept={len(self._epochs)})"

    def learn(self, fact: KeyFact) -> bool:
        """Take the key of a KEY frame; then try again what ``open`` had no key for.

        Returns:
            Whether it was new; a repeated one is ignored.

        Raises:
            RemoteProtocolError: Its epoch or unit goes backwards. Nothing has changed.
        """
        newest = self._newest
        if fact.epoch == newest.number:
            return False
        if fact.epoch < newest.number or fact.from_unit < newest.first:
            raise RemoteProtocolError(f"KEY of epoch {fact.epoch} after {newest.number}")
        if fact.from_unit == newest.first:  # nothing was ever sealed in it
            del self._epochs[epoch_byte(newest.number)]
        newest.end = fact.from_unit
        self._newest = _Epoch(fact)
        self._epochs.pop(epoch_byte(fact.epoch), None)  # an old one of the same byte
        self._epochs[epoch_byte(fact.epoch)] = self._newest
        while len(self._epochs) > EPOCHS_KEPT:
            del self._epochs[next(iter(self._epochs))]
        return True

    def forget_before(self, unit: int) -> None:
        """Drop keys that only units below ``unit`` were sealed with: these have been delivered."""
        for byte, held in list(self._epochs.items()):
            if held.end > unit:
                return
            del self._epochs[byte]

    def open(self, epoch: int, unit: int, count: int, payload: Buffer) -> bytes | None:
        """The plaintext of a unit; None while the key of its epoch has not come.

        Raises:
            SpoiledError: It does not authenticate, is not sealed, or its epoch has ended before
                this unit.
        """
        held = self._find(epoch)
        if held is None:
            return None
        if not held.first <= unit < held.end:
            raise SpoiledError(f"unit {unit} is not of epoch {held.number}")
        try:
            return held.units.decrypt(
                _NONCE.pack(held.number, unit),
                payload,
                _UNIT_AAD.pack(self._tag, epoch, count, unit),
            )
        except InvalidTag:
            raise SpoiledError(f"unit {unit} does not authenticate") from None

    def open_control(
        self, kind: int, epoch: int, serial: int, unit: int, body: Buffer
    ) -> bytes | None:
        """The plaintext of the body of a SYNC or PROBE; None while its key has not come.

        Raises:
            SpoiledError: It does not authenticate, was seen before, or its epoch has ended.
        """
        held = self._find(epoch)
        if held is None:
            return None
        if held is not self._newest:
            raise SpoiledError(f"epoch {held.number} has ended")
        if len(body) < _NUMBER.size + _AUTH:
            raise SpoiledError("too short to be sealed")
        (number,) = _NUMBER.unpack_from(body)
        if not held.seen.is_new(number):
            raise SpoiledError("seen before")
        try:
            opened = held.control.decrypt(
                _NONCE.pack(held.number, number),
                memoryview(body)[_NUMBER.size :],
                _CONTROL_AAD.pack(self._tag, epoch, kind, serial, unit),
            )
        except InvalidTag:
            raise SpoiledError("it does not authenticate") from None
        held.seen.accept(number)
        return opened

    def _find(self, epoch: int) -> _Epoch | None:
        """The epoch of a header; None if it is still to come.

        Raises:
            SpoiledError: Cleartext, or an epoch whose key is gone.
        """
        held = self._epochs.get(epoch)
        if held is not None:
            return held
        ahead = (epoch - epoch_byte(self._newest.number)) % 255
        if not 1 <= epoch <= 255 or ahead > 127:
            raise SpoiledError("not sealed" if epoch == 0 else "of an epoch long gone")
        return None

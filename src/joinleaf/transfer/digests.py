"""How it is proved that a file arrived as it was read: one digest per file, at both ends.

Two kinds, named in every verdict:

``gmac`` (the default)
    AES-256-GCM with the file as additional data: a keyed, 128-bit universal hash. The key is drawn
    for each run and travels in the offer, so no disk, cable, driver or program can have prepared
    for it: an error of any shape goes unnoticed with a chance below 2^-128 for each 16 bytes of
    the file. It is about a tenth of the work of sha256. Whoever knows the key, that is every
    member, could make a second file of the same digest, as he could send his own file anyway.

``sha256``
    What ``sha256sum`` prints: nobody can make a second file of the same digest, and it can be
    compared with one published elsewhere. It costs more than all else a leaf does with the bytes.

Neither says who sent the file; that is for the session to say (``jls://``).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

if TYPE_CHECKING:
    from joinleaf.transfer.channel import Buffer

__all__ = [
    "DEFAULT_DIGEST",
    "DIGESTS",
    "DigestKind",
    "Digests",
    "Running",
    "digests_of",
    "new_digests",
]

DigestKind = Literal["gmac", "sha256"]
DIGESTS: Final[tuple[DigestKind, ...]] = get_args(DigestKind)
DEFAULT_DIGEST: Final[DigestKind] = "gmac"

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Running(Protocol):
    """The digest of one file while its bytes go by, in order."""

    def update(self, data: Buffer, /) -> None:
        """The next bytes."""
        ...

    def digest(self) -> bytes:
        """Of all there were; nothing may follow."""
        ...


class Digests(Protocol):
    """One kind of digest, with the key of one run where it has one.

    Attributes:
        kind: Its name, as offered and as shown.
        key: What a leaf needs to make the same digests; ``b""`` where there is none.
        size: Bytes of each digest.
    """

    kind: DigestKind
    key: bytes
    size: int

    def begin(self, index: int) -> Running:
        """For the file with this index."""
        ...

    def whole(self, index: int, data: Buffer) -> bytes:
        """Of a file that is there in one piece: cheaper than beginning one."""
        ...


class _Sha256:
    kind: DigestKind = "sha256"
    key = b""
    size = 32

    def begin(self, index: int) -> Running:
        return hashlib.sha256()

    def whole(self, index: int, data: Buffer) -> bytes:
        return hashlib.sha256(data).digest()


class _Gmac:
    """The file's index is the nonce: with a key per run, no two files ever share one."""

    kind: DigestKind = "gmac"
    size = 16

    def __init__(self, key: bytes) -> None:
        # Imported where it is needed: it takes longer than all of the transfer's own modules.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.key = key
        algorithm = algorithms.AES(key)
        self._new: Any = lambda nonce: Cipher(algorithm, modes.GCM(nonce)).encryptor()
        self._aead = AESGCM(key)

    def begin(self, index: int) -> Running:
        return _RunningGmac(self._new(_nonce(index)))

    def whole(self, index: int, data: Buffer) -> bytes:
        return self._aead.encrypt(_nonce(index), b"", data)


class _RunningGmac:
    __slots__ = ("_encryptor", "update")

    def __init__(self, encryptor: Any) -> None:
        self._encryptor = encryptor
        self.update = encryptor.authenticate_additional_data

    def digest(self) -> bytes:
        self._encryptor.finalize()
        tag: bytes = self._encryptor.tag
        return tag


def _nonce(index: int) -> bytes:
    return index.to_bytes(_NONCE_BYTES, "big")


def new_digests(kind: DigestKind) -> Digests:
    """For a new run at its root.

    Raises:
        ValueError: There is no such kind.
    """
    return digests_of(kind, os.urandom(_KEY_BYTES) if kind == "gmac" else b"")


def digests_of(kind: str, key: bytes) -> Digests:
    """As a root has offered them.

    Raises:
        ValueError: The kind is not known here, or the key is none for it.
    """
    if kind == "gmac" and len(key) == _KEY_BYTES:
        return _Gmac(key)
    if kind == "sha256" and not key:
        return _Sha256()
    if kind in DIGESTS:
        raise ValueError(f"a key of {len(key)} bytes is none for the digest {kind!r}")
    raise ValueError(f"the digest {kind!r} is not known here; there are {', '.join(DIGESTS)}")

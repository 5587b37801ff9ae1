"""The session key: what a root's join line carries, so that no certificate authority is needed.

    jls://10.0.0.5:7400/#AX0c...            48 letters, digits, hyphens and underscores

Its bytes are a version (1), the first 16 bytes of the SHA-256 of the root's self-made certificate,
a secret of 16 bytes, and 3 bytes of checksum, which tell a key that was mistyped from one that is
wrong. The joiner accepts that certificate and no other, and each end proves that it knows the
secret, which itself never travels:

    answerer -> asker     CHALLENGE   version (1), nonce (32)
    asker    -> answerer  PROOF       nonce (32), HMAC-SHA256 (32)
    answerer -> asker     PROOF       HMAC-SHA256 (32)

The code authenticates the role, the certificate that this very connection has shown, and both
nonces. So a proof is of use to nobody else: not on another connection (other nonces), not to the
other side (another role), not through a man in the middle (another certificate).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import string
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "DIGEST_BYTES",
    "KEY_CHARACTERS",
    "NONCE_BYTES",
    "PROOF_BYTES",
    "SECRET_BYTES",
    "SessionKey",
    "answerer_proof",
    "asker_proof",
    "digest_of",
    "is_proof",
]

VERSION: Final = 1

FINGERPRINT_BYTES: Final = 16
"""To make another certificate with these first bytes takes 2^128 tries."""

SECRET_BYTES: Final = 16
"""As many bits, of good randomness: nobody guesses it, however often they may try."""

CHECK_BYTES: Final = 3
"""One typing error in 16 million passes for a wrong key."""

DIGEST_BYTES: Final = 32
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32

_BYTES: Final = 1 + FINGERPRINT_BYTES + SECRET_BYTES + CHECK_BYTES
KEY_CHARACTERS: Final = _BYTES * 4 // 3
"""36 bytes are 48 characters, without padding."""

_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "-_")

_ASKER: Final = b"joinleaf session key 1: asker\0"
_ANSWERER: Final = b"joinleaf session key 1: answerer\0"


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What a joiner has to know: whom to trust, and what to prove.

    Attributes:
        fingerprint: First 16 bytes of the digest of the answerer's certificate.
        secret: 16 bytes; never logged, never sent.
    """

    fingerprint: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.fingerprint) != FINGERPRINT_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError("a session key has a fingerprint and a secret of 16 bytes each")

    @classmethod
    def of_certificate(cls, certificate: bytes, secret: bytes) -> SessionKey:
        """The key to a certificate (DER); the caller draws the secret."""
        return cls(digest_of(certificate)[:FINGERPRINT_BYTES], secret)

    @property
    def text(self) -> str:
        """As it stands behind the hash mark of a join line."""
        body = bytes((VERSION,)) + self.fingerprint + self.secret
        return base64.urlsafe_b64encode(body + _check(body)).decode()

    @classmethod
    def parse(cls, text: str) -> SessionKey:
        """Read what stands behind the hash mark.

        Raises:
            ValueError: It was cut off, mistyped, or made by a newer version; the text says which,
                and shows nothing of the key.
        """
        if len(text) != KEY_CHARACTERS:
            raise ValueError(
                f"a session key has {KEY_CHARACTERS} characters and this has {len(text)}: "
                "copy the join line whole"
            )
        if not _CHARACTERS.issuperset(text):
            raise ValueError(
                "a session key has letters, digits, hyphens and underscores only: "
                "copy it from the join line"
            )
        raw = base64.urlsafe_b64decode(text)
        body, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
        if _check(body) != check:
            raise ValueError("the session key is mistyped: copy it from the join line")
        if body[0] != VERSION:
            raise ValueError(f"the session key is of version {body[0]}: a newer joinleaf made it")
        return cls(body[1 : 1 + FINGERPRINT_BYTES], body[1 + FINGERPRINT_BYTES :])

    def names(self, certificate: bytes) -> bool:
        """Whether this is the certificate (DER) that the key is to."""
        return hmac.compare_digest(digest_of(certificate)[:FINGERPRINT_BYTES], self.fingerprint)


def digest_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate (DER), 32 bytes."""
    return hashlib.sha256(certificate).digest()


def asker_proof(secret: bytes, digest: bytes, challenge: bytes, nonce: bytes) -> bytes:
    """What shows the answerer that the asker knows the secret.

    Args:
        secret: The session key's.
        digest: Of the certificate that the answerer has shown on this connection, 32 bytes.
        challenge: The answerer's nonce, 32 bytes.
        nonce: The asker's own, 32 bytes, drawn for this connection.
    """
    return _proof(_ASKER, secret, digest, challenge, nonce)


def answerer_proof(secret: bytes, digest: bytes, challenge: bytes, nonce: bytes) -> bytes:
    """The same the other way; arguments as for ``asker_proof``."""
    return _proof(_ANSWERER, secret, digest, challenge, nonce)


def is_proof(shown: bytes, expected: bytes) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(shown, expected)


def _proof(role: bytes, secret: bytes, digest: bytes, challenge: bytes, nonce: bytes) -> bytes:
    # Every part has one length, so no two sets of parts make the same bytes.
    assert (len(digest), len(challenge), len(nonce)) == (DIGEST_BYTES, NONCE_BYTES, NONCE_BYTES)
    return hmac.digest(secret, role + digest + challenge + nonce, "sha256")


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"joinleaf session key checksum" + body).digest()[:CHECK_BYTES]

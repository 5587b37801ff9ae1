"""Keys made of keys: HKDF with SHA-256, as far as a single block of output reaches.

Every use of a secret has a label of its own, so that no two uses ever meet in one AES key, and
nonces need to be unique within one use only.
"""

from __future__ import annotations

import hmac
from typing import Final

__all__ = ["KEY_BYTES", "expand", "extract"]

KEY_BYTES: Final = 32
"""Length of every key here: AES-256, and one block of SHA-256."""


def extract(salt: bytes, material: bytes) -> bytes:
    """A uniform key of ``KEY_BYTES`` from key material that is not. Source: RFC 5869, 2.2."""
    return hmac.digest(salt, material, "sha256")


def expand(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """A key of ``KEY_BYTES`` for one use.

    Args:
        key: A uniform key of ``KEY_BYTES``.
        label: The use, without a zero byte.
        context: Whom or what it is used for.

    Source:
        RFC 5869, 2.3 with L = 32, so that T(1) is all of the output. The zero byte keeps label
        and context apart.
    """
    return hmac.digest(key, b"joinleaf " + label + b"\0" + context + b"\x01", "sha256")

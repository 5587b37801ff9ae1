"""Shared secrets as people hand them on: the text after the hash mark of a session address.

Who has recorded one sealed datagram can try guesses on it at leisure, so the text has to be hard
to guess, or each guess has to be dear:

* From ``STRONG_FROM`` characters on, as ``secrets.token_urlsafe(32)`` makes them, it is used as it
  is: nobody guesses 256 bits.
* Shorter ones may be phrases somebody thought up. They go through scrypt, which takes a guesser
  32 MiB and about 0.2 s for each try, and this host the same, once, at the opening.
* What is too short or too uniform for even that is refused. There is no default and no fallback.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from joinleaf.core.keys.derive import KEY_BYTES, extract

__all__ = ["LEAST_CHARACTERS", "STRONG_FROM", "check_secret", "master_key"]

STRONG_FROM: Final = 43
"""Characters of 32 random bytes in base64url."""

LEAST_CHARACTERS: Final = 16
_LEAST_DIFFERENT: Final = 8  # 32 random hexadecimal digits have fewer once in 26 million times

_SALT: Final = b"joinleaf shared secret 1"

# OWASP's password storage cheat sheet, the variant that takes 32 MiB; RFC 7914 for the names.
_SCRYPT_N: Final = 1 << 15
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 3


def check_secret(text: str) -> None:
    """Raise ValueError unless the text can be used as a secret; the error does not show it."""
    if len(text) < LEAST_CHARACTERS or len(set(text)) < _LEAST_DIFFERENT:
        raise ValueError(
            f"the key after # is too easy to guess: it needs {LEAST_CHARACTERS} characters, "
            f"{_LEAST_DIFFERENT} of them different. Make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def master_key(text: str) -> bytes:
    """The key of ``KEY_BYTES`` that a secret stands for, on every host the same.

    Raises:
        ValueError: As ``check_secret``.
    """
    check_secret(text)
    material = text.encode("utf-8", "surrogateescape")
    if len(text) < STRONG_FROM:
        stretch = Scrypt(salt=_SALT, length=KEY_BYTES, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
        material = stretch.derive(material)
    return extract(_SALT, material)

"""Derived keys, against HKDF as the cryptography package has it."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from joinleaf.core.keys.derive import KEY_BYTES, expand, extract


def test_extract_and_expand_are_hkdf() -> None:
    info = b"joinleaf a use\0a context"
    theirs = HKDF(SHA256(), KEY_BYTES, salt=b"salt", info=info).derive(b"material")
    assert expand(extract(b"salt", b"material"), b"a use", b"a context") == theirs


def test_uses_and_contexts_do_not_run_into_each_other() -> None:
    key = bytes(KEY_BYTES)
    made = {expand(key, b"a"), expand(key, b"ab"), expand(key, b"a", b"b"), expand(key, b"b", b"a")}
    assert len(made) == 4

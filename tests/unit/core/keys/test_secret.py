"""Shared secrets: strong ones are used as they are, phrases are made dear, weak ones refused."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import pytest

from joinleaf.core.keys import secret
from joinleaf.core.keys.secret import STRONG_FROM, check_secret, master_key

PHRASE = "correct horse battery staple"


@pytest.mark.parametrize("number", [16, 24, 32, 64])
def test_what_the_secrets_module_makes_is_accepted(number: int) -> None:
    for _ in range(50):
        check_secret(secrets.token_urlsafe(number))
        check_secret(secrets.token_hex(number))


@pytest.mark.parametrize("text", ["", "secret", "x" * 15, "a" * 64, "abababababababababab", "123"])
def test_what_is_easy_to_guess_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"too easy to guess.*token_urlsafe") as refused:
        master_key(text)
    assert not text or text not in str(refused.value).replace("secrets", "")


def test_every_secret_has_a_key_of_its_own_the_same_every_time() -> None:
    texts = [secrets.token_urlsafe(32), secrets.token_urlsafe(32), PHRASE]
    keys = [master_key(text) for text in texts]
    assert len(set(keys)) == 3
    assert {len(key) for key in keys} == {32}
    assert master_key(texts[0]) == keys[0]


def test_only_what_is_short_is_made_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Recorder:
        def __init__(self, **named: int) -> None:
            self._bytes = named["n"] * named["r"] * 128

        def derive(self, text: bytes) -> bytes:
            calls.append((text, self._bytes))
            return bytes(32)

    monkeypatch.setattr(secret, "Scrypt", Recorder)
    master_key(secrets.token_urlsafe(32))
    assert not calls
    master_key((PHRASE * 2)[: STRONG_FROM - 1])
    assert calls == [((PHRASE * 2)[: STRONG_FROM - 1].encode(), 32 << 20)]


def test_any_text_can_be_a_secret() -> None:
    assert len(master_key("schlüssel 鍵 \udcff и ещё один")) == 32


def test_a_phrase_stands_for_the_same_key_in_every_release() -> None:
    """Another key would keep programs of different releases apart. Source: hashlib's scrypt."""
    material = hashlib.scrypt(
        PHRASE.encode(),
        salt=b"joinleaf shared secret 1",
        n=1 << 15,
        r=8,
        p=3,
        maxmem=64 << 20,
        dklen=32,
    )
    assert master_key(PHRASE) == hmac.digest(b"joinleaf shared secret 1", material, "sha256")

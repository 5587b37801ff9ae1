"""The text of a session key, and proofs that are of use on one connection, in one role."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.keys.session_key import (
    KEY_CHARACTERS,
    SessionKey,
    answerer_proof,
    asker_proof,
    digest_of,
)

CERTIFICATE = b"any bytes will do"
SECRET = bytes(range(16))
KEY = SessionKey.of_certificate(CERTIFICATE, SECRET)


@given(st.binary(max_size=100), st.binary(min_size=16, max_size=16))
def test_a_key_is_read_as_it_was_written(certificate: bytes, secret: bytes) -> None:
    key = SessionKey.of_certificate(certificate, secret)
    assert SessionKey.parse(key.text) == key
    assert key.names(certificate)
    assert not key.names(certificate + b"x")


def test_its_text_is_short_and_needs_no_quoting_in_a_shell_or_an_address() -> None:
    assert len(KEY.text) == KEY_CHARACTERS == 48
    assert KEY.text.replace("-", "").replace("_", "").isalnum()
    assert KEY.text.startswith("A"), "the version is in front"


def test_every_single_mistyped_character_is_told_from_a_wrong_key() -> None:
    for place in range(KEY_CHARACTERS):
        other = "B" if KEY.text[place] != "B" else "C"
        with pytest.raises(ValueError, match="mistyped"):
            SessionKey.parse(KEY.text[:place] + other + KEY.text[place + 1 :])


def test_two_characters_that_changed_places_are_told_as_well() -> None:
    changed = [
        KEY.text[:at] + KEY.text[at + 1] + KEY.text[at] + KEY.text[at + 2 :]
        for at in range(KEY_CHARACTERS - 1)
        if KEY.text[at] != KEY.text[at + 1]
    ]
    assert len(changed) > 20
    for text in changed:
        with pytest.raises(ValueError, match="mistyped"):
            SessionKey.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (KEY.text[:-1], "47: copy the join line whole"),
        (KEY.text + "A", "49"),
        ("", "0"),
        ("A" * 47 + "!", "letters, digits"),
        ("A" * 47 + "é", "letters, digits"),
        ("A" * 47 + "+", "letters, digits"),
        ("A" * 46 + "==", "letters, digits"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_without_showing_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        SessionKey.parse(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_of_a_newer_version_is_told_from_a_mistyped_one() -> None:
    body = b"\2" + bytes(32)
    check = hashlib.sha256(b"joinleaf session key checksum" + body).digest()[:3]
    with pytest.raises(ValueError, match="version 2: a newer joinleaf"):
        SessionKey.parse(base64.urlsafe_b64encode(body + check).decode())


def test_the_secret_is_not_in_what_a_log_would_show() -> None:
    shown = f"{KEY!r} {KEY} {(KEY,)}"
    for secret in (SECRET.hex(), repr(SECRET), KEY.text):
        assert secret not in shown


def test_only_whole_fingerprints_and_secrets_make_a_key() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        SessionKey(bytes(15), bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        SessionKey(bytes(16), bytes(32))


def test_a_proof_holds_for_one_role_secret_certificate_and_pair_of_nonces() -> None:
    values: list[tuple[bytes, ...]] = [
        (SECRET, bytes(16)),
        (digest_of(b"one"), digest_of(b"two")),
        (b"c" * 32, b"d" * 32),
        (b"n" * 32, b"m" * 32),
    ]
    proofs = [
        proof(*parts)
        for proof in (asker_proof, answerer_proof)
        for parts in itertools.product(*values)
    ]
    # Swapping the nonces is another proof too: who is who is part of it.
    proofs.append(asker_proof(SECRET, digest_of(b"one"), b"n" * 32, b"c" * 32))
    assert len(set(proofs)) == len(proofs) == 33
    assert {len(proof) for proof in proofs} == {32}

"""The exchange of proofs: who knows the secret gets through, and nobody else by any other way."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joinleaf.core.keys import gates, session_key
from joinleaf.core.keys.gates import AnswererGate, AskerGate
from joinleaf.core.wire.frames import FrameReader, Kind
from joinleaf.errors import RemoteProtocolError

SECRET, OTHER = b"s" * 16, b"t" * 16
DIGEST = session_key.digest_of(b"certificate")


def body(frame: bytes | None, kind: Kind) -> bytes:
    """Of the one frame that this must be."""
    assert frame is not None
    [found] = [
        (one.kind, bytes(one.body)) for one in FrameReader(memoryview(bytearray(1000))).feed(frame)
    ]
    assert found[0] == kind
    return found[1]


def pair(secret: bytes = SECRET, digest: bytes = DIGEST) -> tuple[AskerGate, AnswererGate]:
    """An asker with these, and an answerer with the true ones."""
    return AskerGate(secret, digest, b"n" * 32), AnswererGate(SECRET, DIGEST, b"c" * 32)


def test_both_prove_and_both_are_let_in() -> None:
    asker, answerer = pair()
    proof = body(asker.challenged(body(answerer.challenge(), Kind.CHALLENGE)), Kind.PROOF)
    assert not asker.proved
    assert not answerer.proved
    assert asker.proof(body(answerer.proof(proof), Kind.PROOF))
    assert asker.proved
    assert answerer.proved


@pytest.mark.parametrize(
    ("secret", "digest"),
    [(OTHER, DIGEST), (SECRET, session_key.digest_of(b"of a man in the middle"))],
)
def test_another_secret_or_another_certificate_is_not_let_in(secret: bytes, digest: bytes) -> None:
    asker, answerer = pair(secret, digest)
    proof = body(asker.challenged(body(answerer.challenge(), Kind.CHALLENGE)), Kind.PROOF)
    assert answerer.proof(proof) is None
    assert not answerer.proved


def test_a_proof_of_one_connection_is_of_no_use_on_another() -> None:
    asker, first = pair()
    proof = body(asker.challenged(body(first.challenge(), Kind.CHALLENGE)), Kind.PROOF)
    assert first.proof(proof) is not None
    second = AnswererGate(SECRET, DIGEST, b"d" * 32)
    assert second.proof(proof) is None


def test_a_proof_thrown_back_at_its_sender_is_of_no_use() -> None:
    asker, answerer = pair()
    proof = body(asker.challenged(body(answerer.challenge(), Kind.CHALLENGE)), Kind.PROOF)
    assert not asker.proof(proof[32:])


def test_an_answerer_that_does_not_know_the_secret_is_found_out() -> None:
    asker = AskerGate(SECRET, DIGEST, b"n" * 32)
    liar = AnswererGate(OTHER, DIGEST, b"c" * 32)
    asker.challenged(body(liar.challenge(), Kind.CHALLENGE))
    false = session_key.answerer_proof(OTHER, DIGEST, b"c" * 32, b"n" * 32)
    assert not asker.proof(false)
    assert not asker.proved


def test_what_comes_out_of_turn_is_a_breach() -> None:
    asker, answerer = pair()
    with pytest.raises(RemoteProtocolError):
        asker.proof(bytes(32))
    challenge = body(answerer.challenge(), Kind.CHALLENGE)
    proof = body(asker.challenged(challenge), Kind.PROOF)
    with pytest.raises(RemoteProtocolError, match="second"):
        asker.challenged(challenge)
    back = body(answerer.proof(proof), Kind.PROOF)
    with pytest.raises(RemoteProtocolError):
        answerer.proof(proof)
    assert asker.proof(back)
    with pytest.raises(RemoteProtocolError):
        asker.proof(back)


def test_a_challenge_by_a_method_of_the_future_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match="method 9"):
        pair()[0].challenged(b"\x09" + bytes(32))


@given(st.binary(max_size=200))
def test_no_other_bytes_open_a_gate(anything: bytes) -> None:
    for gate in pair():
        if isinstance(gate, AskerGate):
            gate.challenged(b"\1" + bytes(32))
        try:
            opened = gate.proof(anything)
        except RemoteProtocolError:
            opened = False
        assert not opened
        assert not gate.proved


def test_secrets_are_compared_in_a_time_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[Any, Any]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return one == other  # type: ignore[no-any-return]  # bytes, both

    monkeypatch.setattr(hmac, "compare_digest", compare)
    asker, answerer = pair()
    proof = body(asker.challenged(body(answerer.challenge(), Kind.CHALLENGE)), Kind.PROOF)
    asker.proof(body(answerer.proof(proof), Kind.PROOF))
    session_key.SessionKey(DIGEST[:16], SECRET).names(b"certificate")
    assert [len(one) for one, _ in compared] == [32, 32, 16]
    assert gates.SESSION_KEY == "session key"

"""The gate before a leg: with a session key, nothing else is heard until the key is proved.

One gate for each connection and side. It is handed frames' bodies and gives frames back; it knows
no socket, no clock and no randomness. See ``session_key.py`` for what is exchanged and why.
"""

from __future__ import annotations

from typing import Final

from joinleaf.core.keys.session_key import (
    NONCE_BYTES,
    PROOF_BYTES,
    answerer_proof,
    asker_proof,
    is_proof,
)
from joinleaf.core.wire.frames import Kind, control_frame
from joinleaf.errors import RemoteProtocolError

__all__ = ["SESSION_KEY", "AnswererGate", "AskerGate", "Gate"]

SESSION_KEY: Final = "session key"
"""The identity of a peer that has proved it."""

_METHOD: Final = 1
"""Of proving; a CHALLENGE names it."""


class AnswererGate:
    """On the side that was connected to: challenges, and lets in who knows the secret.

    Args:
        secret: The session key's.
        digest: Of this end's certificate, 32 bytes.
        nonce: 32 bytes drawn for this connection.

    Attributes:
        proved: Whether the peer has shown that it knows the secret.
    """

    __slots__ = ("_digest", "_nonce", "_secret", "proved")

    def __init__(self, secret: bytes, digest: bytes, nonce: bytes) -> None:
        self._secret = secret
        self._digest = digest
        self._nonce = nonce
        self.proved = False

    def challenge(self) -> bytes:
        """The first frame of this side."""
        return control_frame(Kind.CHALLENGE, bytes((_METHOD,)) + self._nonce)

    def proof(self, body: bytes) -> bytes | None:
        """Judge a PROOF; gives this side's own in return, or None: the secret is another.

        Raises:
            RemoteProtocolError: It has not the form of one, or it is a second one.
        """
        if self.proved or len(body) != NONCE_BYTES + PROOF_BYTES:
            raise RemoteProtocolError("a proof that was not asked for, or of the wrong length")
        nonce, shown = body[:NONCE_BYTES], body[NONCE_BYTES:]
        if not is_proof(shown, asker_proof(self._secret, self._digest, self._nonce, nonce)):
            return None
        self.proved = True
        mine = answerer_proof(self._secret, self._digest, self._nonce, nonce)
        return control_frame(Kind.PROOF, mine)


class AskerGate:
    """On the side that connected; arguments as there, but the digest is of the peer's certificate.

    Attributes:
        proved: Whether the peer has shown that it knows the secret.
    """

    __slots__ = ("_challenge", "_digest", "_nonce", "_secret", "proved")

    def __init__(self, secret: bytes, digest: bytes, nonce: bytes) -> None:
        self._secret = secret
        self._digest = digest
        self._nonce = nonce
        self._challenge = b""
        self.proved = False

    def challenged(self, body: bytes) -> bytes:
        """Answer a CHALLENGE; gives the PROOF.

        Raises:
            RemoteProtocolError: It has not the form of one, or it is a second one.
        """
        if self._challenge or len(body) != 1 + NONCE_BYTES:
            raise RemoteProtocolError("a challenge of the wrong length, or a second one")
        if body[0] != _METHOD:
            raise RemoteProtocolError(f"a challenge by method {body[0]}, which is a newer one's")
        self._challenge = body[1:]
        shown = asker_proof(self._secret, self._digest, self._challenge, self._nonce)
        return control_frame(Kind.PROOF, self._nonce + shown)

    def proof(self, body: bytes) -> bool:
        """Judge the peer's own PROOF; False: it does not know the secret.

        Raises:
            RemoteProtocolError: Before the challenge, a second one, or of the wrong length.
        """
        if self.proved or not self._challenge or len(body) != PROOF_BYTES:
            raise RemoteProtocolError("a proof that was not asked for, or of the wrong length")
        expected = answerer_proof(self._secret, self._digest, self._challenge, self._nonce)
        self.proved = is_proof(body, expected)
        return self.proved


Gate = AnswererGate | AskerGate

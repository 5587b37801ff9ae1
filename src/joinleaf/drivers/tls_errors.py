"""What went wrong with TLS, as one sentence and a way out."""

from __future__ import annotations

import errno
import ssl
from typing import Final

__all__ = ["TlsError", "broke_off", "expired_session", "explained", "not_tls", "unproved"]


class TlsError(OSError):
    """The connection cannot be encrypted, or the peer is not who it should be.

    Attributes:
        hint: The way out, as a sentence; part of no other text.
    """

    def __init__(self, message: str, hint: str = "", number: int = errno.EACCES) -> None:
        super().__init__(number, message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The sentence without the number."""
        return str(self.strerror)


_LINE: Final = "Copy the join line that the root prints now"
_SHOW: Final = "Give cert= and key= (--cert, --key), signed by the authority that it trusts"
_TRUST: Final = (
    "Give the root's join line with its key (jls://host:port/#...), or the authority's certificate "
    "as ca= (--ca)"
)

_VERIFY: Final[dict[int, tuple[str, str]]] = {
    # X509_V_ERR_* of OpenSSL; the numbers are part of its interface.
    9: ("the certificate of {peer} is not valid yet", "Check the clocks of both hosts"),
    10: ("the certificate of {peer} has expired", "Have it issued again: joinleaf keys"),
    18: ("the certificate of {peer} is vouched for by nobody but itself", _TRUST),
    19: ("the certificate of {peer} is of an authority that is not trusted here", _TRUST),
    20: ("the certificate of {peer} is of an authority that is not trusted here", _TRUST),
    21: ("the certificate of {peer} is of an authority that is not trusted here", _TRUST),
    26: (
        "the certificate of {peer} is not for this use",
        "Who is connected to needs a certificate made without --leaf: joinleaf keys NAME",
    ),
    62: (
        "the certificate of {peer} is for another name",
        "Join by a name or address in it, or issue one for this: joinleaf keys NAME",
    ),
    64: (
        "the certificate of {peer} is for another address",
        "Join by a name or address in it, or issue one for this: joinleaf keys NAME",
    ),
}

_ALERTS: Final[dict[str, tuple[str, str]]] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("{peer} asks for a certificate", _SHOW),
    "TLSV1_ALERT_UNKNOWN_CA": ("{peer} does not trust the certificate of this end", _SHOW),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("{peer} does not trust the certificate of this end", _SHOW),
    "TLSV1_ALERT_DECRYPT_ERROR": ("{peer} does not trust the certificate of this end", _SHOW),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (
        "the certificate of this end is not for this use, says {peer}",
        _SHOW,
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "{peer} says that the certificate of this end has expired",
        "Have it issued again: joinleaf keys",
    ),
    "TLSV1_ALERT_ACCESS_DENIED": (
        "{peer} does not hear this address for now: too many wrong keys came from it",
        "Wait a minute, and copy the join line again",
    ),
    "TLSV1_ALERT_PROTOCOL_VERSION": (
        "{peer} and this end have no version of TLS in common",
        "Both need TLS 1.3; a session without TLS is joined as jl://",
    ),
}

_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def explained(error: ssl.SSLError, peer: str) -> TlsError:
    """An error of ssl in words; the original is for ``__cause__``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFY.get(error.verify_code)
        text, hint = known or ("the certificate of {peer} does not hold: " + _words(error), _TRUST)
        return TlsError(text.format(peer=peer), hint)
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return not_tls(peer)
    if reason in _ALERTS:
        text, hint = _ALERTS[reason]
        return TlsError(text.format(peer=peer), hint)
    if isinstance(error, ssl.SSLEOFError):
        return TlsError(f"{peer} broke off", number=errno.ECONNABORTED)
    text = f"the encrypted connection with {peer} failed: {_words(error)}"
    return TlsError(text, number=errno.ECONNABORTED)


def _words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def not_tls(peer: str) -> TlsError:
    """Something answers that does not speak TLS."""
    return TlsError(
        f"{peer} does not speak TLS",
        "If it is a session without encryption, join it as jl://host:port",
        errno.ECONNREFUSED,
    )


def broke_off(peer: str) -> TlsError:
    """The connection ended while it was being made safe."""
    return TlsError(
        f"{peer} broke off while the connection was being encrypted",
        "If it is a session without encryption, join it as jl://host:port; "
        "else the log of the root says why",
        errno.ECONNABORTED,
    )


def unproved(peer: str) -> TlsError:
    """The certificate is not the one that the session key names."""
    return TlsError(
        f"{peer} shows another certificate than the session key names: the key is of another "
        "session or of an earlier start of its root, or somebody stands in between",
        _LINE,
    )


def expired_session(peer: str, when: str) -> TlsError:
    """The self-made certificate of a session key is too old."""
    return TlsError(f"the session key of {peer} expired on {when}", f"Restart the root. {_LINE}")

"""Whom an endpoint trusts and what it shows: TLS contexts from a session key or from files.

The side that is connected to is the server of TLS, be it a root or a leaf that waits for
invitations. Without files it makes a certificate and a session key for itself, which its join line
carries. The side that connects has that line's key, which names the one certificate it takes; or
it verifies the certificate by an authority, as a browser does.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from typing import Final

from joinleaf.core.keys.gates import AnswererGate, AskerGate, Gate
from joinleaf.core.keys.session_key import NONCE_BYTES, SECRET_BYTES, SessionKey, digest_of
from joinleaf.drivers.certificates import expiry_of, session_credential
from joinleaf.drivers.connections import Connection
from joinleaf.drivers.tls_connection import TlsConnection, TlsPeer
from joinleaf.drivers.tls_errors import expired_session, explained, unproved
from joinleaf.errors import SpiError
from joinleaf.spi.codes import WSAEINVAL
from joinleaf.spi.provider import Trust
from joinleaf.values import Address, KeyedAddress

__all__ = ["TlsSide", "asking", "parse_key"]

_log: Final = logging.getLogger("joinleaf")


class TlsSide:
    """One endpoint's; see the module.

    Args:
        trust: Files or a context of the user's; None: a session key.
        key: The session key for whomever is connected to, unless its address has its own.
    """

    secures = True

    def __init__(self, trust: Trust | None, key: str = "") -> None:
        self._trust = trust or Trust()
        self._key = key
        self._server: tuple[ssl.SSLContext, TlsPeer] | None = None
        self._clients: dict[bool, ssl.SSLContext] = {}
        self._session_key: SessionKey | None = None

    @property
    def key_text(self) -> str:
        """The session key that a join line has to carry; ``""`` with certificates from files."""
        return "" if self._session_key is None else self._session_key.text

    @property
    def asks_proof(self) -> bool:
        """The session key, or a certificate where the context wants one."""
        if self._server is None:
            return False
        return bool(self.key_text) or self._server[0].verify_mode is ssl.CERT_REQUIRED

    def listen(self) -> None:
        """Get ready to be connected to; once is enough.

        Raises:
            SpiError: The files cannot be read, or are no certificate with its key.
        """
        if self._server is not None:
            return
        if self._trust.context is not None:
            context = _usable(self._trust.context, server=True)
            self._server = context, _Certified()
        elif self._trust.cert:
            self._server = _server_from_files(self._trust), _Certified()
        elif self._trust.ca:
            raise SpiError(
                WSAEINVAL,
                "an authority for certificates of leaves is given, and none for this end",
                call="open",
                hint="Give cert= and key= (--cert, --key) as well: joinleaf keys makes them",
            )
        else:
            self._server = self._with_session_key()

    def _with_session_key(self) -> tuple[ssl.SSLContext, TlsPeer]:
        credential = session_credential()
        context = _new_context(server=True)
        with credential.as_file() as path:
            context.load_cert_chain(path)
        secret = os.urandom(SECRET_BYTES)
        self._session_key = SessionKey.of_certificate(credential.der, secret)
        return context, _KeyHolder(secret, digest_of(credential.der))

    def accepted(self, sock: socket.socket, peer: Address, *, heard: bool) -> Connection:
        """Of a socket that somebody has connected to."""
        assert self._server is not None
        context, judge = self._server
        connection = TlsConnection(sock, context, judge, str(peer), accepted=True)
        if not heard:
            connection.turn_away()
        return connection

    def connecting(self, address: Address) -> Callable[[socket.socket], Connection]:
        """What makes connections of sockets that are being connected to this address.

        Raises:
            SpiError: The key or the files are unusable.
        """
        text = address.key if isinstance(address, KeyedAddress) else self._key
        named = str(address)
        if text:
            judge: TlsPeer = _Pinned(parse_key(text), named)
            context = self._client(verifies=False)
            return lambda sock: TlsConnection(sock, context, judge, named)
        certified = _Certified()
        verifying = self._client(verifies=True)
        return lambda sock: TlsConnection(sock, verifying, certified, named, host=address.host)

    def _client(self, *, verifies: bool) -> ssl.SSLContext:
        if self._trust.context is not None and verifies:
            return _usable(self._trust.context, server=False)
        context = self._clients.get(verifies)
        if context is None:
            context = self._clients[verifies] = _client_from_files(self._trust, verifies=verifies)
        return context


def parse_key(text: str) -> SessionKey:
    """A session key from an address; SpiError if it is none."""
    try:
        return SessionKey.parse(text)
    except ValueError as error:
        raise SpiError(WSAEINVAL, str(error), call="join_leaf") from error


def asking(
    sock: socket.socket, address: Address, trust: Trust | None, key: str
) -> tuple[ssl.SSLSocket, AskerGate | None]:
    """TLS over a blocking socket, for one question to a root on this host.

    Args:
        sock: Connected; the result takes it over.
        address: Where to, for errors.
        trust: A certificate to show, and whom to believe; without an authority any certificate is
            taken, as nobody else listens at an address of this host.
        key: The session key; ``""``: none.

    Returns:
        The socket, and how to prove the key.

    Raises:
        SpiError: The key is none.
        OSError: The other end is not who it should be, or speaks no TLS.
    """
    chosen = trust or Trust()
    verifies = bool(chosen.ca) and not key
    judge = _Pinned(parse_key(key), str(address)) if key else None
    context = _client_from_files(chosen, verifies=verifies)
    try:
        tls = context.wrap_socket(sock, server_hostname=address.host if verifies else None)
        gate = judge.check(tls)[1] if judge is not None else None
    except ssl.SSLError as error:
        raise explained(error, str(address)) from error
    assert gate is None or isinstance(gate, AskerGate)
    return tls, gate


# Who is at the other end


class _KeyHolder:
    """This end has made a session key: whoever connects has to prove it."""

    def __init__(self, secret: bytes, digest: bytes) -> None:
        self._secret = secret
        self._digest = digest

    def check(self, tls: ssl.SSLObject) -> tuple[str, Gate | None]:
        """Nothing is known of a client yet."""
        return "", AnswererGate(self._secret, self._digest, os.urandom(NONCE_BYTES))


class _Pinned:
    """The other end is the one that the session key names, or nobody."""

    def __init__(self, key: SessionKey, named: str) -> None:
        self._key = key
        self._named = named

    def check(self, tls: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, Gate | None]:
        """By its certificate, whose key it has used in the handshake."""
        certificate = tls.getpeercert(binary_form=True) or b""
        if not self._key.names(certificate):
            raise unproved(self._named)
        expiry = expiry_of(certificate)
        if expiry < datetime.datetime.now(datetime.UTC):
            raise expired_session(self._named, f"{expiry:%Y-%m-%d}")
        digest = digest_of(certificate)
        return "", AskerGate(self._key.secret, digest, os.urandom(NONCE_BYTES))


class _Certified:
    """The context has verified the other end, as far as it was told to."""

    def check(self, tls: ssl.SSLObject) -> tuple[str, Gate | None]:
        """Whom its certificate names."""
        return _identity(tls.getpeercert()), None


def _identity(certificate: object) -> str:
    """The first alternative name of a verified certificate, else its common name, else ``""``."""
    if not isinstance(certificate, dict) or not certificate:
        return ""
    names = [value for kind, value in certificate.get("subjectAltName", ())]
    names += [
        value
        for part in certificate.get("subject", ())
        for kind, value in part
        if kind == "commonName"
    ]
    return str(names[0])[:255] if names else "a certificate without a name"


# Contexts


def _new_context(*, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server:
        # Legs are not resumed; a ticket would let who was expelled come back without a certificate.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _server_from_files(trust: Trust) -> ssl.SSLContext:
    context = _new_context(server=True)
    _load_own(context, trust)
    if trust.ca:
        _load_authority(context, trust.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _client_from_files(trust: Trust, *, verifies: bool) -> ssl.SSLContext:
    context = _new_context(server=False)
    if trust.cert:
        _load_own(context, trust)
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.ca:
        _load_authority(context, trust.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _usable(context: ssl.SSLContext, *, server: bool) -> ssl.SSLContext:
    wrong = ssl.PROTOCOL_TLS_CLIENT if server else ssl.PROTOCOL_TLS_SERVER
    if context.protocol == wrong:
        end, fit = ("root", "SERVER") if server else ("joiner", "CLIENT")
        raise SpiError(
            WSAEINVAL,
            f"ssl_context is not for this end: a {end} needs one of ssl.PROTOCOL_TLS_{fit}",
            call="open",
        )
    return context


def _load_own(context: ssl.SSLContext, trust: Trust) -> None:
    key = trust.key or trust.cert
    with _explaining(f"{trust.cert} and {key} are no certificate with its private key"):
        _warn_if_open_to_others(key)
        context.load_cert_chain(trust.cert, trust.key or None, _no_password)


def _load_authority(context: ssl.SSLContext, path: str) -> None:
    with _explaining(f"{path} is no certificate of an authority"):
        context.load_verify_locations(path)


@contextlib.contextmanager
def _explaining(wrong: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise SpiError(WSAEINVAL, f"{wrong}: {error.reason or error}", call="open") from error
    except _EncryptedKeyError as error:
        raise SpiError(WSAEINVAL, str(error), call="open") from error
    except OSError as error:
        what = f"cannot read {error.filename}" if error.filename else wrong
        hint = "Check the path, and who may read the file"
        message = f"{what}: {error.strerror or error}"
        raise SpiError(WSAEINVAL, message, call="open", hint=hint) from error


class _EncryptedKeyError(Exception):
    """A private key wants a password."""


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, in the middle of whatever runs there.
    raise _EncryptedKeyError(
        "the private key is encrypted: give ssl_context= with it loaded, or a key without password"
    )


def _warn_if_open_to_others(path: str) -> None:
    mode = os.stat(path).st_mode
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("%s can be read or changed by other users: chmod 600 %s", path, path)

"""Certificates: the self-made one of a session key, and a small authority of one's own.

The library *cryptography* makes them, the standard library's ssl uses them. Keys are on the curve
P-256: made in a moment, a hundred bytes long, and known to every TLS library.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "SESSION_DAYS",
    "Authority",
    "Credential",
    "expiry_of",
    "session_credential",
    "write_private",
]

SESSION_DAYS: Final = 30
"""A join line that leaked is of no use after this long. A root that is to run for longer has a
certificate from files, or is started again."""

_BACKDATED: Final = datetime.timedelta(days=1)
"""Clocks differ; a certificate made just now must not be of tomorrow somewhere else."""

_PRIVATE_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_SERIAL_BITS: Final = 159
"""RFC 5280, 4.1.2.2: at most 20 octets, and positive."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key.

    Attributes:
        certificate: The certificate, then those that vouch for it, as PEM.
        key: PKCS #8 as PEM, not encrypted; never logged.
    """

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate itself, as it travels."""
        return x509.load_pem_x509_certificate(self.certificate).public_bytes(
            serialization.Encoding.DER
        )

    @contextmanager
    def as_file(self) -> Iterator[str]:
        """A path to both for as long as the block runs: ssl loads from files only.

        On Linux it is memory without a name; elsewhere a file for the owner only, removed again.
        """
        text = self.certificate + self.key
        if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
            descriptor = os.memfd_create("joinleaf", os.MFD_CLOEXEC)
            try:
                os.write(descriptor, text)
                yield f"/proc/self/fd/{descriptor}"
            finally:
                os.close(descriptor)
            return
        descriptor, name = tempfile.mkstemp(prefix="joinleaf-")  # mode 0600
        try:
            os.write(descriptor, text)
            os.close(descriptor)
            yield name
        finally:
            os.unlink(name)


def session_credential(now: datetime.datetime | None = None) -> Credential:
    """A fresh certificate that vouches for itself, good for ``SESSION_DAYS``.

    Args:
        now: Aware; None: the present time.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("joinleaf session")
    builder = _builder(name, name, key.public_key(), SESSION_DAYS, now).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    return Credential(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def expiry_of(certificate: bytes) -> datetime.datetime:
    """When a certificate (DER) expires, aware; ValueError if it is none."""
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc


class Authority:
    """Signs certificates for roots and leaves of one owner.

    Args:
        credential: Its own certificate and key.

    Raises:
        ValueError: That is no certificate of an authority, or the key is another's.
    """

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self._certificate = x509.load_pem_x509_certificate(credential.certificate)
        key = serialization.load_pem_private_key(credential.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is not on an elliptic curve")  # noqa: TRY004  # a wrong file, not a wrong type
        if key.public_key() != self._certificate.public_key():
            raise ValueError("the authority's certificate and key do not belong together")
        constraints = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        if not constraints.value.ca:
            raise ValueError("that certificate is not an authority's")
        self._key = key

    @classmethod
    def create(cls, name: str, days: int, now: datetime.datetime | None = None) -> Authority:
        """A new one: ``name`` is shown in messages, ``days`` is how long it lasts."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(name), _name(name), key.public_key(), days, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        return cls(Credential(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key)))

    def issue(
        self,
        names: Sequence[str],
        days: int,
        *,
        server: bool,
        now: datetime.datetime | None = None,
    ) -> Credential:
        """A certificate with its key.

        Args:
            names: Host names and addresses it is for, at least one; the first is also its subject.
            days: How long it lasts, but no longer than the authority.
            server: Whether it may be shown by who is connected to (a root, a leaf that waits for
                invitations), or only by who connects.
            now: Aware; None: the present time.

        Raises:
            ValueError: No name, an impossible one, or less than a day.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        end = self._certificate.not_valid_after_utc
        subject = _name(names[0][:64] if names else "")
        issuer = self._certificate.subject
        builder = (
            _builder(subject, issuer, key.public_key(), days, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return Credential(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


def write_private(path: Path, credential: Credential, key_path: Path) -> None:
    """Write certificate and key; the key can be read by its owner only, from its first byte on.

    Raises:
        FileExistsError: One of the files is there. Nothing has been written over.
    """
    _write_new(key_path, credential.key, _PRIVATE_MODE)
    try:
        _write_new(path, credential.certificate, _PUBLIC_MODE)
    except BaseException:
        key_path.unlink()
        raise


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime.datetime | None,
    end: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    if days < 1:
        raise ValueError("a certificate lasts a day at least")
    now = now or datetime.datetime.now(datetime.UTC)
    last = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int.from_bytes(os.urandom(20), "big") >> (160 - _SERIAL_BITS))
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(last if end is None else min(last, end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    if not 1 <= len(common) <= 64:  # RFC 5280, ub-common-name
        raise ValueError(f"a certificate's name has 1 to 64 characters, not {len(common)}")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

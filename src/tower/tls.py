"""A local certificate authority for `tower up --tls` where no certificate is given.

Two files that clients may read lie in `$TOWER_HOME/tls`: `ca.pem` and `server.pem`; the two keys beside
them are readable by the owner only. The server certificate is renewed at start when it is near its end or
lacks a name.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a TLS listener needs, and the authority that clients must trust (None: a given certificate)."""

    chain: Path
    key: Path
    authority: Path | None


def local(directory: Path, *, names: tuple[str, ...], now: float) -> Certificate:
    """The local authority's certificate for `names` (host names, wildcards, addresses), made when needed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Certificate(directory / "ca.pem", directory / "ca.key", None)
    server = Certificate(directory / "server.pem", directory / "server.key", authority.chain)
    moment = datetime.fromtimestamp(now, UTC)
    if not (authority.chain.exists() and authority.key.exists()):
        _write_authority(authority, moment)
        server.chain.unlink(missing_ok=True)
    if not _still_good(server, names, moment):
        _write_server(server, authority, names, moment)
    return server


def trust(directory: Path, authority: Path) -> Path:
    """A file of the certificates that this machine trusts, and of the local authority."""
    known = ssl.get_default_verify_paths().cafile
    own = authority.read_bytes()
    path = directory / "trust.pem"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes((Path(known).read_bytes() + b"\n" if known else b"") + own)
    os.replace(draft, path)
    return path


def _write_authority(files: Certificate, moment: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Tower local CA {x509.random_serial_number():x}"[:60])]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(minutes=5))
        .not_valid_after(moment + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(files.key, key)
    _write(files.chain, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write_server(files: Certificate, by: Certificate, names: tuple[str, ...], moment: datetime) -> None:
    authority = x509.load_pem_x509_certificate(by.chain.read_bytes())
    signer = serialization.load_pem_private_key(by.key.read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tower")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(minutes=5))
        .not_valid_after(moment + SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    _write_key(files.key, key)
    _write(files.chain, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _still_good(files: Certificate, names: tuple[str, ...], moment: datetime) -> bool:
    if not (files.chain.exists() and files.key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.chain.read_bytes())
    if certificate.not_valid_after_utc < moment + RENEW_BEFORE:
        return False
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return all(_general_name(name) in list(present) for name in names)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, encoded, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)

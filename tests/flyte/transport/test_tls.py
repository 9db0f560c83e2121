from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flyteidl2.auth import identity_pb2
from tests.flyte.plane import Plane, serving

from flyte import _init, errors
from flyte.transport.session import Session

ME = "/flyteidl2.auth.IdentityService/UserInfo"
pytestmark = pytest.mark.usefixtures("bare")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Plane, Path]]:
    plane = Plane()
    plane.on(ME, lambda seen: identity_pb2.UserInfoResponse(subject=seen.header("authorization") or ""))
    certificate, private = self_signed(tmp_path)
    with serving(plane, certificate=(certificate, private)) as place:
        plane.url = place
        yield plane, certificate


async def ask(session: Session) -> str:
    answer = await session.unary(
        ME, identity_pb2.UserInfoRequest(), identity_pb2.UserInfoResponse, idempotent=True
    )
    await session.aclose()
    return str(answer.subject)


async def test_a_private_authority_is_trusted_when_it_is_named(secured: tuple[Plane, Path]) -> None:
    plane, certificate = secured
    session = _init.open_session(endpoint=plane.url, api_key="k", ca_file=str(certificate))
    assert session.endpoint.scheme == "https"
    assert await ask(session) == "Bearer k"


async def test_ssl_cert_file_is_honoured(secured: tuple[Plane, Path], bare: pytest.MonkeyPatch) -> None:
    plane, certificate = secured
    bare.setenv("SSL_CERT_FILE", str(certificate))
    assert await ask(_init.open_session(endpoint=plane.url, api_key="k")) == "Bearer k"


async def test_an_unknown_authority_gets_no_credential(secured: tuple[Plane, Path]) -> None:
    plane, _ = secured
    with pytest.raises(errors.ServerError, match="ca_file"):
        await ask(_init.open_session(endpoint=plane.url, api_key="k"))
    assert plane.seen == []


async def test_plain_http_where_tls_is_meant_is_explained(plane: Plane) -> None:
    session = _init.open_session(endpoint=plane.url.removeprefix("http://"), api_key="k")
    with pytest.raises(errors.ServerError, match="insecure=True"):
        await ask(session)
    assert plane.seen == []


async def test_a_ca_file_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    session = _init.open_session(endpoint="h.example", api_key="k", ca_file=str(tmp_path / "absent.pem"))
    with pytest.raises(errors.InitializationError, match="absent"):
        await ask(session)

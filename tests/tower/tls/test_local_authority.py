"""The local authority: a client that trusts ca.pem accepts the server, and the keys are private."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from tower import tls

NAMES = ("localhost", "*.apps.localhost", "127.0.0.1")
DAY = 86400.0


def _handshake(certificate: tls.Certificate, trusted: Path, name: str) -> str | None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate.chain, certificate.key)
    client_side = ssl.create_default_context(cafile=trusted)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(back, there, server_hostname=name)
    under_way = [client, server_side.wrap_bio(there, back, server_side=True)]
    while under_way:
        side = under_way.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            under_way.append(side)
    return client.version()


@pytest.mark.parametrize("name", ["localhost", "webhook.apps.localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_authority_accepts_every_name(tmp_path: Path, name: str) -> None:
    certificate = tls.local(tmp_path / "tls", names=NAMES, now=time.time())
    assert certificate.authority is not None
    assert _handshake(certificate, certificate.authority, name)


def test_another_installations_authority_is_not_trusted(tmp_path: Path) -> None:
    mine = tls.local(tmp_path / "mine", names=NAMES, now=time.time())
    other = tls.local(tmp_path / "other", names=NAMES, now=time.time())
    assert other.authority is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(mine, other.authority, "localhost")


def test_the_keys_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    certificate = tls.local(tmp_path / "tls", names=NAMES, now=time.time())
    assert certificate.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_second_start_keeps_the_certificate_and_a_late_one_renews_it(tmp_path: Path) -> None:
    now = time.time()
    first = tls.local(tmp_path, names=NAMES, now=now).chain.read_bytes()
    assert tls.local(tmp_path, names=NAMES, now=now + DAY).chain.read_bytes() == first
    authority = (tmp_path / "ca.pem").read_bytes()
    assert tls.local(tmp_path, names=NAMES, now=now + 380 * DAY).chain.read_bytes() != first
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_a_new_host_name_renews_the_certificate(tmp_path: Path) -> None:
    now = time.time()
    first = tls.local(tmp_path, names=NAMES, now=now).chain.read_bytes()
    assert tls.local(tmp_path, names=(*NAMES, "tower.example"), now=now).chain.read_bytes() != first

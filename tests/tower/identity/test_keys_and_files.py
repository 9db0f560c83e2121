"""The texts of keys and sessions, and the files that hold secrets."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tower.errors import Broken
from tower.identity import keys, sessions
from tower.identity.signing import SigningKey, write_private


def test_a_key_has_256_bits_and_reads_back_in_both_forms() -> None:
    made = keys.generate()
    assert made.text.startswith("twr_")
    assert len(base64.urlsafe_b64decode(made.secret + "=")) == 32
    assert keys.parse(made.text) == made
    for endpoint in ("tower.example.org", "127.0.0.1:8080", "https://[::1]:8443", ""):
        assert keys.parse(made.wrapped(endpoint=endpoint, org="tower")) == made
    assert made.secret not in repr(made)
    assert len({keys.generate().text for _ in range(100)}) == 100


def test_the_official_sdk_reads_the_wrapped_form() -> None:
    made = keys.generate()
    decoded = base64.b64decode(made.wrapped(endpoint="tower.example.org", org="tower")).decode()
    assert decoded.split(":", 3) == ["tower.example.org", made.id, made.secret, "tower"]


@given(st.text(max_size=300))
def test_other_texts_are_no_keys(text: str) -> None:
    assert keys.parse(text) is None


def test_near_misses_are_no_keys_but_claim_to_be_one() -> None:
    text = keys.generate().text
    for near in (text + "A", text[:-1], text.upper(), text.replace("twr_", "twr-"), f" {text}", f"{text}\n"):
        assert keys.parse(near) is None
    assert keys.claims("twr_anything")
    assert not keys.claims("anything")


def test_a_digest_matches_its_secret_alone() -> None:
    made = keys.generate()
    assert keys.matches(made.secret, keys.digest(made.secret))
    assert not keys.matches(keys.generate().secret, keys.digest(made.secret))
    assert not keys.matches(made.secret, b"")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("hook-p-d.localhost:8080", True),
        ("127.0.0.1:80", True),
        ("127.5.5.5", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("LOCALHOST.", True),
        ("localhost.evil.example", False),
        ("evil-localhost", False),
        ("10.0.0.1:80", False),
        ("tower.example.org", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, expected: bool) -> None:
    assert sessions.loopback(host) is expected


def test_the_cookie_is_closed_to_scripts_and_to_other_hosts() -> None:
    secure = sessions.set_cookie("x", secure=True, max_age=60)
    assert secure.startswith("__Host-tower_session=x; Path=/;")
    for flag in ("HttpOnly", "Secure", "SameSite=Lax"):
        assert flag in secure
    assert "Domain" not in secure
    assert "Secure" not in sessions.set_cookie("x", secure=False, max_age=60)


def test_a_signing_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    made = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path).kid == made.kid
    assert [entry.name for entry in path.parent.iterdir()] == ["signing.pem"]
    assert made.derive("a") != made.derive("b")
    assert made.derive("a") == SigningKey.load_or_create(path).derive("a")


@pytest.mark.parametrize("damage", ["readable", "garbage", "empty", "public", "another-kind"])
def test_a_signing_key_that_cannot_be_trusted_stops_the_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "signing.pem"
    made = SigningKey.load_or_create(path)
    match damage:
        case "readable":
            path.chmod(0o640)
        case "garbage":
            path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
        case "empty":
            path.write_bytes(b"")
        case "public":
            path.write_bytes(made.key.as_pem(private=False))
        case "another-kind":
            from joserfc.jwk import ECKey

            path.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    with pytest.raises(Broken):
        SigningKey.load_or_create(path)


def test_a_private_file_never_replaces_one_and_follows_no_link(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"one")
    with pytest.raises(FileExistsError):
        write_private(path, b"two")
    assert path.read_bytes() == b"one"
    link = tmp_path / "link"
    os.symlink(tmp_path / "elsewhere", link)
    with pytest.raises(FileExistsError):
        write_private(link, b"three")
    assert not (tmp_path / "elsewhere").exists()

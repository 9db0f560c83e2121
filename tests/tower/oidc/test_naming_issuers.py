"""The configuration file of identity providers: what is refused before anything listens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tower.errors import Invalid
from tower.issuers import RoleOfGroup, configured, read, safe_url
from tower.settings import Settings

GOOD = """
[oidc.corp]
issuer = "https://login.example.com/tenant"
client_id = "tower"
client_secret_file = "corp.secret"
audiences = ["https://tower.example.com"]
algorithms = ["ES256"]
groups_claim = "groups"

[oidc.corp.groups]
"All Staff" = "everyone"

[[oidc.corp.roles]]
group = "makers"
role = "contributor"
project = "flytesnacks"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, GOOD))

    assert (found.alias, found.shown, found.subject) == ("corp", "corp", "sub")
    assert found.client_secret_file == tmp_path / "corp.secret"
    assert found.groups == {"All Staff": "everyone"}
    assert found.roles == (RoleOfGroup("makers", "contributor", "flytesnacks", "*"),)


def test_the_home_needs_no_file(tmp_path: Path) -> None:
    assert configured(tmp_path) == ()
    written(tmp_path, GOOD)
    assert [each.alias for each in configured(tmp_path)] == ["corp"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('issuer = "http://login.example.com"', "issuer"),
        ('issuer = "https://user@login.example.com"', "issuer"),
        ('issuer = "https://login.example.com?x=1"', "issuer"),
        ('issuer = "file:///etc/passwd"', "issuer"),
        ('issuer = ""', "issuer"),
        ('algorithms = ["none"]', "algorithms"),
        ('algorithms = ["HS256"]', "algorithms"),
        ('algorithms = ["RS256", "HS256"]', "algorithms"),
        ("algorithms = []", "algorithms"),
        ('audiences = [""]', "audiences"),
        ('audiences = ["tower"]', "audiences"),
        ('audiences = "tower"', "audiences"),
        ('scopes = ["email"]', "scopes"),
        ('scopes = ["openid", "a b"]', "scopes"),
        ('subject = "name"', "subject"),
        ('subject = "email"', "email_domains"),
        ('email_domains = ["@example.com"]', "email_domains"),
        ('client_secret = "x"', "client_secret"),
        ('alias = "x"', "alias"),
        ('roles = [{group = "g"}]', "roles"),
        ("groups = {a = 1}", "groups"),
        ('groups = {a = "b"}', "groups_claim"),
    ],
)
def test_what_cannot_work_or_is_unsafe_is_refused_by_name(tmp_path: Path, line: str, named: str) -> None:
    base = {"issuer": 'issuer = "https://login.example.com"', "client_id": 'client_id = "tower"'}
    base[line.partition(" ")[0]] = line

    with pytest.raises(Invalid, match=named):
        read(written(tmp_path, "[oidc.corp]\n" + "\n".join(base.values())))


@pytest.mark.parametrize(
    "text",
    [
        "[oidc.Corp]\nissuer = 'https://a.example'\nclient_id = 'x'",
        "[oidc.corp]\nclient_id = 'x'",
        "[oidc.corp]\nissuer = 'https://a.example'",
        "[other]\nx = 1",
        "oidc = 1",
        "[oidc",
        "[oidc.a]\nissuer='https://a.example'\nclient_id='x'\n[oidc.b]\nissuer='https://a.example'\nclient_id='x'",
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid):
        read(written(tmp_path, text))


def test_settings_check_their_issuers(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, GOOD))

    Settings(home=tmp_path, issuers=(found,)).validate()
    with pytest.raises(Invalid):
        Settings(home=tmp_path, issuers=(found, found)).validate()


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, GOOD))
    path = tmp_path / "corp.secret"
    with pytest.raises(Invalid, match="cannot be read"):
        found.client_secret()
    path.write_text("secret\n")
    os.chmod(path, 0o640)
    with pytest.raises(Invalid, match="chmod 600"):
        found.client_secret()
    os.chmod(path, 0o600)
    assert found.client_secret() == "secret"


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:8", True),
        ("http://[::1]:8/x", True),
        ("http://localhost/x", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://10.0.0.1", False),
        ("https://a b", False),
        ("https://", False),
        ("https://a:b@c", False),
        ("https://a:99999", False),
        ("ftp://127.0.0.1", False),
    ],
)
def test_secrets_go_over_tls_or_stay_on_this_machine(url: str, safe: bool) -> None:
    assert safe_url(url) is safe

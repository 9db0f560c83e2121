"""A Tower that is reached by another name than the one it listens on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.tower_process import BIN, Tower, clean_environment

from tower.errors import Invalid
from tower.main.proxy import BehindProxy
from tower.settings import Settings

PUBLIC = "https://tower.example.org"


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"host": "0.0.0.0"}, "--tls"),
        ({"host": "192.0.2.7"}, "--behind-proxy"),
        ({"host": "tower.lan"}, "--tls"),
        ({"behind_proxy": True}, "--public-url"),
        ({"public_url": PUBLIC}, "--behind-proxy"),
        ({"public_url": f"{PUBLIC}/path", "tls": True}, "nothing more"),
        ({"public_url": "https://someone@tower.example.org", "tls": True}, "nothing more"),
        ({"public_url": "ftp://tower.example.org"}, "nothing more"),
        ({"apps_domain": "apps.example.org/x"}, "apps.example.org"),
        ({"apps_domain": ""}, "apps.example.org"),
    ],
)
def test_what_cannot_be_safe_is_refused_with_a_remedy(wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(Invalid) as refused:
        Settings(home=Path("/nowhere"), **wrong).validate()
    assert remedy in refused.value.public


@pytest.mark.parametrize(
    "right",
    [
        {"host": "127.0.0.1"},
        {"host": "::1"},
        {"host": "localhost"},
        {"host": "127.8.8.8"},
        {"host": "0.0.0.0", "tls": True},
        {"host": "0.0.0.0", "behind_proxy": True, "public_url": PUBLIC},
        {"public_url": "https://tower.example.org:8443", "tls": True},
        {"apps_domain": "apps.tower.example.org"},
    ],
)
def test_what_is_safe_is_taken(right: dict[str, Any]) -> None:
    Settings(home=Path("/nowhere"), **right).validate()


def test_hosts_of_apps_share_no_domain_that_takes_cookies_over_plain_http() -> None:
    """T19. Over TLS their cookies have a prefix that no sibling can plant, and a certificate needs it."""
    home = Path("/nowhere")
    assert Settings(home=home).apps_domain == "localhost"
    assert Settings(home=home, tls=True).apps_domain == "apps.localhost"
    proxied = Settings(home=home, behind_proxy=True, public_url=PUBLIC)
    assert proxied.apps_domain == "apps.localhost"
    for tls in (False, True):
        assert Settings(home=home, tls=tls, apps_domain="a.example.org").apps_domain == "a.example.org"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([], "127.0.0.1"),
        (["192.0.2.1"], "192.0.2.1"),
        (["10.9.9.9, 192.0.2.1"], "192.0.2.1"),
        (["10.9.9.9", "192.0.2.1"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["192.0.2.1, somewhere"], "127.0.0.1"),
        ([""], "127.0.0.1"),
    ],
)
async def test_only_what_the_proxy_itself_wrote_counts(forwarded: list[str], address: str) -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    scope = {"type": "websocket", "scheme": "ws", "headers": headers, "client": ("127.0.0.1", 5)}
    await BehindProxy(app, PUBLIC)(scope, None, None)  # type: ignore[arg-type]
    assert (seen["client"][0], seen["scheme"]) == (address, "wss")


def test_links_cookies_and_the_issuer_have_the_public_name(tmp_path: Path) -> None:
    options = ("--public-url", PUBLIC, "--behind-proxy", "--apps-domain", "apps.example.org")
    with Tower.started(tmp_path / "home", *options) as tower, tower.http() as client:
        assert tower.url.startswith("http://127.0.0.1:")
        told = client.get("/.well-known/oauth-authorization-server", headers={"host": "anything"})
        assert told.json()["issuer"] == PUBLIC
        tower.tower("users", "add", "alice", "--role", "viewer")
        link = tower.tower("users", "link", "alice").out.strip()
        assert link.startswith(f"{PUBLIC}/")
        entered = client.get(link.removeprefix(PUBLIC), headers={"host": "tower.example.org"})
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith("__Host-tower_session=")
        assert "; Secure" in cookie
        hosted = client.get("/", headers={"host": "app-p-d.apps.example.org", "accept": "application/json"})
        assert hosted.status_code in {401, 404}
        assert "x-tower" not in hosted.headers


def test_a_public_address_without_tls_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = subprocess.run(
        [BIN / "tower", "--home", home, "up", "--host", "0.0.0.0", "--port", "0"],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 2
    assert "--tls" in done.stderr
    assert not home.exists()

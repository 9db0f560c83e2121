"""Where logins are kept: a file of its owner alone, or the keyring; each control plane for itself."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import PasswordDeleteError

from flyte._config import Endpoint
from flyte.transport.login.cache import Entry, LoginCache, LoginCacheError

HERE = Endpoint.parse("https://tower.example")
THERE = Endpoint.parse("https://tower.example:8443")
PLAIN = Endpoint.parse("tower.example", insecure=True)


class Memory(KeyringBackend):
    """A keyring that forgets."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError(username)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """The system's keyring, asked for."""
    monkeypatch.setenv("FLYTE_KEYRING", "1")
    before, ring = keyring.get_keyring(), Memory()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def cache(tmp_path: Path) -> LoginCache:
    return LoginCache(tmp_path / "flyte" / "logins.json")


def login(endpoint: Endpoint, who: str) -> Entry:
    return Entry(endpoint.url, who, access_token=f"access-{who}", refresh_token=f"refresh-{who}")


def test_several_control_planes_side_by_side(cache: LoginCache) -> None:
    """The name alone is not the place: another port or scheme is another control plane."""
    for place, who in ((HERE, "ann"), (THERE, "ben"), (PLAIN, "cid")):
        cache.put(login(place, who))
    cache.put(login(HERE, "eve"))
    found = {place.url: cache.find(place) for place in (HERE, THERE, PLAIN)}
    assert [entry and entry.bearer for entry in found.values()] == ["access-eve", "access-ben", "access-cid"]
    assert cache.find(Endpoint.parse("https://elsewhere.example")) is None
    assert cache.remove(THERE)
    assert not cache.remove(THERE)
    assert {entry.subject for entry in cache.all()} == {"eve", "cid"}
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700


def test_secrets_lie_in_the_keyring_when_asked_for(cache: LoginCache, ring: Memory) -> None:
    cache.put(login(HERE, "ann"))
    cache.put(Entry(THERE.url, "ben", key="twr_ben"))
    assert "ann" in cache.path.read_text()
    assert not [secret for secret in ("access-", "refresh-", "twr_") if secret in cache.path.read_text()]
    assert json.loads(ring.kept["flyte", HERE.url])["refresh_token"] == "refresh-ann"
    first, second = cache.find(HERE), cache.find(THERE)
    assert first is not None
    assert second is not None
    assert (first.bearer, first.refresh_token, second.bearer) == ("access-ann", "refresh-ann", "twr_ben")
    assert cache.remove(HERE)
    assert list(ring.kept) == [("flyte", THERE.url)]
    assert cache.find(HERE) is None


def test_what_the_keyring_has_is_found_without_the_variable(
    cache: LoginCache, ring: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(login(HERE, "ann"))
    monkeypatch.delenv("FLYTE_KEYRING")
    found = cache.find(HERE)
    assert found is not None
    assert found.bearer == "access-ann"
    cache.put(login(THERE, "ben"))
    assert "access-ben" in cache.path.read_text()
    ring.kept.clear()
    assert cache.find(HERE) is None


def test_a_keyring_that_does_not_answer_is_said_without_the_secret(cache: LoginCache, ring: Memory) -> None:
    cache.put(login(HERE, "ann"))
    keyring.set_keyring(NoKeyring())
    for call in (lambda: cache.find(HERE), lambda: cache.put(login(THERE, "ben"))):
        with pytest.raises(LoginCacheError) as refused:
            call()
        assert "unset FLYTE_KEYRING" in refused.value.hint
        assert "access-" not in str(refused.value)
    assert cache.remove(HERE), "signing out works without it"


def test_without_the_package_it_is_said_what_to_install(
    cache: LoginCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYTE_KEYRING", "1")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(LoginCacheError, match="not installed"):
        cache.put(login(HERE, "ann"))

"""Secrets by the official SDK: it keeps them, and no more than we do can it read them again."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from tests.official.conftest import script
from tests.official.test_official_sdk import official  # noqa: F401  (a fixture)
from tests.tower_process import Tower

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]


def test_secrets_of_the_official_sdk(official: Path, tower_tls: Tower) -> None:  # noqa: F811
    tower_tls.tower("users", "add", "keeper", "--role", "admin", "--project", "flytesnacks")
    _, client, secret = tower_tls.new_key("keeper-key", "keeper").split("_", 2)
    value = f"canary-{secrets.token_hex(16)}"
    told = script(official, tower_tls, "keeping.py", {"client_id": client, "secret": secret, "value": value})
    assert (told["found"]["name"], told["found"]["type"]) == ("one", "regular")
    assert value not in told["found"]["text"]
    assert told["listed"] == ["one", "two"]
    assert told["after"] == ["two"]
    assert "not_found" in told["gone"].lower()

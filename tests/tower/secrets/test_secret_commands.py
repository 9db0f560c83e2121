"""`flyte create|update|get|delete secret` and `tower secrets rotate-key`, as they are typed."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

import pytest
from tests.tower_process import BIN, Tower, clean_environment

SCOPE = ("--project", "flytesnacks", "--domain", "development")


def typed(tower: Tower, *arguments: str, value: bytes = b"", user: str = "alice") -> tuple[int, str, str]:
    environment = {
        "FLYTE_ENDPOINT": tower.url,
        "FLYTE_API_KEY": tower.keys.get(user, user),
        "FLYTE_HOME": str(tower.home.parent / "flyte-secrets"),
        "FLYTE_PROJECT": "flytesnacks",
        "FLYTE_DOMAIN": "development",
    }
    done = subprocess.run(
        [BIN / "flyte", *arguments],
        input=value,
        env=clean_environment(environment),
        capture_output=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def name() -> str:
    return f"secret-{secrets.token_hex(4)}"


def test_a_secret_from_its_creation_to_its_end(tower: Tower, name: str, workspace: Path) -> None:
    admin = (tower.home / "admin-key").read_text().strip()
    value = f"canary-{secrets.token_hex(8)}".encode()
    status, out, error = typed(tower, "create", "secret", name, *SCOPE, value=value + b"\n", user=admin)
    assert (status, out) == (0, "")
    assert error == f"Created {name} for flytesnacks/development.\n"
    status, out, _ = typed(tower, "-o", "json", "get", "secret", name, *SCOPE)
    assert status == 0
    found = json.loads(out)
    assert (found["level"], found["version"]) == ("domain", 1)
    assert value.decode() not in out
    (workspace / "value").write_bytes(b"\x00binary\n")
    file = ("--value-file", str(workspace / "value"))
    assert typed(tower, "update", "secret", name, *file, *SCOPE, user=admin)[0] == 0
    assert name in typed(tower, "get", "secret")[1]
    assert typed(tower, "delete", "secret", name, *SCOPE)[0] == 4  # a contributor
    assert typed(tower, "delete", "secret", name, *SCOPE, user=admin)[0] == 0
    assert typed(tower, "get", "secret", name, *SCOPE)[0] == 5


def test_a_place_is_what_the_command_line_names(tower: Tower, name: str) -> None:
    """FLYTE_PROJECT and FLYTE_DOMAIN are set: they make no secret, and none that reaches further."""
    assert typed(tower, "create", "secret", name, value=b"x")[0] == 5  # of the installation: not hers to see
    assert typed(tower, "create", "secret", name, "--domain", "development", value=b"x")[0] == 2
    assert typed(tower, "create", "secret", name, "--personal", value=b"x")[0] == 0
    assert typed(tower, "create", "secret", name, "--personal", value=b"x")[0] == 1
    listed = json.loads(typed(tower, "-o", "json", "get", "secret", "--personal")[1])
    assert name in {each["name"] for each in listed}
    assert name not in typed(tower, "get", "secret", user="bob")[1]
    assert typed(tower, "delete", "secret", name, "--personal")[0] == 0


@pytest.mark.parametrize("value", [b"", b"\n", b"x" * 65537])
def test_a_value_is_neither_empty_nor_too_large(tower: Tower, name: str, value: bytes) -> None:
    status, _, error = typed(tower, "create", "secret", name, "--personal", value=value)
    assert status == 2
    assert "65536" in error


def test_no_value_stands_in_the_arguments(tower: Tower, name: str) -> None:
    status, _, error = typed(tower, "create", "secret", name, "--value", "x", "--personal")
    assert status == 2
    assert "No such option" in error


def test_the_key_is_rotated_on_the_machine(tower: Tower, name: str) -> None:
    assert typed(tower, "create", "secret", name, "--personal", value=b"kept")[0] == 0
    before = (tower.home / "secrets.key").read_text()
    said = tower.tower("secrets", "rotate-key").out
    after = (tower.home / "secrets.key").read_text()
    assert said.split()[-1] == after.split()[0] != before.split()[0]
    assert typed(tower, "get", "secret", name, "--personal")[0] == 0
